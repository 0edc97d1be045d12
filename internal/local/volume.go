package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// A volume is a directory of its own, VolumeDir/<app>/<env>/<name>/:
//
//	data        what instances see
//	lock        locked by the shims of its holders, see shim.Volume
//	holder      who had an exclusive one last, JSON
//	snapshots/  one directory for each, named by the time and the holder before
const (
	volumeData      = "data"
	volumeLock      = "lock"
	volumeHolder    = "holder"
	volumeSnapshots = "snapshots"
)

// keptSnapshots is how many of a volume are kept, the youngest.
const keptSnapshots = 3

// holder is what the file of that name says.
type holder struct {
	Instance string `json:"instance"`
	Cgroup   string `json:"cgroup"`
}

func (p *Platform) volumeDir(k rollout.Key, name string) string {
	return filepath.Join(p.cfg.VolumeDir, k.App, k.Env, name)
}

// volumes makes the instance's volumes ready to be mounted, and gives the locks that
// its shim has to hold. A hand-over is noted, after a snapshot where one is declared.
func (p *Platform) volumes(ctx context.Context, m meta) ([]shim.Volume, error) {
	var out []shim.Volume
	for _, mount := range m.Spec.Volumes {
		dir := p.volumeDir(m.Key, mount.Volume)
		if err := makeVolume(dir, m.Spec); err != nil {
			return nil, fault.New(fault.Unavailable, "make volume %s: %w", mount.Volume, err).At(dir)
		}
		if mount.Mode == release.VolumeExclusive {
			if err := p.handOver(ctx, m, mount, dir); err != nil {
				return nil, err
			}
		}
		out = append(out, shim.Volume{
			Name: mount.Volume, Lock: filepath.Join(dir, volumeLock), Shared: mount.Mode != release.VolumeExclusive,
		})
	}
	return out, nil
}

// makeVolume makes what of a volume is not there. A new one belongs to the user that
// has it first; one that is there is left as it is.
func makeVolume(dir string, s release.Spec) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	data := filepath.Join(dir, volumeData)
	if exists(data) {
		return nil
	}
	made := data + ".new" // renamed when it is whole
	err := os.MkdirAll(made, 0o700)
	if err = errors.Join(err, os.Chown(made, s.UID, s.GID), touch(filepath.Join(dir, volumeLock))); err != nil {
		return err
	}
	return os.Rename(made, data)
}

// handOver lets nobody have an exclusive volume before the last holder has ended
// whole: its lock is free and its control group has no process.
func (p *Platform) handOver(ctx context.Context, m meta, mount release.Mount, dir string) error {
	before, err := readHolder(dir)
	if err != nil {
		return fault.New(fault.Internal, "read who had volume %s last: %w", mount.Volume, err).At(dir)
	}
	lock, err := os.OpenFile(filepath.Join(dir, volumeLock), os.O_RDWR, 0)
	if err != nil {
		return fault.New(fault.Unavailable, "lock volume %s: %w", mount.Volume, err).At(dir)
	}
	defer lock.Close() //nolint:errcheck // closing unlocks; the shim locks it anew
	held := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
	if held || before.Cgroup != "" && busy(before.Cgroup) {
		return fault.New(fault.Conflict, "volume %s is held by %s", mount.Volume, cmp.Or(before.Instance, "another instance")).At(dir).
			Mend("an exclusive volume has one holder at a time: wait until that one has ended, or see  ashlar status")
	}
	now := holder{Instance: m.Instance.ID, Cgroup: p.cgroup(m.Instance.ID)}
	if before.Instance != "" && before != now && mount.Snapshot {
		p.snapshotBefore(ctx, mount.Volume, dir, before)
	}
	if err := shim.WriteDurableJSON(filepath.Join(dir, volumeHolder), now); err != nil {
		return fault.New(fault.Unavailable, "note who has volume %s: %w", mount.Volume, err).At(dir)
	}
	p.cfg.Log.Info("volume handed over", "volume", mount.Volume, "env", m.Key.String(), "instance", m.Instance.ID, "before", before.Instance)
	return nil
}

func readHolder(dir string) (h holder, err error) {
	b, err := os.ReadFile(filepath.Join(dir, volumeHolder))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	return h, err
}

// busy says whether a control group has a process in any hierarchy.
func busy(cgroup string) bool {
	dirs, err := cgroupDirs(strings.TrimPrefix(cgroup, "/"))
	if err != nil {
		return true // a pattern of our own: it cannot be wrong
	}
	return slices.ContainsFunc(dirs, func(dir string) bool {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		return err == nil && len(strings.TrimSpace(string(b))) > 0
	})
}

// snapshotBefore takes a snapshot before a hand-over. That there is none where the
// file system offers none, or no room, keeps nobody from the volume: it is said.
func (p *Platform) snapshotBefore(ctx context.Context, volume, dir string, before holder) {
	name := p.cfg.Now().UTC().Format("20060102T150405Z") + "-" + before.Instance
	to := filepath.Join(dir, volumeSnapshots, name)
	if err := snapshot(ctx, filepath.Join(dir, volumeData), to); err != nil {
		p.cfg.Log.Warn("no snapshot before the hand-over", "volume", volume, "err", err)
		return
	}
	p.cfg.Log.Info("snapshot taken before the hand-over", "volume", volume, "path", to)
	if err := pruneSnapshots(filepath.Dir(to)); err != nil {
		p.cfg.Log.Warn("cannot remove old snapshots", "volume", volume, "err", err)
	}
}

func pruneSnapshots(dir string) error {
	entries, err := os.ReadDir(dir) // sorted: the oldest first
	for _, e := range entries[:max(0, len(entries)-keptSnapshots)] {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// volumeMounts bind the instance's volumes, from which nothing can be executed.
func (p *Platform) volumeMounts(m meta) []specs.Mount {
	var out []specs.Mount
	for _, v := range m.Spec.Volumes {
		options := []string{"bind", "nosuid", "nodev", "noexec"}
		if v.ReadOnly {
			options = append(options, "ro")
		}
		out = append(out, specs.Mount{
			Destination: v.Path, Type: "bind", Source: filepath.Join(p.volumeDir(m.Key, v.Volume), volumeData), Options: options,
		})
	}
	return out
}

// snapshot copies a directory by reflink: the copy shares its blocks with the
// original until either changes (FICLONE, ioctl_ficlone(2)). It is under its name
// only when it is whole.
func snapshot(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	part := filepath.Join(filepath.Dir(to), ".new")
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return clone(path, filepath.Join(part, name), d)
	})
	if err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		err = errors.Join(err, os.RemoveAll(part))
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EXDEV) {
		return fault.New(fault.Unavailable, "the file system has no reflinks").At(from).Mend("put the state directory on XFS or Btrfs, or take snapshot away from the volume")
	}
	return err
}

// clone copies one entry; what is neither file, directory nor link is left out.
func clone(from, to string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	switch {
	case d.IsDir():
		err = os.Mkdir(to, 0o700)
	case d.Type() == fs.ModeSymlink:
		var link string
		if link, err = os.Readlink(from); err == nil {
			err = os.Symlink(link, to)
		}
	case d.Type().IsRegular():
		err = reflink(from, to)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	err = os.Lchown(to, int(st.Uid), int(st.Gid))
	if d.Type() == fs.ModeSymlink {
		return err
	}
	return errors.Join(err, os.Chmod(to, info.Mode().Perm()), os.Chtimes(to, time.Time{}, info.ModTime()))
}

func reflink(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.IoctlFileClone(int(out.Fd()), int(in.Fd())), out.Close())
}
