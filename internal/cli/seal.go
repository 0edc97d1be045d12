package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

func (p *program) sealCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "seal",
		Short: "Look into sealed trees without mounting them",
		Long: "A SEAL is named by its digest, by the digest's beginning (6 digits or more), or as ENV/COMPONENT:\n" +
			"what is live there.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		&cobra.Command{Use: "ls SEAL [PATH]", Short: "List the files of a sealed tree", Args: cobra.RangeArgs(1, 2), RunE: p.sealList},
		&cobra.Command{Use: "cat SEAL PATH", Short: "Print a file of a sealed tree", Args: cobra.ExactArgs(2), RunE: p.sealCat},
		&cobra.Command{Use: "verify SEAL...", Short: "Re-hash sealed trees and every byte in them", Args: cobra.MinimumNArgs(1), RunE: p.sealVerify},
		&cobra.Command{Use: "diff SEAL SEAL", Short: "Compare two sealed trees", Args: cobra.ExactArgs(2), RunE: p.sealDiff},
	)
	return cmd
}

// openSeal finds what an argument names.
func (p *program) openSeal(ctx context.Context, arg string) (Seals, digest.Digest, error) {
	dir, err := p.stateDir()
	if err != nil {
		return nil, "", err
	}
	seals, err := p.parts.Seals(dir)
	if err != nil {
		return nil, "", err
	}
	if env, component, ok := strings.Cut(arg, "/"); ok {
		d, err := p.liveSeal(ctx, env, component)
		return seals, d, err
	}
	d, err := seals.Find(strings.TrimPrefix(arg, "sha256:"))
	return seals, d, err
}

// liveSeal is the sealed tree of a component that is live.
func (p *program) liveSeal(ctx context.Context, env, component string) (digest.Digest, error) {
	c, err := p.client()
	if err != nil {
		return "", err
	}
	app, env, err := p.place(ctx, c, []string{env})
	if err != nil {
		return "", err
	}
	s, err := c.Status(ctx, app, env)
	if err != nil {
		return "", err
	}
	if s.State.Current == nil {
		return "", fault.New(fault.NotFound, "nothing is live in %s/%s", app, env).Mend("deploy to it:  ashlar deploy %s", env)
	}
	r, err := c.Release(ctx, app, string(s.State.Current.Release))
	if err != nil {
		return "", err
	}
	comp, ok := r.Release.Environments[env].Components[component]
	if !ok {
		return "", fault.New(fault.NotFound, "release %d has no component %q in %s", r.Number, component, env).
			Mend("see what there is:  ashlar status %s", env)
	}
	return comp.Spec.Tree, nil
}

func (p *program) tree(ctx context.Context, arg string) (Seals, image.Tree, error) {
	seals, d, err := p.openSeal(ctx, arg)
	if err != nil {
		return nil, image.Tree{}, err
	}
	t, err := seals.Tree(d)
	return seals, t, err
}

func (p *program) sealList(cmd *cobra.Command, args []string) error {
	_, t, err := p.tree(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	below := "."
	if len(args) > 1 {
		e, err := find(t, args[1], args[0])
		if err != nil {
			return err
		}
		below = e.Path
	}
	found := []image.Entry{}
	for _, e := range t.Entries {
		if below == "." || e.Path == below || strings.HasPrefix(e.Path, below+"/") {
			found = append(found, e)
		}
	}
	if p.json() {
		p.out.json(found)
		return nil
	}
	rows := make([][]string, len(found))
	for i, e := range found {
		rows[i] = entryRow(e)
	}
	p.out.table(rows)
	return nil
}

func entryRow(e image.Entry) []string {
	kind, name, length := "-", "/"+strings.TrimPrefix(e.Path, "."), number(int(e.Size))
	switch e.Type {
	case image.Dir:
		kind, length = "d", ""
	case image.Symlink:
		kind, length, name = "l", "", name+" -> "+e.Link
	}
	return []string{kind + permissions(e.Mode), number(e.UID) + ":" + number(e.GID), length, short(e.Digest), name}
}

// permissions spells mode bits as ls does.
func permissions(mode uint32) string {
	b := []byte("rwxrwxrwx")
	for i := range b {
		if mode&(1<<(8-i)) == 0 {
			b[i] = '-'
		}
	}
	for _, x := range []struct {
		bit uint32
		at  int
		set byte
	}{{0o4000, 2, 's'}, {0o2000, 5, 's'}, {0o1000, 8, 't'}} {
		if mode&x.bit == 0 {
			continue
		}
		if b[x.at] == '-' {
			b[x.at] = x.set - 'a' + 'A'
		} else {
			b[x.at] = x.set
		}
	}
	return string(b)
}

func (p *program) sealCat(cmd *cobra.Command, args []string) (err error) {
	seals, t, err := p.tree(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	e, err := find(t, args[1], args[0])
	switch {
	case err != nil:
		return err
	case e.Type != image.File:
		return fault.New(fault.Invalid, "%s is a directory", args[1]).Mend("list it:  ashlar seal ls %s %s", args[0], args[1])
	}
	r, err := seals.Open(e.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.Copy(p.out.w, r)
	return err
}

// find looks a path up, through the tree's symbolic links.
func find(t image.Tree, arg, seal string) (image.Entry, error) {
	name := strings.TrimPrefix(path.Clean("/"+arg), "/")
	if name == "" {
		name = "."
	}
	name, err := t.Resolve(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return image.Entry{}, err
	}
	e, ok := t.Lookup(name)
	if err != nil || !ok {
		return image.Entry{}, fault.New(fault.NotFound, "the sealed tree has no %s", arg).Mend("list what it has:  ashlar seal ls %s", seal)
	}
	return e, nil
}

func (p *program) sealVerify(cmd *cobra.Command, args []string) error {
	reports := []SealReport{}
	var faults fault.List
	for _, arg := range args {
		seals, d, err := p.openSeal(cmd.Context(), arg)
		if err != nil {
			return err
		}
		r, err := seals.Verify(cmd.Context(), d)
		if err != nil && fault.Of(err).Kind != fault.Refused {
			return err
		}
		if err != nil {
			faults = append(faults, fault.Of(err))
		}
		reports = append(reports, r)
		if err == nil && !p.json() {
			p.out.linef("%s is intact: %s, %s", short(d), count(r.Files, "file"), size(r.Bytes))
		}
	}
	if p.json() {
		p.out.json(reports)
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

func (p *program) sealDiff(cmd *cobra.Command, args []string) error {
	_, a, err := p.tree(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	_, b, err := p.tree(cmd.Context(), args[1])
	if err != nil {
		return err
	}
	changes := image.Diff(a, b)
	if p.json() {
		if changes == nil {
			changes = []image.Change{}
		}
		p.out.json(changes)
		return nil
	}
	for _, c := range changes {
		p.out.linef("%s", changeWords(c))
	}
	if len(changes) == 0 {
		p.out.linef("no difference")
	}
	return nil
}
