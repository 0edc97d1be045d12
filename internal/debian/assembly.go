package debian

import (
	"bytes"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// assembly is a tree under way: the merged packages and what rules add.
type assembly struct {
	lock     Lock
	store    *object.Store
	batch    *object.Batch
	pkgs     []*unpacked
	entries  map[string]placed
	accounts *accounts
	choices  []choice
	rule     string // that is being applied
}

// choice is an alternative and the rule that declares it.
type choice struct {
	Alternative
	rule string
}

// maxRead bounds a file that a rule reads.
const maxRead = 16 << 20

func (a *assembly) has(p string) bool { _, ok := a.entries[p]; return ok }

// present says whether an absolute path of a script leads to something.
func (a *assembly) present(abs string) bool { return a.has(usrPath(image.CleanPath(abs))) }

func (a *assembly) read(p string) ([]byte, error) {
	e, ok := a.entries[p]
	if !ok || e.Type != image.File {
		return nil, fault.New(fault.Invalid, "the file /%s is not in the tree", p)
	}
	return a.store.ReadAll(e.Digest, maxRead)
}

func (a *assembly) ids(owner, group string) (uid, gid int, err error) {
	if owner == "" {
		owner = "root"
	}
	if group == "" {
		group = "root"
	}
	uid, ok := a.accounts.uid(owner)
	gid, ok2 := a.accounts.gid(group)
	if !ok || !ok2 {
		return 0, 0, fault.New(fault.Invalid, "there is no user %s or no group %s", owner, group)
	}
	return uid, gid, nil
}

// put adds an entry and the parents that it lacks.
func (a *assembly) put(e image.Entry) {
	e.MTime = a.lock.Epoch
	a.entries[e.Path] = placed{Entry: e, rule: a.rule}
	for up := path.Dir(e.Path); up != "." && !a.has(up); up = path.Dir(up) {
		parent := image.Entry{Path: up, Type: image.Dir, Mode: 0o755, MTime: a.lock.Epoch}
		a.entries[up] = placed{Entry: parent, rule: ledger.Parents.Name}
	}
}

func (a *assembly) dir(d Dir) error {
	if a.has(d.Path) {
		return nil
	}
	uid, gid, err := a.ids(d.Owner, d.Group)
	if err == nil {
		a.put(image.Entry{Path: d.Path, Type: image.Dir, Mode: d.Mode, UID: uid, GID: gid})
	}
	return err
}

func (a *assembly) link(l Link) {
	if !a.has(l.Path) && (l.If == "" || a.has(l.If)) {
		a.put(image.Entry{Path: l.Path, Type: image.Symlink, Mode: 0o777, Link: l.To})
	}
}

func (a *assembly) file(f File) error {
	if a.has(f.Path) {
		return nil
	}
	uid, gid, err := a.ids(f.Owner, f.Group)
	if err != nil {
		return err
	}
	e := image.Entry{Path: f.Path, Type: image.File, Mode: f.Mode, UID: uid, GID: gid}
	if f.Copy != "" {
		from, ok := a.entries[f.Copy]
		if !ok || from.Type != image.File {
			return fault.New(fault.Invalid, "the file /%s is not in the tree", f.Copy)
		}
		e.Digest, e.Size = from.Digest, from.Size
	} else if e.Digest, e.Size, err = a.batch.Put(strings.NewReader(f.Text), int64(len(f.Text))); err != nil {
		return err
	}
	a.put(e)
	return nil
}

func (a *assembly) own(o Owner) error {
	e, ok := a.entries[o.Path]
	if !ok {
		return nil
	}
	var err error
	before := e.Entry
	if e.UID, e.GID, err = a.ids(o.Owner, o.Group); err == nil {
		e.Mode = o.Mode
		if e.UID != before.UID || e.GID != before.GID || e.Mode != before.Mode {
			e.amended = append(e.amended, a.rule)
		}
		a.entries[o.Path] = e
	}
	return err
}

// apply does what a rule says, its accounts excepted: they come before all.
func (a *assembly) apply(r Rule) error {
	for _, d := range r.Dirs {
		if err := a.dir(d); err != nil {
			return err
		}
	}
	for _, f := range r.Files {
		if err := a.file(f); err != nil {
			return err
		}
	}
	for _, l := range r.Links {
		a.link(l)
	}
	for _, o := range r.Owners {
		if err := a.own(o); err != nil {
			return err
		}
	}
	for _, c := range r.Alternatives {
		a.choices = append(a.choices, choice{c, a.rule})
	}
	for _, name := range r.Tmpfiles {
		if err := a.tmpfiles(name); err != nil {
			return err
		}
	}
	return a.derive(r.Make)
}

// derive makes what depends on the tree's content.
func (a *assembly) derive(what string) error {
	switch what {
	case "":
		return nil
	case "os-release":
		return a.osRelease()
	case "shells":
		return a.shells()
	case "ca-certificates":
		return a.certificates()
	default:
		return fmt.Errorf("debian: no derivation is called %q", what)
	}
}

func (a *assembly) osRelease() error {
	first := a.lock.Archives[0]
	number, _, _ := strings.Cut(first.Version, ".")
	text := fmt.Sprintf("PRETTY_NAME=\"Debian GNU/Linux %s (%s)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"%s\"\n"+
		"VERSION=\"%s (%s)\"\nVERSION_CODENAME=%s\nID=debian\n", number, first.Codename, number, number, first.Codename, first.Codename)
	if err := a.file(File{Path: "usr/lib/os-release", Mode: 0o644, Text: text}); err != nil {
		return err
	}
	a.link(Link{Path: "etc/os-release", To: "../usr/lib/os-release"})
	return nil
}

// shells lists the login shells: the default ones and those that packages
// announce, when they are there.
func (a *assembly) shells() error {
	text, err := a.read("usr/share/debianutils/shells")
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, l := range strings.Split(string(text), "\n") {
		seen[l] = true
	}
	for _, p := range sortedPaths(a.entries) {
		if !strings.HasPrefix(p, "usr/share/debianutils/shells.d/") || a.entries[p].Type != image.File {
			continue
		}
		more, err := a.read(p)
		if err != nil {
			return err
		}
		for _, l := range strings.Split(string(more), "\n") {
			for _, l := range []string{l, "/usr" + l} { // update-shells(8) adds the merged name too
				if strings.HasPrefix(l, "/") && !seen[l] && a.present(l) {
					seen[l] = true
					text = append(text, l+"\n"...)
				}
			}
		}
	}
	return a.file(File{Path: "etc/shells", Mode: 0o644, Text: string(text)})
}

// finish writes the account files over those that are there and gives the tree.
func (a *assembly) finish() (image.Tree, error) {
	a.rule = ruleAccounts
	for p, f := range a.accounts.files(a.lock.Epoch) {
		delete(a.entries, p)
		f.Path = p
		if err := a.file(f); err != nil {
			return image.Tree{}, err
		}
	}
	entries := make([]image.Entry, 0, len(a.entries)+1)
	for p, e := range a.entries {
		if e.MTime > a.lock.Epoch {
			e.MTime = a.lock.Epoch
			e.amended = append(e.amended, ruleTimes)
			a.entries[p] = e
		}
		entries = append(entries, e.Entry)
	}
	t := image.Sorted(entries).WithParents(a.lock.Epoch)
	return t, t.Validate()
}

// putBytes adds an object of the batch.
func (a *assembly) putBytes(b []byte) (digest.Digest, error) {
	d, _, err := a.batch.Put(bytes.NewReader(b), int64(len(b)))
	return d, err
}
