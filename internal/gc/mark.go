package gc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// Objects is the store that is collected. Package object's is one.
type Objects interface {
	Open(d digest.Digest) (io.ReadCloser, error)
	ReadAll(d digest.Digest, limit int64) ([]byte, error)
	Walk(fn func(d digest.Digest, size int64) error) error
	Remove(d digest.Digest) error
	Refs(kind string) (map[string]digest.Digest, error)
	RefTime(kind, name string) (time.Time, error)
	RemoveRef(kind, name string) error
}

// Source is where marking looks.
type Source struct {
	Objects Objects
	Kinds   map[string]time.Duration                     // of references, with the time after their last use when they go
	Seal    func(seal digest.Digest) (image.Tree, error) // reads a sealed tree
	// About is what a reference is about: while that stays, it does. Empty: it stays
	// for its own sake, as long as Kinds says.
	About func(kind, name string) digest.Digest
	// Closed are kinds of references whose objects are not looked into: what they name
	// does not stay for them.
	Closed []string
	// Pins are objects that stay whatever they are, and Gone references that go: others
	// have judged them. Pins are not looked into, since strangers may have made them.
	Pins []digest.Digest
	Gone []Ref
}

// Ref is a reference that goes.
type Ref struct{ Kind, Name string }

// Plan is what a sweep would do.
type Plan struct {
	Remove  []Object
	Refs    []Ref // too old, or to something that is not there
	Kept    int
	KeptB   int64 // bytes
	RemoveB int64
}

// Object is one object that goes.
type Object struct {
	Digest digest.Digest
	Size   int64
}

// Mark finds what goes, given the releases that stay. It fails rather than
// guess: a kept release whose bytes cannot be read stops the collection.
func Mark(now time.Time, s Source, kept []release.Release) (Plan, error) {
	m := &marker{s: s, live: map[digest.Digest]bool{}, followed: map[digest.Digest]bool{}}
	for _, r := range kept {
		if err := m.release(r); err != nil {
			return Plan{}, fmt.Errorf("a kept release of %s: %w", r.App, err)
		}
		d, err := r.Digest()
		if err != nil {
			return Plan{}, fmt.Errorf("a kept release of %s: %w", r.App, err)
		}
		m.live[d] = true // its document, where statements about it are kept
	}
	for _, d := range s.Pins { // after the releases: what is marked is not looked into again
		m.live[d] = true
	}
	p := Plan{Refs: slices.Clone(s.Gone)}
	if err := m.refs(now, &p); err != nil {
		return Plan{}, err
	}
	err := s.Objects.Walk(func(d digest.Digest, size int64) error {
		if m.live[d] {
			p.Kept++
			p.KeptB += size
			return nil
		}
		p.Remove = append(p.Remove, Object{d, size})
		p.RemoveB += size
		return nil
	})
	return p, err
}

type marker struct {
	s        Source
	live     map[digest.Digest]bool
	followed map[digest.Digest]bool
	strange  bool // strangers may have made what is marked now: what cannot be read is kept as it is
}

// mark says whether an object was not marked before.
func (m *marker) mark(d digest.Digest) bool {
	if d == "" || m.live[d] {
		return false
	}
	m.live[d] = true
	return true
}

func (m *marker) release(r release.Release) error {
	for _, env := range r.Environments {
		for name, c := range env.Components {
			if err := m.spec(c.Spec); err != nil {
				return fmt.Errorf("component %s: %w", name, err)
			}
			if err := m.ledger(c.Ledger); err != nil {
				return fmt.Errorf("the ledger of component %s: %w", name, err)
			}
		}
	}
	return nil
}

// spec marks what an instance needs, and what exporting its artifact needs.
func (m *marker) spec(s release.Spec) error {
	for _, f := range s.Files {
		m.mark(f.Digest)
	}
	for _, seal := range []digest.Digest{s.Tree, s.Settings} {
		if !m.mark(seal) {
			continue
		}
		t, err := m.s.Seal(seal)
		if err != nil {
			return err
		}
		m.tree(t)
	}
	return m.anything(s.Artifact)
}

// ledger marks a ledger with what it names: chapters, trees, and the inputs that are
// on hand, so that what it says can be held against them, and rebuilt. Releases of older
// versions have none.
func (m *marker) ledger(d digest.Digest) error {
	if d == "" {
		return nil
	}
	return m.anything(d)
}

func (m *marker) tree(t image.Tree) {
	for _, e := range t.Entries {
		m.mark(e.Digest)
	}
}

// refs marks what references lead to, and finds those that go. Those that are about
// something come last, again and again until they add nothing: they may be about each
// other.
func (m *marker) refs(now time.Time, p *Plan) error {
	var left []reference
	for _, kind := range slices.Sorted(maps.Keys(m.s.Kinds)) {
		list, err := m.list(now, kind)
		if err != nil {
			return err
		}
		for _, r := range list {
			if !r.fresh {
				left = append(left, r)
				continue
			}
			m.strange = r.about != ""
			found, err := m.ref(r)
			if err != nil {
				return err
			}
			if !found {
				p.Refs = append(p.Refs, r.Ref)
			}
		}
	}
	for before := -1; before != len(left); {
		before = len(left)
		var err error
		left = slices.DeleteFunc(left, func(r reference) bool {
			if err != nil || r.about == "" || !m.live[r.about] {
				return false
			}
			var found bool
			m.strange = true
			found, err = m.ref(r)
			return found
		})
		if err != nil {
			return err
		}
	}
	for _, r := range left {
		p.Refs = append(p.Refs, r.Ref)
	}
	return nil
}

// reference is one reference with what decides whether it stays.
type reference struct {
	Ref
	to, about digest.Digest
	fresh     bool // used so recently that it stays whatever else goes
}

func (m *marker) list(now time.Time, kind string) ([]reference, error) {
	refs, err := m.s.Objects.Refs(kind)
	if err != nil {
		return nil, err
	}
	var out []reference
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		used, err := m.s.Objects.RefTime(kind, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r := reference{Ref: Ref{kind, name}, to: refs[name], fresh: now.Sub(used) <= m.s.Kinds[kind]}
		if m.s.About != nil {
			r.about = m.s.About(kind, name)
		}
		out = append(out, r)
	}
	return out, nil
}

// ref marks what one reference leads to, and the object that it is called after,
// if there is one. It says false when it leads nowhere.
func (m *marker) ref(r reference) (bool, error) {
	var err error
	if slices.Contains(m.s.Closed, r.Kind) {
		if _, err = sniff(m.s.Objects, r.to); err == nil {
			m.mark(r.to)
		}
	} else {
		err = m.anything(r.to)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if d := digest.NewDigestFromEncoded(digest.SHA256, r.Name); d.Validate() == nil {
		if err := m.anything(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// anything marks an object and what it names, if it is a sealed tree, a layer's
// tree, or JSON that holds digests (a manifest, a layer's description). Looking
// too far only keeps more. The error for an object that is not there satisfies
// errors.Is(err, fs.ErrNotExist).
func (m *marker) anything(d digest.Digest) error {
	if m.followed[d] {
		return nil
	}
	f, err := sniff(m.s.Objects, d)
	if err != nil {
		return err
	}
	m.followed[d] = true
	m.mark(d)
	switch f {
	case sealed:
		t, err := m.s.Seal(d)
		if err != nil && !m.strange {
			return err
		}
		m.tree(t)
	case packed, text:
		b, err := m.s.Objects.ReadAll(d, maxRead)
		if err != nil {
			return err
		}
		if f == text {
			return m.text(b)
		}
		t, err := image.UnmarshalTree(b)
		if err != nil && !m.strange {
			return err
		}
		m.tree(t)
	}
	return nil
}

// text follows every digest that stands in a JSON document.
func (m *marker) text(b []byte) error {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return nil
	}
	var walk func(v any) error
	walk = func(v any) error {
		switch v := v.(type) {
		case string:
			d := digest.Digest(v)
			if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
				return nil
			}
			if err := m.anything(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err // what is not there is a layer, which is never stored
			}
		case []any:
			for _, x := range v {
				if err := walk(x); err != nil {
					return err
				}
			}
		case map[string]any:
			for _, x := range v {
				if err := walk(x); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return walk(v)
}
