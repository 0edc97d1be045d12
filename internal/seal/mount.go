package seal

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Mount mounts sealed trees over each other, the topmost first, at the directory
// target. objects is [object.Store.Path]. The bytes of every metadata image are
// checked against its seal first; the objects are not (see [Verify]).
//
// Nothing but the overlay at target shows in the mount table, its source naming
// the seals: the images are mounted detached and handed to overlayfs as file
// descriptors, so no character of a path can be mistaken for a separator, and one
// unmount takes all away. Kernels before 6.15 want them attached; then they are,
// at target, for the moment that it takes.
//
// It needs CAP_SYS_ADMIN and Linux 6.12. After an error nothing is mounted.
func Mount(target, objects string, seals ...digest.Digest) error {
	err := mount(target, objects, seals, detached)
	if errors.Is(err, unix.EINVAL) {
		if mount(target, objects, seals, attached) == nil {
			return nil
		}
	}
	if err != nil {
		return mountFault(target, err)
	}
	return nil
}

// unmount takes away what Mount mounted at target. What is not mounted, or does
// not exist, is not an error.
func unmount(target string) error {
	for {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil: // look again: a Mount that was killed may have left more
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EBUSY):
			return fault.New(fault.Conflict, "the sealed tree is in use: %w", err).At(target).
				Mend("end the processes whose root or working directory is in it")
		default:
			return mountFault(target, &os.PathError{Op: "unmount", Path: target, Err: err})
		}
	}
}

// way is how the images are given to overlayfs.
type way int

const (
	detached way = iota // as file descriptors of mounts that are nowhere (Linux 6.15)
	attached            // as paths of mounts at target, until the overlay has them
)

func mount(target, objects string, seals []digest.Digest, how way) (err error) {
	if len(seals) == 0 {
		return errors.New("there is no sealed tree to mount")
	}
	layers, err := mountImages(target, objects, seals, how)
	var merged *os.File
	if err == nil {
		merged, err = overlay(objects, seals, layers, how)
	}
	// From here the overlay has references of its own to what it needs.
	for _, l := range layers {
		err = errors.Join(err, l.Close())
		if how == attached {
			err = errors.Join(err, unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		}
	}
	if merged == nil {
		return err
	}
	if err == nil {
		err = moveTo(merged, target)
	}
	return errors.Join(err, merged.Close())
}

// mountImages mounts the metadata images. What it returns is mounted also when
// it returns an error.
func mountImages(target, objects string, seals []digest.Digest, how way) ([]*os.File, error) {
	var layers []*os.File
	for _, seal := range seals {
		l, err := mountImage(objects, seal)
		if err != nil {
			return layers, err
		}
		if how == attached {
			if err := moveTo(l, target); err != nil {
				return layers, errors.Join(err, l.Close())
			}
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// mountImage mounts one metadata image from its file, without a loop device.
func mountImage(objects string, seal digest.Digest) (*os.File, error) {
	image, err := openImage(objects, seal)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	c, err := newContext("erofs")
	if err != nil {
		return nil, err
	}
	defer c.close()
	c.set("source", fdPath(image)) // a value has at most 255 bytes, a path may have more
	return c.mount()
}

// openImage opens a metadata image and checks it against its seal.
func openImage(objects string, seal digest.Digest) (*os.File, error) {
	rel, err := object.Rel(seal)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(objects, rel))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "the sealed tree %s is not stored: %w", seal, err)
	}
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if got := digest.NewDigest(digest.SHA256, h); got != seal {
		err := fault.New(fault.Refused, "the sealed tree %s is damaged: its bytes are those of %s", seal, got).At(f.Name()).
			Mend("remove the file and run  ashlar build  again, which stores it anew")
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// overlay puts the layers, the topmost first, over the objects.
func overlay(objects string, seals []digest.Digest, layers []*os.File, how way) (*os.File, error) {
	data, err := os.OpenFile(objects, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer data.Close()
	c, err := newContext("overlay")
	if err != nil {
		return nil, err
	}
	defer c.close()
	give := c.setFile
	if how == attached { // which kernels need that do not take descriptors
		give = func(key string, f *os.File) { c.set(key, fdPath(f)) }
	}
	c.set("source", source(seals))
	c.flag("ro")
	c.set("metacopy", "on")
	c.set("redirect_dir", "on")
	for _, l := range layers {
		give("lowerdir+", l)
	}
	give("datadir+", data)
	return c.mount()
}

// source is what the mount table says of an overlay: its seals.
func source(seals []digest.Digest) string {
	length := 64
	if len(seals) > 3 {
		length = 12 // the kernel takes 255 bytes in all
	}
	var names []string
	for _, s := range seals[:min(len(seals), 16)] {
		names = append(names, s.Encoded()[:length])
	}
	return "ashlar:" + strings.Join(names, "+")
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// moveTo attaches a detached mount.
func moveTo(mounted *os.File, target string) error {
	err := unix.MoveMount(int(mounted.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return &os.PathError{Op: "mount", Path: target, Err: err}
	}
	return nil
}
