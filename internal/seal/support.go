package seal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Check is one thing that sealed trees need or could use of this machine.
type Check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required"`      // without it sealed trees cannot be mounted here
	Detail   string `json:"detail"`        // what was found
	Fix      string `json:"fix,omitempty"` // how to mend it, when it is not OK
}

// Support tries what sealed trees need with a small one of its own, in a mount
// namespace of its own, with its files in a temporary directory under dir: the
// directory that holds the objects, or is going to. It leaves nothing behind.
func Support(dir string) []Check {
	tmp, err := os.MkdirTemp(dir, ".ashlar-support-")
	if err != nil {
		return []Check{{Name: "objects", Required: true, Detail: err.Error(), Fix: "make the directory writable, or choose another with --dir"}}
	}
	checks := []Check{checkRoot(), checkObjects(tmp)}
	checks = append(checks, checkMounts(tmp)...)
	checks = append(checks, checkVerity(tmp))
	if err := os.RemoveAll(tmp); err != nil {
		checks = append(checks, Check{Name: "objects", Required: true, Detail: err.Error(), Fix: "remove " + tmp})
	}
	return checks
}

func checkRoot() Check {
	if os.Geteuid() != 0 {
		return Check{Name: "root", Required: true, Detail: fmt.Sprintf("running as user %d", os.Geteuid()), Fix: "run the server as root: mounting needs CAP_SYS_ADMIN"}
	}
	return Check{Name: "root", OK: true, Required: true, Detail: "running as root"}
}

const sample = "a sealed tree\n"

func checkObjects(tmp string) Check {
	c := Check{Name: "objects", Required: true, Detail: "objects are stored durably and read back", Fix: "use a local file system for the state directory"}
	s, err := object.Open(tmp)
	if err == nil {
		var d digest.Digest
		if d, err = s.PutBytes([]byte(sample)); err == nil {
			err = s.Verify(d)
		}
		err = errors.Join(err, s.Close())
	}
	return c.end(err)
}

// checkMounts tries the parts one after another, so that the first that fails
// is named.
func checkMounts(tmp string) []Check {
	erofs := Check{Name: "erofs", Required: true, Detail: "the kernel mounts EROFS from a file", Fix: "use Linux 6.12 or newer with CONFIG_EROFS_FS and CONFIG_EROFS_FS_BACKED_BY_FILE (modprobe erofs), and keep the state directory on a disk: EROFS cannot be mounted from a file on tmpfs"}
	data := Check{Name: "overlay data-only layers", Required: true, Detail: "overlayfs joins metadata and objects; the tree reads as it was sealed and cannot be written", Fix: "use Linux 6.12 or newer with CONFIG_OVERLAY_FS (modprobe overlay)"}
	seal, err := sampleSeal(tmp)
	if err != nil {
		return []Check{erofs.end(err), data.end(err)}
	}
	objects := filepath.Join(tmp, "objects")
	erofs = erofs.end(inPrivateNamespace(func() error {
		l, err := mountImage(objects, seal)
		if err != nil {
			return err
		}
		return l.Close()
	}))
	target := filepath.Join(tmp, "tree")
	data = data.end(inPrivateNamespace(func() error {
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		if err := Mount(target, objects, seal); err != nil {
			return err
		}
		return errors.Join(trySample(target), unmount(target))
	}))
	return []Check{erofs, data}
}

func sampleSeal(tmp string) (digest.Digest, error) {
	s, err := object.Open(tmp)
	if err != nil {
		return "", err
	}
	defer s.Close()
	d, err := s.PutBytes([]byte(sample))
	if err != nil {
		return "", err
	}
	e := image.Entry{Path: "file", Type: image.File, Mode: 0o751, UID: 7, Size: int64(len(sample)), Digest: d}
	return Put(s, image.Sorted([]image.Entry{e}).WithParents(0))
}

func trySample(root string) error {
	file := filepath.Join(root, "file")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	fi, err := os.Stat(file)
	if err != nil {
		return err
	}
	if string(b) != sample || fi.Mode() != 0o751 {
		return fmt.Errorf("the mounted file has mode %v and reads %q", fi.Mode(), b)
	}
	if err := os.Chmod(file, 0o777); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("the mounted tree can be written: %v", err)
	}
	return nil
}

// checkVerity tries to enable fs-verity on a file.
// https://docs.kernel.org/filesystems/fsverity.html
func checkVerity(tmp string) Check {
	c := Check{
		Name:   "fs-verity",
		Detail: "the file system could keep even root from changing an object",
		Fix:    "a kernel with CONFIG_FS_VERITY and, on ext4,  tune2fs -O verity DEVICE;  until then what is stored is verified when it is stored and by  ashlar seal verify",
	}
	path := filepath.Join(tmp, "verity")
	if err := os.WriteFile(path, []byte(sample), 0o444); err != nil {
		return c.end(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return c.end(err)
	}
	defer f.Close()
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: 4096}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return c.end(errno)
	}
	return c.end(nil)
}

// end completes a check with what came of it.
func (c Check) end(err error) Check {
	if err == nil {
		c.OK, c.Fix = true, ""
		return c
	}
	f := fault.Of(err)
	c.Detail = strings.Join(append([]string{f.What}, f.Details...), "; ")
	if f.Fix != "" {
		c.Fix = f.Fix
	}
	return c
}

// inPrivateNamespace runs f on a thread with a mount namespace of its own, which
// ends with the thread.
func inPrivateNamespace(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread stands for the process in /proc and never ends:
			// hold it, so that another goroutine gets another thread.
			done <- inPrivateNamespace(f)
			runtime.UnlockOSThread()
			return
		}
		done <- unshared(f) // and never unlock: the thread is not to be used again
	}()
	return <-done
}

func unshared(f func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return f()
}
