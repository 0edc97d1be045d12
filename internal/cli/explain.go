package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/release"
)

func (p *program) explainCommand() *cobra.Command {
	var flags artifactFlags
	cmd := &cobra.Command{
		Use:   "explain [ENV/]COMPONENT[:/PATH]",
		Short: "Why a file is there: package and member, program, source file or rule",
		Long: "Tells where an entry of an instance's root file system comes from, in which layer it is, and what else in\n" +
			"the release holds the same bytes. Of a directory it also tells what is below it, by origin; with\n" +
			"--output json, every entry. Without a path it is the whole root.\n\n" + artifactHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, path, _ := strings.Cut(args[0], ":")
			s, err := p.artifact(cmd.Context(), name, flags)
			if err != nil {
				return err
			}
			defer s.close()
			x, err := s.explain(path)
			if err != nil {
				return err
			}
			if p.json() {
				p.out.json(x)
				return nil
			}
			p.showExplained(x)
			return nil
		},
	}
	flags.add(p, cmd)
	return cmd
}

// explained is what is known of one path.
type explained struct {
	Component   string        `json:"component"`
	Environment string        `json:"environment,omitempty"`
	Release     int           `json:"release,omitempty"`
	Artifact    digest.Digest `json:"artifact"`
	Ledger      digest.Digest `json:"ledger"`

	Path    string        `json:"path"`              // as asked for, absolute
	LeadsTo string        `json:"leadsTo,omitempty"` // where symbolic links on the way lead
	Entry   *image.Entry  `json:"entry,omitempty"`
	Setting string        `json:"setting,omitempty"` // why the settings layer has it, which lies over the artifact
	Origin  *origin       `json:"origin,omitempty"`
	Layer   *layer        `json:"layer,omitempty"`
	Shared  []sharedPlace `json:"shared,omitempty"`
	Below   []belowOrigin `json:"below,omitempty"`   // of a directory, largest first
	Entries []line        `json:"entries,omitempty"` // of a directory: itself and all below
}

type origin struct {
	ledger.Origin
	Member  string          `json:"member,omitempty"`
	Amended []ledger.Origin `json:"amended,omitempty"` // rules that changed its mode, owner or time
}

type layer struct {
	Number int           `json:"number"` // from 1
	Of     int           `json:"of"`
	Source string        `json:"source"`
	Digest digest.Digest `json:"digest"` // of its tar
}

type sharedPlace struct {
	Component string `json:"component"`
	Path      string `json:"path"`
}

type belowOrigin struct {
	Kind    ledger.Kind `json:"kind"`
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Entries int         `json:"entries"`
	Bytes   int64       `json:"bytes"`
}

// line is one line of the ledger with all that it is about.
type line struct {
	image.Entry
	Layer  int        `json:"layer"` // from 1
	From   lineOrigin `json:"from"`
	Member string     `json:"member,omitempty"`
	By     []string   `json:"amended,omitempty"`
}

type lineOrigin struct {
	Kind    ledger.Kind   `json:"kind"`
	Name    string        `json:"name"`
	Version string        `json:"version,omitempty"`
	Digest  digest.Digest `json:"digest,omitempty"`
}

// explain looks a path up in the settings layer and in the artifact below it.
func (s subject) explain(arg string) (explained, error) {
	x := explained{
		Component: s.component, Environment: s.env, Release: s.number, Artifact: s.book.Ledger.Artifact, Ledger: s.book.Digest,
		Path: "/" + strings.TrimPrefix(image.CleanPath(arg), "."),
	}
	at, err := s.book.Tree().Place(arg)
	if err != nil {
		return x, err
	}
	if real := "/" + strings.TrimPrefix(at, "."); real != x.Path {
		x.LeadsTo = real
	}
	if err := s.inSettings(&x, at); err != nil {
		return x, err
	}
	e, ok := s.book.Lookup(at)
	if !ok && x.Setting == "" {
		return x, fault.New(fault.NotFound, "%s has no %s", s.component, x.Path).Mend("list what it has:  ashlar seal ls %s", short(s.book.Ledger.Seal))
	}
	if !ok || x.Setting != "" && x.Entry.Type != image.Dir {
		return x, nil
	}
	return x, s.inArtifact(&x, e)
}

// inSettings explains what the settings layer puts over the artifact.
func (s subject) inSettings(x *explained, at string) error {
	if s.env == "" {
		return nil // which settings is not said
	}
	t, err := s.seals.Tree(s.spec().Settings)
	if err != nil {
		return err
	}
	e, ok := t.Lookup(at)
	if !ok {
		return nil
	}
	x.Setting = settingOf(s.spec(), "/"+at)
	if x.Setting == "" && !below(t, at) {
		x.Setting = "a place over which the platform mounts something when the instance starts"
	}
	if x.Setting != "" {
		x.Entry = &e
	}
	return nil
}

// below says whether a tree has anything in a directory.
func below(t image.Tree, dir string) bool {
	for _, e := range t.Entries {
		if dir == "." || strings.HasPrefix(e.Path, dir+"/") {
			return true
		}
	}
	return false
}

func settingOf(spec release.Spec, p string) string {
	for _, f := range spec.Files {
		if f.Path == p {
			return "a config file of the component, " + f.Digest.String()
		}
	}
	for _, t := range spec.Tmpfs {
		if t.Path == p {
			return "a tmpfs of " + size(t.Size) + ", empty when the instance starts"
		}
	}
	for _, v := range spec.Volumes {
		if v.Path == p {
			return "the volume " + v.Volume
		}
	}
	for _, x := range spec.Secrets {
		if x.Path == p {
			return fmt.Sprintf("the secret %s, version %d", x.Name, x.Version)
		}
	}
	return ""
}

func (s subject) inArtifact(x *explained, e ledger.Entry) error {
	o := s.book.Origin(e)
	x.Entry = &e.Entry
	x.Origin = &origin{Origin: o, Member: s.book.Member(e), Amended: s.book.Amended(e)}
	man, err := s.manifest()
	if err != nil {
		return err
	}
	x.Layer = &layer{e.Layer + 1, len(s.book.Chapters), s.book.Chapters[e.Layer].Source, man.Layers[e.Layer].Digest}
	if x.Shared, err = s.sharing(e.Entry); err != nil || e.Type != image.Dir {
		return err
	}
	x.list(s.book, e.Path)
	return nil
}

func (s subject) manifest() (image.Manifest, error) {
	raw, err := readObject(s.seals, s.book.Ledger.Artifact)
	if err != nil {
		return image.Manifest{}, err
	}
	man, err := image.ParseManifest(raw)
	if err == nil && len(man.Layers) != len(s.book.Chapters) {
		err = fault.New(fault.Refused, "the ledger has %d layers, the artifact %d", len(s.book.Chapters), len(man.Layers))
	}
	return man, err
}

// list sums up a directory.
func (x *explained) list(b *ledger.Book, dir string) {
	index := map[lineOrigin]int{}
	for _, e := range b.Entries {
		if dir != "." && e.Path != dir && !strings.HasPrefix(e.Path, dir+"/") {
			continue
		}
		o := b.Origin(e)
		from := lineOrigin{o.Kind, o.Name, o.Version, o.Digest}
		l := line{Entry: e.Entry, Layer: e.Layer + 1, From: from, Member: b.Member(e)}
		for _, r := range b.Amended(e) {
			l.By = append(l.By, r.Name)
		}
		x.Entries = append(x.Entries, l)
		if e.Path == dir {
			continue
		}
		i, ok := index[from]
		if !ok {
			i = len(x.Below)
			index[from] = i
			x.Below = append(x.Below, belowOrigin{Kind: o.Kind, Name: o.Name, Version: o.Version})
		}
		x.Below[i].Entries++
		x.Below[i].Bytes += e.Size
	}
	sortBelow(x.Below)
}

// showExplained tells it in words.
func (p *program) showExplained(x explained) {
	title := x.Path
	if x.LeadsTo != "" {
		title += ", which is " + x.LeadsTo + ","
	}
	where := x.Component
	if x.Release != 0 {
		where = fmt.Sprintf("%s/%s, release %d", x.Environment, x.Component, x.Release)
	}
	p.out.linef("%s  in %s", p.out.paint(bold, title), where)
	var rows [][]string
	if x.Setting != "" {
		rows = append(rows, []string{"  setting", x.Setting})
	}
	if x.Entry != nil {
		rows = append(rows, []string{"  " + string(x.Entry.Type), entryWords(*x.Entry)})
	}
	if x.Origin != nil {
		rows = append(rows, originRows(*x.Origin)...)
		rows = append(rows, []string{"  layer", fmt.Sprintf("%d of %d, %s, %s", x.Layer.Number, x.Layer.Of, x.Layer.Source, short(x.Layer.Digest))})
	}
	for _, s := range x.Shared {
		rows = append(rows, []string{"  same bytes", s.Component + ":" + s.Path})
	}
	p.out.table(rows)
	if len(x.Below) == 0 {
		return
	}
	p.out.linef("  below it")
	rows = nil
	for _, b := range x.Below {
		rows = append(rows, []string{"    " + originName(b.Kind, b.Name, b.Version), count64(int64(b.Entries), "entry", "entries"), size(b.Bytes)})
	}
	p.out.table(rows)
}

func entryWords(e image.Entry) string {
	text := fmt.Sprintf("%04o, owner %d:%d, of %s", e.Mode, e.UID, e.GID, time.Unix(e.MTime, 0).UTC().Format("2006-01-02 15:04:05"))
	switch e.Type {
	case image.File:
		return text + ", " + size(e.Size) + ", " + e.Digest.String()
	case image.Symlink:
		return text + ", to " + e.Link
	}
	return text
}

func originName(kind ledger.Kind, name, version string) string {
	words := map[ledger.Kind]string{ledger.KindDebian: "package ", ledger.KindGo: "program ", ledger.KindImage: "image ", ledger.KindRule: "rule "}
	if kind == ledger.KindFile {
		return "the definition's directory"
	}
	return strings.TrimSpace(words[kind] + name + " " + version)
}

func originRows(o origin) [][]string {
	rows := [][]string{{"  from", originName(o.Kind, o.Name, o.Version)}}
	switch o.Kind {
	case ledger.KindDebian:
		rows[0][1] += " (" + o.Arch + ", of source package " + o.Source + " " + o.SourceVersion + ")"
		rows = append(rows, []string{"  member", o.Member}, []string{"  package", fmt.Sprintf("%s, %s, %s", o.Digest, size(o.Size), o.Place)},
			[]string{"  archive", o.Distribution})
	case ledger.KindFile:
		rows = append(rows, []string{"  member", o.Member})
	case ledger.KindImage:
		rows = append(rows, []string{"  member", o.Member}, []string{"  image", string(o.Digest)},
			[]string{"  opaque", "what the image is made of is not known here"})
		if o.Text != "" {
			rows = append(rows, []string{"  made", o.Text})
		}
	case ledger.KindGo:
		rows = append(rows, []string{"  module", o.Go.Module}, []string{"  compiled", "with " + strings.Join(o.Go.Flags, " ")},
			[]string{"  made of", count(len(o.Go.Files), "source file") + " and " + count(len(o.Go.Modules), "module") + " beside the standard library"})
	case ledger.KindRule:
		rows = append(rows, []string{"  rule", o.Text})
	}
	for _, r := range o.Amended {
		rows = append(rows, []string{"  changed by", "rule " + r.Name + ": " + r.Text})
	}
	return rows
}
