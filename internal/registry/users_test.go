package registry

import (
	"encoding/base64"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

func basic(name, secret string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+secret))
}

// guarded is a registry with a reader (password), a writer (token), and the path of
// its users.
func guarded(t *testing.T) (w *world, path, token string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "users")
	hash, err := bcrypt.GenerateFromPassword([]byte("pass word"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetUser(path, "reader", "reader:"+string(hash)); err != nil { // as htpasswd has it
		t.Fatal(err)
	}
	line, token, err := UserLine("writer", "", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetUser(path, "writer", line); err != nil {
		t.Fatal(err)
	}
	users, err := OpenUsers(path, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, func(c *Config) { c.Users = users }), path, token
}

// TestUsers: who may read, who may write, and who may not, whatever they try.
func TestUsers(t *testing.T) {
	w, path, token := guarded(t)
	d := digest.FromString("x").String()
	read, write, remove := "GET /v2/", "POST /v2/a/blobs/uploads/?digest="+d, "DELETE /v2/a/manifests/t"
	for name, c := range map[string]struct {
		request string
		header  []string
		status  int
	}{
		"nobody reads":                      {read, nil, 401},
		"nobody writes":                     {write, nil, 401},
		"nobody looks at what is not there": {"GET /v2/none/manifests/t", nil, 401},
		"nobody looks at a strange path":    {"GET /strange", nil, 401},
		"nobody, by HEAD":                   {"HEAD /v2/a/manifests/t", nil, 401},
		"a reader reads":                    {read, []string{basic("reader", "pass word")}, 200},
		"a reader reads again":              {read, []string{basic("reader", "pass word")}, 200},
		"a reader writes":                   {write, []string{basic("reader", "pass word")}, 403},
		"a reader removes":                  {remove, []string{basic("reader", "pass word")}, 403},
		"a reader by another method":        {"PROPFIND /v2/", []string{basic("reader", "pass word")}, 403},
		"a wrong password":                  {read, []string{basic("reader", "pass wor")}, 401},
		"a longer password":                 {read, []string{basic("reader", "pass word ")}, 401},
		"no password":                       {read, []string{basic("reader", "")}, 401},
		"the hash as the password":          {read, []string{basic("reader", secretOf(t, path, "reader"))}, 401},
		"the token's hash as the password":  {read, []string{basic("writer", secretOf(t, path, "writer"))}, 401},
		"somebody unknown":                  {read, []string{basic("nobody", "pass word")}, 401},
		"nobody's hash's own name":          {read, []string{basic("", "pass word")}, 401},
		"a password as a bearer token":      {read, []string{"Authorization: Bearer pass word"}, 401},
		"an empty bearer token":             {read, []string{"Authorization: Bearer "}, 401},
		"two headers":                       {read, []string{basic("reader", "pass word"), basic("writer", "x")}, 401},
		"a comment's name":                  {read, []string{basic("#", "")}, 401},
		"a name with the secret in it":      {read, []string{basic("reader:pass", "word")}, 401},
		"another's token":                   {read, []string{basic("reader", token)}, 401},
		"no base64":                         {read, []string{"Authorization: Basic !"}, 401},
		"Digest":                            {read, []string{"Authorization: Digest username=reader"}, 401},
		"a writer writes":                   {write, []string{basic("writer", token)}, 201},
		"a writer by bearer token":          {write, []string{"Authorization: Bearer " + token}, 201},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		got := w.do(method, target, "x", c.header...)
		if got.status != c.status {
			t.Errorf("%s: status %d, want %d", name, got.status, c.status)
		}
		if challenge := got.header.Get("WWW-Authenticate"); (got.status == 401) != (challenge != "") {
			t.Errorf("%s: the challenge is %q", name, challenge)
		}
	}
	// What was right is not remembered beyond the file.
	if err := SetUser(path, "writer", ""); err != nil {
		t.Fatal(err)
	}
	w.want(http.StatusUnauthorized, "GET", "/v2/", "", basic("writer", token))
	w.want(http.StatusOK, "GET", "/v2/", "", basic("reader", "pass word"))
	if err := os.WriteFile(path, []byte("damaged\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.want(http.StatusOK, "GET", "/v2/", "", basic("reader", "pass word")) // until it can be read again
}

func secretOf(t *testing.T, path, name string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	users, err := parseUsers(raw)
	if err != nil {
		t.Fatal(err)
	}
	return users[name].secret
}

// TestNobody: the hash that strangers' passwords are compared with is one, of the cost
// that users have.
func TestNobody(t *testing.T) {
	if cost, err := bcrypt.Cost([]byte(nobody)); err != nil || cost != bcrypt.DefaultCost {
		t.Errorf("cost %d (%v)", cost, err)
	}
	if err := bcrypt.CompareHashAndPassword([]byte(nobody), []byte("x")); err != bcrypt.ErrMismatchedHashAndPassword {
		t.Errorf("comparing gives %v", err)
	}
}

func TestUsersFileIsRefused(t *testing.T) {
	line, _, err := UserLine("a", "secret", false)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a plain password":   "a:secret:read",
		"MD5":                "a:$apr1$abc$def",
		"an unknown access":  strings.TrimSuffix(line, "read") + "admin",
		"a field more":       line + ":x",
		"no secret":          "a",
		"no name":            strings.TrimPrefix(line, "a"),
		"twice":              line + "\n" + line,
		"a short token":      "a:{SHA256}abcd:read",
		"a cost of a minute": "a:$2a$20$" + strings.Repeat("a", 53),
	} {
		if _, err := parseUsers([]byte(text)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenUsers(path, nil); err == nil || fault.Of(err).Kind != fault.Refused {
		t.Errorf("a file that others may write gives %v", err)
	}
}

// TestListen: others are served with both users and TLS, or not at all.
func TestListen(t *testing.T) {
	for address, kind := range map[string]fault.Kind{
		"0.0.0.0:0": fault.Refused, ":0": fault.Refused, "[::]:0": fault.Refused, "192.0.2.1:0": fault.Refused, "host.example:0": fault.Refused,
		"127.0.0.1": fault.Invalid,
	} {
		if _, _, err := Listen(address, false); err == nil || fault.Of(err).Kind != kind {
			t.Errorf("%s: %v, want %s", address, err, kind)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:0"} {
		l, loopback, err := Listen(address, false)
		if err != nil || !loopback {
			t.Fatalf("%s: %v", address, err)
		}
		l.Close()
	}
	l, loopback, err := Listen("0.0.0.0:0", true)
	if err != nil || loopback {
		t.Fatal(err)
	}
	l.Close()
}

// TestKeep: what has a tag stays with all that it needs and what refers to it, what
// nobody needs goes after a day, and nothing before.
func TestKeep(t *testing.T) {
	w := newWorld(t)
	built, _, _ := w.build("a file")
	w.built["shop/web"] = map[string]digest.Digest{"7": built}
	tagged := w.manifest("a", "tagged")
	w.put("a", "t", tagged)
	child := w.manifest("a", "child")
	childDigest := w.put("a", digest.FromString(child).String(), child)
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` +
		childDigest.String() + `","size":` + itoa(len(child)) + `}]}`
	w.put("a", "i", index)
	about := func(subject digest.Digest) func(*manifestDoc) {
		return func(m *manifestDoc) { m.Subject = &descriptorDoc{MediaType: m.MediaType, Digest: subject, Size: 1} }
	}
	signature := w.manifest("a", "signature", about(digest.FromString(tagged)))
	w.put("a", digest.FromString(signature).String(), signature)
	again := w.manifest("a", "signature of it", about(digest.FromString(signature)))
	w.put("a", digest.FromString(again).String(), again)
	ofBuilt := w.manifest("shop/web", "signature of what was built", about(built))
	w.put("shop/web", digest.FromString(ofBuilt).String(), ofBuilt)
	loose := w.manifest("a", "loose")
	w.put("a", digest.FromString(loose).String(), loose)
	ofNothing := w.manifest("a", "of nothing", about(digest.FromString("nothing")))
	w.put("a", digest.FromString(ofNothing).String(), ofNothing)
	w.push("b", "a blob")
	sha512 := digest.SHA512.FromString(tagged)
	w.want(http.StatusCreated, "PUT", "/v2/a/manifests/"+sha512.String()+"?tag=t512", tagged, "Content-Type: application/vnd.oci.image.manifest.v1+json")

	k, err := Keep(w.objects, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(k.Gone) != 0 {
		t.Errorf("at once %v go", k.Gone)
	}
	if k, err = Keep(w.objects, time.Now().Add(keepFresh+time.Hour)); err != nil {
		t.Fatal(err)
	}
	kept := map[digest.Digest]bool{}
	for _, d := range k.Objects {
		kept[d] = true
	}
	for _, what := range []string{tagged, "tagged", "{}", index, child, "child", signature, "signature", again, "signature of it", ofBuilt, "signature of what was built", `"a"`, `"shop/web"`} {
		if !kept[digest.FromString(what)] {
			t.Errorf("%.60q goes", what)
		}
	}
	for _, what := range []string{loose, "loose", ofNothing, "of nothing", "a blob", `"b"`} {
		if kept[digest.FromString(what)] {
			t.Errorf("%.60q stays", what)
		}
	}
	for _, r := range k.Gone {
		if err := w.objects.RemoveRef(r.Kind, r.Name); err != nil {
			t.Fatal(err)
		}
	}
	w.want(http.StatusOK, "GET", "/v2/a/manifests/t", "")
	w.want(http.StatusOK, "GET", "/v2/a/manifests/"+sha512.String(), "")
	w.want(http.StatusOK, "GET", "/v2/a/blobs/"+digest.FromString("child").String(), "")
	w.want(http.StatusNotFound, "GET", "/v2/a/manifests/"+digest.FromString(loose).String(), "")
	w.want(http.StatusNotFound, "GET", "/v2/b/tags/list", "")
}
