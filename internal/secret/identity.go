package secret

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"

	"filippo.io/age"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// identityFile is the file of the server's identity, as the age program writes and reads
// them: `age --decrypt --identity FILE` opens every version.
type identityFile struct {
	path string
	mu   sync.Mutex
	have *age.X25519Identity // once it was read or made
}

// read gives the identity; nil when there is none and none is needed.
func (f *identityFile) read(needed bool) (*age.X25519Identity, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.have != nil {
		return f.have, nil
	}
	info, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !needed:
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.Unavailable, "the identity that opens the secrets is not there").At(f.path).
			Mend("put the file back from where it is kept, or name it:  ashlar server --secret-identity FILE")
	case err != nil:
		return nil, fault.New(fault.Unavailable, "cannot read the identity that opens the secrets: %w", err).At(f.path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fault.New(fault.Refused, "others than its owner may use the identity that opens the secrets: its mode is %04o", info.Mode().Perm()).At(f.path).
			Mend("chmod 600 %s  and set every secret anew if somebody may have read it", f.path)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot read the identity that opens the secrets: %w", err).At(f.path)
	}
	f.have, err = parseIdentity(text)
	if err != nil {
		return nil, err.(*fault.Error).At(f.path)
	}
	return f.have, nil
}

// parseIdentity finds the one key of the file. What is wrong with it is not quoted: it may
// be a key.
func parseIdentity(text []byte) (*age.X25519Identity, error) {
	bad := fault.New(fault.Invalid, "the file is not an identity of age's kind X25519").
		Mend("put one key there, as  age-keygen  writes it")
	var found *age.X25519Identity
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil || found != nil {
			return nil, bad
		}
		found = id
	}
	if found == nil {
		return nil, bad
	}
	return found, nil
}

// make gives the identity, made now if there is none.
func (f *identityFile) make() (*age.X25519Identity, error) {
	id, err := f.read(false)
	if err != nil || id != nil {
		return id, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if id, err = age.GenerateX25519Identity(); err != nil {
		return nil, fault.New(fault.Internal, "cannot make an identity: %w", err)
	}
	var b bytes.Buffer
	b.WriteString("# Opens the secrets of this Ashlar server. Keep a copy where the server's backups are not.\n# public key: ")
	b.WriteString(id.Recipient().String() + "\n" + id.String() + "\n")
	if err := create(f.path, b.Bytes(), 0o600); err != nil {
		return nil, fault.New(fault.Unavailable, "cannot keep the identity that opens the secrets: %w", err).At(f.path).
			Mend("make its directory, or name another file:  ashlar server --secret-identity FILE")
	}
	f.have = id
	return id, nil
}
