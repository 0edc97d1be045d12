package registry

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Bounds of the file of users.
const (
	maxUsersFile = 1 << 20 // bytes
	maxRight     = 1024    // credentials that were found right
	maxCost      = 14      // of bcrypt: a request would wait a second and more
)

// tokenMark begins a token in the file of users; the SHA-256 of the token follows, in
// hexadecimal. Tokens are random, so they need no slow hash.
const tokenMark = "{SHA256}"

// Users are those who may use a registry, by a file that is read again when it
// changes. Each line is  NAME:SECRET:ACCESS , where SECRET is a password's bcrypt
// hash, as htpasswd -B makes it, or a token's SHA-256, and ACCESS is read or write; without
// ACCESS it is read.
type Users struct {
	path string
	log  *slog.Logger
	key  [32]byte      // under which credentials are remembered
	slow chan struct{} // bcrypt takes the processor for a while

	mu    sync.Mutex
	seen  os.FileInfo
	users map[string]user
	right map[[32]byte]string // credentials that were found right, and whose
}

type user struct {
	secret string
	write  bool
}

// OpenUsers reads a file of users.
func OpenUsers(path string, log *slog.Logger) (*Users, error) {
	u := &Users{path: path, log: log, slow: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), right: map[[32]byte]string{}}
	if _, err := rand.Read(u.key[:]); err != nil {
		return nil, err
	}
	return u, u.load()
}

// load reads the file if it is not the one that was seen.
func (u *Users) load() error {
	info, err := os.Stat(u.path)
	if err != nil {
		return fault.New(fault.NotFound, "the file of users cannot be read: %w", err).
			Mend("make one:  ashlar registry user NAME --users %s", u.path)
	}
	if u.seen != nil && os.SameFile(u.seen, info) && u.seen.ModTime().Equal(info.ModTime()) && u.seen.Size() == info.Size() {
		return nil
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fault.New(fault.Refused, "others than its owner can write the file of users").At(u.path).Mend("chmod 600 %s", u.path)
	}
	f, err := os.Open(u.path)
	if err != nil {
		return fault.New(fault.NotFound, "the file of users cannot be read: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxUsersFile+1))
	if err != nil {
		return err
	}
	users, err := parseUsers(raw)
	if err != nil {
		return fault.Of(err).At(u.path)
	}
	u.seen, u.users = info, users
	clear(u.right)
	return nil
}

// parseUsers reads the file. Empty lines and those that begin with # are passed over.
func parseUsers(raw []byte) (map[string]user, error) {
	if len(raw) > maxUsersFile {
		return nil, fault.New(fault.Invalid, "the file of users has more than %d bytes", maxUsersFile)
	}
	users := map[string]user{}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, u, err := parseUser(line)
		if err == nil && users[name].secret != "" {
			err = fmt.Errorf("%q stands twice", name)
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "line %d of the file of users: %w", n, err).
				Detail("a line is  NAME:HASH:read  or  NAME:HASH:write").Mend("ashlar registry user NAME  writes such lines")
		}
		users[name] = u
	}
	return users, lines.Err()
}

func parseUser(line string) (string, user, error) {
	parts := strings.Split(line, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return "", user{}, fmt.Errorf("it has %d fields, want 2 or 3", len(parts))
	}
	u := user{secret: parts[1]}
	if len(parts) == 3 {
		switch parts[2] {
		case "write":
			u.write = true
		case "read":
		default:
			return "", u, fmt.Errorf("the access is %q, known are read and write", parts[2])
		}
	}
	if sum, ok := strings.CutPrefix(u.secret, tokenMark); ok {
		if raw, err := hex.DecodeString(sum); err != nil || len(raw) != sha256.Size {
			return "", u, fmt.Errorf("the token of %q is not a SHA-256", parts[0])
		}
		return parts[0], u, nil
	}
	cost, err := bcrypt.Cost([]byte(u.secret))
	if err != nil || cost > maxCost {
		return "", u, fmt.Errorf("the secret of %q is neither a bcrypt hash of cost %d or less nor a token", parts[0], maxCost)
	}
	return parts[0], u, nil
}

// find gives who has these credentials. An empty name is anybody's with that token.
func (u *Users) find(ctx context.Context, name, secret string) (user, bool) {
	u.mu.Lock()
	if err := u.load(); err != nil {
		u.log.Error("the file of users is not read again", "err", err)
	}
	mac := hmac.New(sha256.New, u.key[:])
	fmt.Fprintf(mac, "%d %s %s", len(name), name, secret)
	id := [32]byte(mac.Sum(nil))
	if known, ok := u.right[id]; ok {
		defer u.mu.Unlock()
		return u.users[known], true
	}
	all := u.users
	u.mu.Unlock()

	owner, ok := compare(ctx, u.slow, all, name, secret)
	if !ok {
		return user{}, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	now, still := u.users[owner]
	if !still || now.secret != all[owner].secret { // the file changed meanwhile
		return user{}, false
	}
	if len(u.right) >= maxRight {
		clear(u.right)
	}
	u.right[id] = owner
	return now, true
}

// nobody is the hash that the password of somebody unknown is compared with, so that
// it takes as long as one of somebody known.
const nobody = "$2a$10$CwTycUXWue0Thq9StjUM0uJ8d7xS3hPZ0y0V5Fq8l3GxYlOqV3g7K"

func compare(ctx context.Context, slow chan struct{}, all map[string]user, name, secret string) (owner string, ok bool) {
	sum := sha256.Sum256([]byte(secret))
	token := tokenMark + hex.EncodeToString(sum[:])
	for n, u := range all {
		if (name == "" || n == name) && subtle.ConstantTimeCompare([]byte(u.secret), []byte(token)) == 1 {
			return n, true
		}
	}
	if name == "" {
		return "", false
	}
	hash := nobody
	if u, known := all[name]; known && !strings.HasPrefix(u.secret, tokenMark) {
		hash = u.secret
	}
	select {
	case slow <- struct{}{}:
		defer func() { <-slow }()
	case <-ctx.Done():
		return "", false
	}
	return name, bcrypt.CompareHashAndPassword([]byte(hash), []byte(secret)) == nil && hash != nobody
}

// permit lets a request through, or says who may come.
func (s *Server) permit(w http.ResponseWriter, r *http.Request) error {
	if s.users == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	name, secret, given := credentials(r)
	u, ok := user{}, false
	if given {
		u, ok = s.users.find(ctx, name, secret)
	}
	switch {
	case !ok:
		w.Header().Set("WWW-Authenticate", `Basic realm="ashlar"`)
		return &problem{http.StatusUnauthorized, "UNAUTHORIZED", "log in first"}
	case r.Method != http.MethodGet && r.Method != http.MethodHead && !u.write:
		return &problem{http.StatusForbidden, "DENIED", "this user may only read"}
	}
	return nil
}

// credentials are a name with a password or token, or a token alone.
func credentials(r *http.Request) (name, secret string, ok bool) {
	if len(r.Header.Values("Authorization")) != 1 {
		return "", "", false
	}
	if name, secret, ok = r.BasicAuth(); ok {
		return name, secret, name != ""
	}
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return "", token, strings.EqualFold(kind, "Bearer") && token != ""
}

// UserLine is the line of a user in the file. With an empty password it makes a token
// and returns that too.
func UserLine(name, password string, write bool) (line, token string, err error) {
	if name == "" || strings.ContainsAny(name, ": \t\r\n#") {
		return "", "", fault.New(fault.Invalid, "%q is not a name for a user", name).Mend("use letters and digits")
	}
	access := "read"
	if write {
		access = "write"
	}
	if password == "" {
		token = rand.Text() + rand.Text()
		sum := sha256.Sum256([]byte(token))
		return name + ":" + tokenMark + hex.EncodeToString(sum[:]) + ":" + access, token, nil
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if err != nil {
		return "", "", fault.New(fault.Invalid, "the password cannot be used: %w", err).Mend("use 72 bytes at most")
	}
	return name + ":" + string(hash) + ":" + access, "", nil
}
