package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/inflate"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// inputRef is the kind of reference that keeps an input's bytes: InRelease,
// Packages and .deb files, each under the hex of its own digest.
const inputRef = "deb-input"

// maxIndex bounds one uncompressed Packages file; Debian's largest has 60 MB.
const maxIndex = 512 << 20

// Resolve reads the archives' signed indexes and finds the closure of the wanted
// packages. Every byte it read is an object afterwards. It needs the network.
func Resolve(ctx context.Context, store *object.Store, src Source, f Fetcher) (Lock, error) {
	if err := src.check(); err != nil {
		return Lock{}, err
	}
	tell := src.teller()
	lock := Lock{Arch: src.Arch, Requested: sorted(src.Packages), Excluded: sorted(src.Exclude)}
	x := newIndex(src.Arch)
	for i, a := range src.Archives {
		la, err := readArchive(ctx, store, a, src, f, func(text string) error { return x.add(text, i) })
		if err != nil {
			return Lock{}, err
		}
		date, err := time.Parse(time.RFC3339, la.Date)
		if err != nil {
			return Lock{}, fmt.Errorf("debian: own date %q: %w", la.Date, err)
		}
		lock.Epoch = max(lock.Epoch, date.Unix())
		lock.Archives = append(lock.Archives, la)
		tell(Progress{Step: "index", What: a.URL + " " + a.Suite, Done: i + 1, Total: len(src.Archives)})
	}
	if err := x.seal(); err != nil {
		return Lock{}, fault.New(fault.Refused, "the archive's index is malformed: %w", err)
	}
	nodes, err := x.close(src.Packages, src.Exclude)
	if err != nil {
		return Lock{}, err
	}
	for _, n := range nodes {
		lock.Packages = append(lock.Packages, LockedPackage{
			Name: n.name, Version: n.version, Arch: n.candidate.arch,
			SHA256: n.digest, Size: n.size, Path: n.path, Archive: n.archive,
		})
	}
	return lock, lock.Check()
}

// teller serialises the calls of Progress.
func (s Source) teller() func(Progress) {
	if s.Progress == nil {
		return func(Progress) {}
	}
	var mu sync.Mutex
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		s.Progress(p)
	}
}

// readArchive verifies one suite and hands its Packages files to add.
func readArchive(ctx context.Context, store *object.Store, a Archive, src Source, f Fetcher, add func(string) error) (LockedArchive, error) {
	data, err := getInRelease(ctx, f, a)
	if err != nil {
		return LockedArchive{}, err
	}
	rel, signer, err := readInRelease(data, a, src.Now)
	if err != nil {
		return LockedArchive{}, err
	}
	d, err := store.PutBytes(data)
	if err != nil {
		return LockedArchive{}, err
	}
	if err := store.SetRef(inputRef, d.Encoded(), d); err != nil {
		return LockedArchive{}, err
	}
	la := LockedArchive{
		URL: a.URL, Suite: a.Suite, Codename: rel.codename, Version: rel.version,
		InRelease: d, Date: rel.date.Format(time.RFC3339), Signer: signer,
	}
	for _, area := range a.Areas {
		indexes, err := rel.indexesOf(area, src.Arch)
		if err != nil {
			return LockedArchive{}, err.At(a.URL + "/dists/" + a.Suite)
		}
		for _, ix := range indexes {
			if err := readIndex(ctx, store, a, rel, ix, f, add); err != nil {
				return LockedArchive{}, err
			}
			la.Indexes = append(la.Indexes, ix)
		}
	}
	return la, nil
}

func getInRelease(ctx context.Context, f Fetcher, a Archive) (data []byte, err error) {
	url := a.URL + "/dists/" + a.Suite + "/InRelease"
	err = persist(ctx, func() error {
		body, err := f.Get(ctx, url)
		if err != nil {
			return again(err)
		}
		data, err = io.ReadAll(io.LimitReader(body, maxInRelease+1))
		if err != nil {
			return errors.Join(again(err), body.Close())
		}
		return body.Close()
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.NotFound, "the archive has no suite %s: %w", a.Suite, err).At(url).
			Mend("check the suite's name and the URL in /etc/apt/sources.list.d")
	case err != nil:
		return nil, fault.New(fault.Unavailable, "the archive cannot be reached: %w", err).At(url).
			Mend("check the network and the mirror; a build from an existing ashlar.lock needs neither")
	case len(data) > maxInRelease:
		return nil, fault.New(fault.Refused, "the InRelease file has more than %d bytes", maxInRelease).At(url)
	}
	return data, nil
}

// indexesOf finds the Packages files of an area, the best compressed one each.
func (r *releaseFile) indexesOf(area, arch string) ([]LockedIndex, *fault.Error) {
	if !safePath(area) {
		return nil, fault.New(fault.Invalid, "%q is not an archive area", area).Mend("write e.g.  components: [main]")
	}
	want := []string{arch}
	if r.allApart {
		want = append(want, "all")
	}
	var out []LockedIndex
	for _, arch := range want {
		base := area + "/binary-" + arch + "/Packages"
		for _, ext := range []string{".xz", ".gz", ""} {
			if f, ok := r.files[base+ext]; ok {
				out = append(out, LockedIndex{Path: base + ext, SHA256: f.digest, Size: f.size})
				break
			}
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.NotFound, "the suite has no packages of area %s for %s", area, arch).
			Mend("check  components:  and the machine's architecture")
	}
	return out, nil
}

// readIndex fetches one Packages file, by hash where the archive has that: the
// plain name may already be a newer file than the InRelease that was read.
func readIndex(ctx context.Context, store *object.Store, a Archive, rel *releaseFile, ix LockedIndex, f Fetcher, add func(string) error) error {
	base := a.URL + "/dists/" + a.Suite + "/"
	plain := base + ix.Path
	urls := []string{plain}
	if rel.byHash {
		urls = []string{base + path.Dir(ix.Path) + "/by-hash/SHA256/" + ix.SHA256.Encoded(), plain}
	}
	var err error
	for _, url := range urls {
		if _, err = download(ctx, store, f, url, "the index "+ix.Path, ix.SHA256, ix.Size); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return err
	}
	if err := store.SetRef(inputRef, ix.SHA256.Encoded(), ix.SHA256); err != nil {
		return err
	}
	text, err := readCompressed(store, ix.SHA256, path.Ext(ix.Path), ix.Size)
	if err == nil {
		err = add(text)
	}
	if err != nil {
		return fault.New(fault.Refused, "the signed index %s is malformed: %w", ix.Path, err).At(plain)
	}
	return nil
}

func readCompressed(store *object.Store, d digest.Digest, ext string, size int64) (string, error) {
	packed, err := store.ReadAll(d, size)
	if err != nil {
		return "", err
	}
	r, err := inflate.Reader(bytes.NewReader(packed), ext, maxIndex)
	if err != nil {
		return "", err
	}
	defer r.Close() //nolint:errcheck // nothing is written
	var b strings.Builder
	b.Grow(min(6*len(packed), maxIndex))
	_, err = io.Copy(&b, r)
	return b.String(), err
}
