package debian

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/object"
)

// parallel is how many .debs are fetched at the same time.
const parallel = 4

// Fetch brings the lock's .debs into the store, each verified by digest while it
// is written. What is there is not fetched: with everything on hand, f is not
// called at all.
func Fetch(ctx context.Context, store *object.Store, lock Lock, f Fetcher, progress func(Progress)) error {
	if err := lock.Check(); err != nil {
		return err
	}
	var missing []LockedPackage
	for _, p := range lock.Packages {
		if !store.Has(p.SHA256) {
			missing = append(missing, p)
		}
	}
	var mu sync.Mutex
	count := 0
	tell := func(what string, bytes int64) {
		mu.Lock()
		defer mu.Unlock()
		count++
		if progress != nil {
			progress(Progress{Step: "fetch", What: what, Done: count, Total: len(missing), Bytes: bytes})
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, p := range missing {
		g.Go(func() error {
			url := lock.Archives[p.Archive].URL + "/" + p.Path
			n, err := download(ctx, store, f, url, "package "+p.Name+" "+p.Version, p.SHA256, p.Size)
			if err != nil {
				return err
			}
			if err := store.SetRef(inputRef, p.SHA256.Encoded(), p.SHA256); err != nil {
				return err
			}
			tell(p.Name+" "+p.Version, n)
			return nil
		})
	}
	return g.Wait()
}
