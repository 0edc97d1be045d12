package build

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/durable"
)

// cachedLock is a lock file that was read before, in a form that is read ten times
// faster: every command that builds waits for it.
type cachedLock struct {
	Text digest.Digest `json:"text"` // of ashlar.lock
	Lock *LockFile     `json:"lock"`
}

// readLock is ReadLockFile for the definition's directory, from a cache while the
// text is the same.
func (b *Builder) readLock() (*LockFile, error) {
	text, err := os.ReadFile(filepath.Join(b.Definition, LockName))
	if err != nil {
		return ReadLockFile(b.Definition) // which says what is wrong, if anything
	}
	dir, err := filepath.Abs(b.Definition)
	if err != nil {
		return nil, err
	}
	cache, name := b.cachePath("lock", dir), digest.FromBytes(text)
	if l, ok := recallLock(cache, name); ok {
		return l, nil
	}
	l, err := ParseLockFile(filepath.Join(b.Definition, LockName), text)
	if err != nil {
		return nil, err
	}
	return l, keepLock(cache, cachedLock{name, l})
}

// recallLock gives the lock of that text, if the cache has it.
func recallLock(cache string, text digest.Digest) (*LockFile, bool) {
	b, err := os.ReadFile(cache)
	if err != nil {
		return nil, false
	}
	var c cachedLock
	if json.Unmarshal(b, &c) != nil || c.Text != text || c.Lock == nil || c.Lock.Schema != LockSchema || c.Lock.check() != nil {
		return nil, false
	}
	return c.Lock, true
}

func keepLock(cache string, c cachedLock) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(cache), 0o755), durable.Swap(cache, b, 0o644))
}
