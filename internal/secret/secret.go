// Package secret keeps the values of secrets, encrypted at rest with age
// (https://age-encryption.org/v1) for the X25519 identity of the server. Each
// version of a secret is one file that is written once and never changed; a release
// names versions by number and by the digest of the encrypted bytes, and no value is
// anywhere but in here and in the memory of who was given it.
//
// A version becomes visible in two steps, so that its entry can be in the record
// before it is: Seal writes it, Commit lets it be seen. What a crash left between the
// two is in Pending.
//
// Start at [Open]. store_test.go holds that nothing of a value reaches the disk.
package secret

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// MaxSize is the longest value, in bytes: what a variable of a process can hold, and a
// small part of what an instance's memory is.
const MaxSize = 64 << 10

// Version is one version of a secret of an environment, without its value.
type Version struct {
	Key    rollout.Key
	Name   string
	Number int           // from 1; never used twice
	Sealed digest.Digest // of the encrypted value
	Set    time.Time     // when it was written
}

// Store keeps versions in a directory. It is safe for concurrent use by one process.
type Store struct {
	dir      string
	identity identityFile
	mu       sync.Mutex // held while versions are added or removed
}

// Open opens the secrets of a directory, which need not exist yet. identity is the file
// of the server's identity; it is made together with the first secret, and refused when
// somebody but its owner may read it, or when it is missing though there are secrets.
func Open(dir, identity string) (*Store, error) {
	s := &Store{dir: dir, identity: identityFile{path: identity}}
	all, err := s.versions(dir)
	if err != nil {
		return nil, err
	}
	if _, err := s.identity.read(len(all) > 0); err != nil {
		return nil, err
	}
	return s, nil
}

var nameRule = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) })

// check refuses names that are no file names of ours.
func check(key rollout.Key, name string) error {
	for _, part := range []struct{ what, text string }{{"application", key.App}, {"environment", key.Env}, {"secret", name}} {
		if !nameRule().MatchString(part.text) {
			return fault.New(fault.Invalid, "%q is not the name of a %s", part.text, part.what).
				Mend("write 1 to 63 lower-case letters, digits and hyphens")
		}
	}
	return nil
}

// The names of files: VERSION.HEX.age holds a version, HEX being the digest of its
// bytes; .VERSION.HEX.age one that is not committed; VERSION.gone says that the number
// was used.
const (
	suffix = ".age"
	gone   = ".gone"
)

func (v Version) file() string {
	return strconv.Itoa(v.Number) + "." + v.Sealed.Encoded() + suffix
}

func (v Version) pending() string { return "." + v.file() }

// parseFile reads the name of a file.
func parseFile(name string) (v Version, pending, ok bool) {
	name, pending = strings.CutPrefix(name, ".")
	stem, ok := strings.CutSuffix(name, suffix)
	number, hex, both := strings.Cut(stem, ".")
	n, err := strconv.Atoi(number)
	d := digest.NewDigestFromEncoded(digest.SHA256, hex)
	if !ok || !both || err != nil || n < 1 || d.Validate() != nil {
		return Version{}, false, false
	}
	return Version{Number: n, Sealed: d}, pending, true
}

// parseGone reads the name of a file that says that a number was used; 0 if it is not one.
func parseGone(name string) int {
	stem, ok := strings.CutSuffix(name, gone)
	n, err := strconv.Atoi(stem)
	if !ok || err != nil {
		return 0
	}
	return n
}
