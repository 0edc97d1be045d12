package debian

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// unpackedRef is the kind of reference from a .deb to what it holds, see unpacked.
const unpackedRef = "deb"

// maxRecord bounds the encoded form of what one .deb holds.
const maxRecord = 256 << 20

func unpackedName(d digest.Digest) string { return fmt.Sprintf("%s-v%d", d.Encoded(), debFormat) }

// unpackAll gives what every package of the lock holds, in the lock's order,
// decoding only those that were not decoded before or have lost a file.
func unpackAll(ctx context.Context, store *object.Store, lock Lock, tell func(Progress)) ([]*unpacked, error) {
	out := make([]*unpacked, len(lock.Packages))
	var todo []int
	for i, p := range lock.Packages {
		u, err := loadUnpacked(store, p)
		if err == nil && u != nil {
			err = u.is(p)
		}
		if err != nil {
			return nil, err
		}
		if out[i] = u; u == nil {
			todo = append(todo, i)
		}
	}
	if len(todo) == 0 {
		return out, nil
	}
	batch := store.NewBatch()
	defer batch.Discard()
	if err := unpackMany(ctx, store, batch, lock, todo, out, tell); err != nil {
		return nil, err
	}
	return out, saveUnpacked(batch, lock, todo, out)
}

// unpackMany decodes packages on all processors, the largest first, so that the
// last to finish is a small one.
func unpackMany(ctx context.Context, store *object.Store, batch *object.Batch, lock Lock, todo []int, out []*unpacked, tell func(Progress)) error {
	order := slices.Clone(todo)
	slices.SortStableFunc(order, func(a, b int) int { return int(lock.Packages[b].Size - lock.Packages[a].Size) })
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	var settling errgroup.Group // one at a time: the disk writes while the processors decode
	settling.SetLimit(1)
	var mu sync.Mutex
	done := 0
	for _, i := range order {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := lock.Packages[i]
			u, err := unpackOne(store, batch, p)
			if err != nil {
				return err
			}
			out[i] = u
			settling.TryGo(batch.Settle)
			mu.Lock()
			defer mu.Unlock()
			done++
			tell(Progress{Step: "unpack", What: p.Name + " " + p.Version, Done: done, Total: len(todo), Bytes: p.Size})
			return nil
		})
	}
	return errors.Join(g.Wait(), settling.Wait())
}

func unpackOne(store *object.Store, batch *object.Batch, p LockedPackage) (u *unpacked, err error) {
	f, err := store.Open(p.SHA256)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unavailable, "the bytes of package %s %s are not on hand: %w", p.Name, p.Version, err).
			Mend("build with the network, so that they can be fetched")
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if u, err = unpackDeb(f, p.Name, batch); err != nil {
		return nil, err
	}
	return u, u.is(p)
}

// is says whether the file is of the package that the lock calls it.
func (u *unpacked) is(p LockedPackage) error {
	if u.Package != p.Name || u.Version != p.Version || u.Arch != p.Arch {
		return fault.New(fault.Refused, "the file of package %s %s (%s) holds %s %s (%s)", p.Name, p.Version, p.Arch, u.Package, u.Version, u.Arch).
			Mend("resolve anew with  ashlar build --update")
	}
	return nil
}

// loadUnpacked gives what a package holds if it was decoded before and all of it
// is still on hand, else nil.
func loadUnpacked(store *object.Store, p LockedPackage) (*unpacked, error) {
	d, err := store.Ref(unpackedRef, unpackedName(p.SHA256))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := store.ReadAll(d, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u := &unpacked{}
	if err := json.Unmarshal(b, u); err != nil {
		return nil, fmt.Errorf("what was unpacked of package %s cannot be read: %w", p.Name, err)
	}
	if !onHand(store, u.Entries) {
		return nil, nil
	}
	return u, nil
}

func onHand(store *object.Store, entries []image.Entry) bool {
	var files []digest.Digest
	for _, e := range entries {
		if e.Type == image.File {
			files = append(files, e.Digest)
		}
	}
	return len(store.Missing(files)) == 0
}

// saveUnpacked makes the files durable before the references that promise them.
func saveUnpacked(batch *object.Batch, lock Lock, todo []int, out []*unpacked) error {
	for _, i := range todo {
		b, err := json.Marshal(out[i])
		if err != nil {
			return err
		}
		d, err := batch.PutBytes(b)
		if err != nil {
			return err
		}
		if err := batch.SetRef(unpackedRef, unpackedName(lock.Packages[i].SHA256), d); err != nil {
			return err
		}
	}
	return batch.Commit()
}
