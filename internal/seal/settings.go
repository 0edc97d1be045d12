package seal

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// mountPoints are the directories that a container runtime mounts over.
var mountPoints = []string{"proc", "sys", "dev"}

// boundFiles are the files that a container runtime binds over. They are empty,
// so they need no object.
var boundFiles = []string{"etc/hosts", "etc/resolv.conf", "etc/hostname"}

// SettingsTree makes the settings layer that goes over an artifact's tree: the
// spec's config files, and every place that must exist to be mounted over: a
// directory for each tmpfs and volume, an empty file for each secret.
// Paths are led through base's symbolic links as the running program will see
// them, so a file for /run/x lands in var/run/x if run is a link to it. A config
// file replaces what base has at its path, unless that is a directory.
//
// Directories that base has keep base's metadata. New ones have mode 0755 and
// belong to root; everything new has the modification time of base's root.
func SettingsTree(base image.Tree, spec release.Spec) (image.Tree, error) {
	if err := base.Validate(); err != nil {
		return image.Tree{}, err
	}
	l := layer{base: base, mtime: base.Entries[0].MTime, entries: map[string]image.Entry{".": base.Entries[0]}}
	for _, p := range directories(spec) {
		if err := l.mountPoint(p); err != nil {
			return image.Tree{}, err
		}
	}
	for _, f := range spec.Files {
		if err := l.file(f); err != nil {
			return image.Tree{}, err
		}
	}
	for _, s := range spec.Secrets {
		if err := l.secret(s.Path); err != nil {
			return image.Tree{}, err
		}
	}
	for _, p := range boundFiles {
		if err := l.boundFile(p); err != nil {
			return image.Tree{}, err
		}
	}
	return l.tree()
}

// directories are those that something is mounted over.
func directories(spec release.Spec) []string {
	out := slices.Clone(mountPoints)
	for _, t := range spec.Tmpfs {
		out = append(out, t.Path)
	}
	for _, v := range spec.Volumes {
		out = append(out, v.Path)
	}
	return out
}

type layer struct {
	base    image.Tree
	mtime   int64
	entries map[string]image.Entry
	mounted []string // paths that a mount will hide
}

func (l *layer) mountPoint(p string) error {
	at, e, err := l.leadsTo(p)
	if err != nil {
		return err
	}
	if at == "." {
		return fault.New(fault.Invalid, "nothing can be mounted over the root directory").At(p)
	}
	if e.Type == "" {
		e = image.Entry{Path: at, Type: image.Dir, Mode: 0o755, MTime: l.mtime}
	}
	if e.Type != image.Dir {
		return fault.New(fault.Invalid, "%q cannot be mounted over: the artifact has a %s there", at, e.Type).At(p).
			Mend("choose another path, or leave it out of the artifact")
	}
	l.mounted = append(l.mounted, at)
	return l.add(e)
}

func (l *layer) file(f release.ConfigFile) error {
	at, err := l.base.Place(f.Path)
	if err != nil {
		return fault.Of(err).At(f.Path)
	}
	if e, ok := l.base.Lookup(at); at == "." || ok && e.Type == image.Dir {
		return fault.New(fault.Invalid, "a config file cannot take the place of the directory %q", at).At(f.Path).
			Mend("name a file in it")
	}
	if _, ok := l.entries[at]; ok {
		return fault.New(fault.Invalid, "two settings have the path %q in the artifact", at).At(f.Path).
			Mend("remove one of them; the artifact's symbolic links may make different paths one")
	}
	for _, m := range l.mounted {
		if strings.HasPrefix(at, m+"/") {
			return fault.New(fault.Invalid, "the config file would be hidden by what is mounted over %q", "/"+m).At(f.Path).
				Mend("move the file, or remove the mount")
		}
	}
	return l.add(image.Entry{
		Path: at, Type: image.File, Mode: f.Mode, UID: f.UID, GID: f.GID, MTime: l.mtime, Size: f.Size, Digest: f.Digest,
	})
}

// secret makes the file that a secret is bound over. The artifact may have one: nobody
// sees it.
func (l *layer) secret(p string) error {
	at, e, err := l.leadsTo(p)
	if err != nil {
		return err
	}
	if at == "." || e.Type != "" && e.Type != image.File {
		return fault.New(fault.Invalid, "a secret cannot take the place of the %s %q", cmp.Or(string(e.Type), "directory"), at).At(p).
			Mend("choose another path")
	}
	if _, ok := l.entries[at]; ok {
		return fault.New(fault.Invalid, "two settings have the path %q in the artifact", at).At(p).
			Mend("remove one of them; the artifact's symbolic links may make different paths one")
	}
	for _, m := range l.mounted {
		if strings.HasPrefix(at, m+"/") {
			return nil // made in what is mounted there
		}
	}
	return l.add(image.Entry{Path: at, Type: image.File, Mode: 0o400, MTime: l.mtime, Digest: digest.FromBytes(nil)})
}

func (l *layer) boundFile(p string) error {
	at, e, err := l.leadsTo(p)
	if err != nil || e.Type == image.File {
		return err
	}
	if _, ok := l.entries[at]; ok || e.Type != "" {
		return nil // a config file, or something that is as it is for a reason
	}
	for _, m := range l.mounted {
		if strings.HasPrefix(at, m+"/") { // a link into something mounted later: nothing to prepare
			return nil
		}
	}
	return l.add(image.Entry{Path: at, Type: image.File, Mode: 0o644, MTime: l.mtime, Digest: digest.FromBytes(nil)})
}

// leadsTo follows p through base's links to where it ends, and gives what base
// has there: the zero Entry for nothing.
func (l *layer) leadsTo(p string) (string, image.Entry, error) {
	at, _, err := l.base.Follow(p)
	if err != nil {
		return "", image.Entry{}, fault.Of(err).At(p)
	}
	e, _ := l.base.Lookup(at)
	return at, e, nil
}

// add adds an entry and the parents it needs.
func (l *layer) add(e image.Entry) error {
	for p := path.Dir(e.Path); ; p = path.Dir(p) {
		if have, ok := l.entries[p]; ok {
			if have.Type != image.Dir {
				return fault.New(fault.Invalid, "%q needs %q to be a directory, but a setting makes it a file", e.Path, p)
			}
			break
		}
		parent, ok := l.base.Lookup(p)
		if !ok {
			parent = image.Entry{Path: p, Type: image.Dir, Mode: 0o755, MTime: l.mtime}
		}
		l.entries[p] = parent
	}
	l.entries[e.Path] = e
	return nil
}

func (l *layer) tree() (image.Tree, error) {
	entries := make([]image.Entry, 0, len(l.entries))
	for _, e := range l.entries {
		entries = append(entries, e)
	}
	t := image.Sorted(entries)
	if err := t.Validate(); err != nil {
		return image.Tree{}, fmt.Errorf("settings layer: %w", err)
	}
	return t, nil
}
