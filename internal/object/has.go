package object

import (
	"runtime"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Has says whether an object is stored. It does not read it.
func (s *Store) Has(d digest.Digest) bool {
	var st unix.Stat_t
	return s.lstat(d, &st)
}

// lookFor is how many objects are looked for by one goroutine.
const lookFor = 256

// Missing gives those of all that are not stored, in their order. It reads none.
func (s *Store) Missing(all []digest.Digest) []digest.Digest {
	parts := slices.Collect(slices.Chunk(all, lookFor))
	missing := make([][]digest.Digest, len(parts))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, part := range parts {
		g.Go(func() error {
			for _, d := range part {
				if !s.Has(d) {
					missing[i] = append(missing[i], d)
				}
			}
			return nil
		})
	}
	_ = g.Wait() // nothing in it fails
	return slices.Concat(missing...)
}

// stored says whether an object of that size (negative: any) is there, and
// whether it came so recently that its directory entry may not be durable yet:
// somebody else may be between their rename and their sync. Kernels write
// directory entries back within half a minute.
func (s *Store) stored(d digest.Digest, size int64) (stored, fresh bool) {
	var st unix.Stat_t
	if !s.lstat(d, &st) {
		return false, false
	}
	if size >= 0 && st.Size != size { // damaged: store it anew
		return false, false
	}
	return true, time.Since(time.Unix(st.Ctim.Unix())) < time.Minute
}

// lstat gives the metadata of an object; false when there is no such file.
func (s *Store) lstat(d digest.Digest, st *unix.Stat_t) bool {
	rel, err := Rel(d)
	if err != nil {
		return false
	}
	err = unix.Fstatat(int(s.root.Fd()), rel, st, unix.AT_SYMLINK_NOFOLLOW)
	runtime.KeepAlive(s)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}
