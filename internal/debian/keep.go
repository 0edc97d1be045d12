package debian

import (
	"errors"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/object"
)

// keepInUse notes that a lock's inputs and what was made of them are of use now,
// so that a collection of garbage takes those that no build has used for long.
func keepInUse(store *object.Store, lock Lock, key string) error {
	touch := func(kind, name string) error {
		if err := store.TouchRef(kind, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	errs := []error{touch(closureRef, key), touch(chapterRef, key)}
	for _, p := range lock.Packages {
		errs = append(errs, touch(unpackedRef, unpackedName(p.SHA256)))
	}
	for _, d := range lock.Inputs() {
		errs = append(errs, keepInput(store, d))
	}
	return errors.Join(errs...)
}

// keepInput touches the reference of an input, or sets it for bytes that came
// into the store by another way than fetching. Bytes that are not there are no
// error: a lock from Git names an InRelease that this machine never needed.
func keepInput(store *object.Store, d digest.Digest) error {
	err := store.TouchRef(inputRef, d.Encoded())
	if errors.Is(err, fs.ErrNotExist) {
		if !store.Has(d) {
			return nil
		}
		return store.SetRef(inputRef, d.Encoded(), d)
	}
	return err
}
