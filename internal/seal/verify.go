package seal

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Report is what [Verify] found.
type Report struct {
	Seal    digest.Digest `json:"seal"`
	Files   int           `json:"files"`   // in the tree
	Objects int           `json:"objects"` // that were read, each once; the seal itself not counted
	Bytes   int64         `json:"bytes"`   // of those objects
	Damage  []Damage      `json:"damage,omitempty"`
}

// Damage is one path of the tree, or the seal itself, whose bytes are not what
// the seal says.
type Damage struct {
	Path    string        `json:"path"`   // in the tree, absolute; empty: the seal itself
	Object  digest.Digest `json:"object"` //
	File    string        `json:"file"`   // where the object is, or should be
	Problem string        `json:"problem"`
}

// Verify reads the metadata image and every object of a sealed tree again and
// compares them with their digests. It does not stop at the first damage. If
// there is any, the report names every path and the error is a Refused fault
// that does so too. When ctx ends first, so does Verify, with ctx's error.
func Verify(ctx context.Context, s *object.Store, seal digest.Digest) (Report, error) {
	r := Report{Seal: seal}
	if _, err := s.CheckContext(ctx, seal); err != nil {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		r.Damage = []Damage{damage(s, "", seal, err)}
		return r, r.fault()
	}
	t, err := Read(s, seal)
	if err != nil {
		return r, err
	}
	needed := objectsOf(t, &r)
	found, err := check(ctx, s, needed)
	if err != nil {
		return r, err
	}
	for d, entries := range needed {
		for _, e := range entries {
			if problem := found[d].problem(e); problem != nil {
				r.Damage = append(r.Damage, damage(s, "/"+e.Path, d, problem))
			}
		}
	}
	slices.SortFunc(r.Damage, func(a, b Damage) int { return strings.Compare(a.Path, b.Path) })
	if len(r.Damage) > 0 {
		return r, r.fault()
	}
	return r, nil
}

// objectsOf lists which files need which object and counts them.
func objectsOf(t image.Tree, r *Report) map[digest.Digest][]image.Entry {
	needed := map[digest.Digest][]image.Entry{}
	for _, e := range t.Entries {
		if e.Type != image.File {
			continue
		}
		r.Files++
		if e.Size == 0 { // has no object
			continue
		}
		if needed[e.Digest] == nil {
			r.Objects++
			r.Bytes += e.Size
		}
		needed[e.Digest] = append(needed[e.Digest], e)
	}
	return needed
}

// checked is what reading an object again gave.
type checked struct {
	size int64
	err  error
}

func (c checked) problem(e image.Entry) error {
	if c.err == nil && c.size != e.Size {
		return fmt.Errorf("the object has %d bytes and the tree says %d", c.size, e.Size)
	}
	return c.err
}

// check verifies objects in parallel.
func check(ctx context.Context, s *object.Store, needed map[digest.Digest][]image.Entry) (map[digest.Digest]checked, error) {
	var mu sync.Mutex
	found := make(map[digest.Digest]checked, len(needed))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for d := range needed {
		g.Go(func() error {
			var c checked
			c.size, c.err = s.CheckContext(ctx, d)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			mu.Lock()
			found[d] = c
			mu.Unlock()
			return nil
		})
	}
	return found, g.Wait()
}

func damage(s *object.Store, path string, d digest.Digest, err error) Damage {
	file, ferr := s.File(d)
	f := fault.Of(errors.Join(err, ferr))
	return Damage{Path: path, Object: d, File: file, Problem: f.What}
}

func (r Report) fault() error {
	f := fault.New(fault.Refused, "%d of the paths in sealed tree %s are damaged", len(r.Damage), r.Seal)
	for _, d := range r.Damage {
		path := d.Path
		if path == "" {
			path = "the seal itself"
		}
		f.Detail(fmt.Sprintf("%s: %s (%s)", path, d.Problem, d.File))
	}
	return f.Mend("remove the damaged files and run  ashlar build  again, which stores them anew; what runs from them is to be replaced")
}
