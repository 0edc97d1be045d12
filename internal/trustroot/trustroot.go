// Package trustroot is a server's trust root: the file trust.json of its state
// directory, and beside it, in trust.seen, the last of its versions that the server
// used. A file that does not go on from what was used before (an older one, another
// one, none at all) is not believed: with it, what was revoked would count again.
//
// Nobody has to restart anything: a newer file that was put there is seen when the
// trust root is next asked for. `ashlar trust install` puts it there, and has it recorded.
//
// Start at [File.Chain]; TestRolledBack shows what is refused.
package trustroot

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// The files of the state directory.
const (
	Name     = "trust.json"
	seenName = "trust.seen"
)

// File is the trust root of a state directory. It is safe for concurrent use.
type File struct {
	dir string

	mu    sync.Mutex
	text  []byte // what chain was read from
	chain *trust.Chain
}

// New takes the trust root of a state directory; nothing is read yet.
func New(dir string) *File { return &File{dir: dir} }

// Chain reads the trust root as it is now. Nil without an error says that there is
// none, and never was. A fault of kind Refused says why it is not believed.
func (f *File) Chain() (*trust.Chain, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text, err := read(f.path(Name))
	if err != nil {
		return nil, err
	}
	if f.chain != nil && bytes.Equal(text, f.text) {
		return f.chain, nil
	}
	seen, err := f.seen()
	if err != nil {
		return nil, err
	}
	if text == nil {
		if seen != nil {
			return nil, refusal(trust.RolledBack, "the trust root is gone; one of %d versions was used before", seen.Versions()).At(f.path(Name)).
				Mend("put it back in place:  ashlar trust install FILE")
		}
		return nil, nil
	}
	chain, err := parse(text, f.path(Name))
	if err != nil {
		return nil, err
	}
	if err := follows(chain, seen); err != nil {
		return nil, err.At(f.path(Name)).Mend("put the newest trust root in place:  ashlar trust install FILE")
	}
	if seen == nil || seen.Versions() < chain.Versions() {
		if err := durable.Replace(f.path(seenName), text, 0o644); err != nil {
			return nil, fault.New(fault.Unavailable, "the trust root cannot be remembered: %w", err).At(f.path(seenName))
		}
	}
	f.chain, f.text = chain, bytes.Clone(text)
	return chain, nil
}

// Install puts a trust root in place, if it goes on from the one that is in use.
// before is called with it when everything else is settled; its error stops. One that
// is in use already is none, and before is not called.
func (f *File) Install(text []byte, before func(*trust.Chain) error) (*trust.Chain, error) {
	chain, err := parse(text, "")
	if err != nil {
		return nil, err
	}
	now, refused := f.Chain()
	f.mu.Lock()
	defer f.mu.Unlock()
	seen, err := f.seen() // what counts, also where somebody spoilt the file
	if err != nil {
		return nil, err
	}
	if err := follows(chain, seen); err != nil {
		return nil, err.Mend("install one that goes on from the server's:  ashlar trust show")
	}
	if refused == nil && now != nil && now.Versions() == chain.Versions() {
		return now, nil
	}
	if err := before(chain); err != nil {
		return nil, err
	}
	err = durable.Replace(f.path(seenName), text, 0o644) // first: what is in use is remembered
	if err == nil {
		err = durable.Replace(f.path(Name), text, 0o644)
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the trust root cannot be installed: %w", err).At(f.path(Name))
	}
	f.chain, f.text = chain, bytes.Clone(text)
	return chain, nil
}

func (f *File) path(name string) string { return filepath.Join(f.dir, name) }

// seen is the trust root that was used last; nil: none was.
func (f *File) seen() (*trust.Chain, error) {
	text, err := read(f.path(seenName))
	if err != nil || text == nil {
		return nil, err
	}
	return parse(text, f.path(seenName))
}

// follows is nil if the trust root goes on from the one that was used last.
func follows(chain, seen *trust.Chain) *fault.Error {
	if seen == nil {
		return nil
	}
	var r *trust.Refusal
	if errors.As(chain.Follows(seen), &r) {
		return refusal(r.Verdict, "%s", r.What)
	}
	return nil
}

func refusal(v trust.Verdict, format string, args ...any) *fault.Error {
	return fault.New(fault.Refused, format, args...).Detail("verdict: " + string(v))
}

func parse(text []byte, where string) (*trust.Chain, error) {
	chain, err := trust.ParseChain(text)
	var r *trust.Refusal
	if errors.As(err, &r) {
		return nil, fault.New(fault.Refused, "%s", r.What).At(where).Detail("verdict: " + string(r.Verdict))
	}
	return chain, err
}

// read gives the file's bytes; nil when there is none.
func read(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the trust root cannot be read: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err := io.ReadAll(io.LimitReader(f, trust.MaxRoot+1))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the trust root cannot be read: %w", err)
	}
	return text, nil // one that is too large is refused as such
}
