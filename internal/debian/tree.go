package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// closureRef is the kind of reference to the finished tree of a lock.
const closureRef = "closure"

// chapterRef is the kind of reference to the ledger's chapter of that tree.
const chapterRef = "chapter"

// treeFormat is raised when the same packages and rules would give another tree.
const treeFormat = 1

// Made is a tree and its explanation.
type Made struct {
	Tree    image.Tree
	Chapter digest.Digest // of the object that holds the ledger.Chapter of Tree
}

// Tree is the file tree of a lock's packages with the rules applied. Its .debs
// must be on hand, see [Fetch]. It is a pure function of the lock, src.Waive and
// [Rules]: time, place, user and order do not matter. What was made before is
// taken from the store. Of src it reads Waive and Progress alone.
func Tree(ctx context.Context, store *object.Store, lock Lock, src Source) (Made, error) {
	if err := lock.Check(); err != nil {
		return Made{}, err
	}
	key := treeKey(lock, src.Waive)
	m, ok, err := loadTree(store, key)
	if err == nil && !ok {
		m, err = makeTree(ctx, store, lock, src, key)
	}
	if err != nil {
		return Made{}, err
	}
	return m, keepInUse(store, lock, key)
}

// makeTree makes the tree of what the packages hold, and keeps it.
func makeTree(ctx context.Context, store *object.Store, lock Lock, src Source, key string) (Made, error) {
	pkgs, err := unpackAll(ctx, store, lock, src.teller())
	if err != nil {
		return Made{}, err
	}
	effects, err := checkScripts(pkgs, src.Waive)
	if err != nil {
		return Made{}, err
	}
	entries, err := merge(pkgs)
	if err != nil {
		return Made{}, err
	}
	a := &assembly{lock: lock, store: store, batch: store.NewBatch(), pkgs: pkgs, entries: entries}
	defer a.batch.Discard()
	if err := a.rules(effects, src.Waive); err != nil {
		return Made{}, err
	}
	t, err := a.finish()
	if err != nil {
		return Made{}, err
	}
	c, err := a.chapter(t)
	if err != nil {
		return Made{}, err
	}
	return saveTree(a, t, c, key)
}

// treeKey names everything that a tree depends on.
func treeKey(lock Lock, waive map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\ntree %d deb %d\n", lock.Digest(), treeFormat, debFormat)
	for _, r := range Rules() {
		b.WriteString(r.Name + "\n")
	}
	for _, name := range waived(waive) {
		b.WriteString("waive " + name + "\n")
	}
	return digest.FromString(b.String()).Encoded()
}

func waived(waive map[string]string) []string {
	names := make([]string, 0, len(waive))
	for n := range waive {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func loadTree(store *object.Store, key string) (Made, bool, error) {
	d, err := store.Ref(closureRef, key)
	var b []byte
	if err == nil {
		b, err = store.ReadAll(d, image.TreeLimit)
	}
	var m Made
	if err == nil {
		m.Chapter, err = store.Ref(chapterRef, key)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Made{}, false, nil
	}
	if err != nil {
		return Made{}, false, err
	}
	if m.Tree, err = image.UnmarshalTree(b); err != nil {
		return Made{}, false, err
	}
	return m, store.Has(m.Chapter) && onHand(store, m.Tree.Entries), nil
}

func saveTree(a *assembly, t image.Tree, c ledger.Chapter, key string) (Made, error) {
	text, err := c.Canonical()
	if err != nil {
		return Made{}, err
	}
	m := Made{Tree: t}
	if m.Chapter, err = a.putBytes(text); err != nil {
		return Made{}, err
	}
	d, err := a.putBytes(t.Marshal())
	if err != nil {
		return Made{}, err
	}
	if err := errors.Join(a.batch.SetRef(closureRef, key, d), a.batch.SetRef(chapterRef, key, m.Chapter)); err != nil {
		return Made{}, err
	}
	return m, a.batch.Commit()
}

// checkScripts finds what every package's scripts would do. All packages that
// have neither rule nor waiver are reported at once.
func checkScripts(pkgs []*unpacked, waive map[string]string) (map[string]effect, error) {
	ruled := map[string]bool{}
	for _, r := range Rules() {
		for _, p := range r.Packages {
			ruled[p] = true
		}
	}
	have := map[string]bool{}
	effects := map[string]effect{}
	var faults fault.List
	for _, u := range pkgs {
		have[u.Package] = true
		if _, ok := waive[u.Package]; ok || ruled[u.Package] {
			continue
		}
		e, f := u.effect()
		if f != nil {
			faults = append(faults, f)
		}
		effects[u.Package] = e
	}
	for _, name := range waived(waive) {
		if !have[name] {
			faults = append(faults, fault.New(fault.Invalid, "the waived package %s is not among those installed", name).
				Mend("take it out of  waive:"))
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return effects, nil
}

func (u *unpacked) effect() (effect, *fault.Error) {
	var all effect
	for _, name := range []string{"preinst", "postinst"} {
		e, line := recognise(u.Scripts[name])
		if line != "" {
			return effect{}, fault.New(fault.Refused, "package %s %s has a %s script that no rule stands for", u.Package, u.Version, name).
				Detail("first line that is not known: "+clip(line)).
				Mend("read the script; if the program runs without it, write  waive: {%s: \"the reason\"}", u.Package)
		}
		all.alternatives = append(all.alternatives, e.alternatives...)
		all.links = append(all.links, e.links...)
		all.tmpfiles = append(all.tmpfiles, e.tmpfiles...)
		all.sysusers = append(all.sysusers, e.sysusers...)
	}
	return all, nil
}

// rules applies what every tree gets, what the scripts' known blocks declare and
// the packages' rules: accounts before all else, alternatives after.
func (a *assembly) rules(effects map[string]effect, waive map[string]string) error {
	if err := a.startAccounts(); err != nil {
		return err
	}
	chosen := a.chosenRules(waive)
	for _, r := range chosen {
		if err := a.addAccounts(r); err != nil {
			return ruleFault(r.Name, err)
		}
	}
	for _, u := range a.pkgs {
		for _, name := range effects[u.Package].sysusers {
			if err := a.sysusers(name); err != nil {
				return ruleFault("package "+u.Package, err)
			}
		}
	}
	for _, r := range chosen {
		a.rule = r.Name
		if err := a.apply(r); err != nil {
			return ruleFault("rule "+r.Name, err)
		}
	}
	a.rule = ruleDebhelper
	for _, u := range a.pkgs {
		e := effects[u.Package]
		if err := a.apply(Rule{Links: e.links, Alternatives: e.alternatives, Tmpfiles: e.tmpfiles}); err != nil {
			return ruleFault("package "+u.Package, err)
		}
	}
	a.alternatives()
	return nil
}

func ruleFault(who string, err error) error { return fmt.Errorf("%s: %w", who, err) }

// chosenRules are those for every tree and for the packages that are not waived.
func (a *assembly) chosenRules(waive map[string]string) []Rule {
	have := map[string]bool{}
	for _, u := range a.pkgs {
		_, waived := waive[u.Package]
		have[u.Package] = !waived
	}
	return slices.DeleteFunc(Rules(), func(r Rule) bool {
		return len(r.Packages) > 0 && !slices.ContainsFunc(r.Packages, func(p string) bool { return have[p] })
	})
}

func (a *assembly) startAccounts() (err error) {
	passwd, group := basePasswd, baseGroup
	if a.has("usr/share/base-passwd/passwd.master") {
		p, err := a.read("usr/share/base-passwd/passwd.master")
		if err != nil {
			return err
		}
		g, err := a.read("usr/share/base-passwd/group.master")
		if err != nil {
			return err
		}
		passwd, group = string(p), string(g)
	}
	a.accounts, err = newAccounts(passwd, group)
	return err
}

func (a *assembly) addAccounts(r Rule) error {
	a.accounts.shadow = a.accounts.shadow || r.Shadow
	for _, g := range r.Groups {
		if err := a.accounts.addGroup(g); err != nil {
			return err
		}
	}
	for _, u := range r.Users {
		if err := a.accounts.addUser(u); err != nil {
			return err
		}
	}
	return nil
}
