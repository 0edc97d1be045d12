package cli

import (
	"cmp"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// anewFlag is the flag of the builds of --check, which nobody types.
const anewFlag = "anew"

// buildFlags are those of every command that builds.
type buildFlags struct {
	update, locked bool
	untested       bool // without run tests; of `ashlar build` alone
	platforms      bool // all of the definition's, not this machine's alone; of no flag
	anew           bool // one of the builds of --check; of `ashlar build` alone
}

func (b *buildFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&b.update, "update", false, "resolve external inputs anew and rewrite ashlar.lock")
	cmd.Flags().BoolVar(&b.locked, "locked", false, "fail rather than change ashlar.lock")
	cmd.MarkFlagsMutuallyExclusive("update", "locked")
}

func (p *program) buildCommand() *cobra.Command {
	var flags buildFlags
	var export string
	var sign, check bool
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build the artifacts of ashlar.yaml, without deploying them",
		Long: "Builds an artifact of each component into the object store: reproducible, sealed, named by digest.\n" +
			"External inputs come from ashlar.lock; what it names is kept, so a build works offline.\n" +
			"With platforms: in ashlar.yaml, artifacts of all of them are built, and exported as one OCI index.\n\n" +
			"A component with minimise: has a run test, which is run once for each artifact, as root, without a network.\n" +
			"One that fails fails the build.\n\n" +
			"With --check everything is built twice more, without what was remembered, and with other directories, host\n" +
			"names, users, time zones, umasks, locales, numbers of processors, and orders and times of the files. What\n" +
			"differs is named by path and offset, and the exit status is 5. What this shows of a Dockerfile is noted in\n" +
			"ashlar.lock, and said by ledger, bill of materials and provenance.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			def, err := p.definition()
			if err != nil {
				return err
			}
			var ring keyring
			if sign {
				if ring, err = p.buildKeys(cmd.Context()); err != nil {
					return err
				}
			}
			flags.platforms = true
			built, err := p.build(cmd.Context(), def, "", flags)
			if err != nil {
				return err
			}
			defer built.Unlock()
			if check {
				return p.reproduce(cmd.Context(), def, built, flags)
			}
			out := builtView{App: def.App, Components: built.Components, Seconds: built.Took.Seconds()}
			if out.Release, err = built.Release.Digest(); err != nil {
				return err
			}
			if sign {
				made, err := p.sign(cmd.Context(), def.App, built, ring)
				if err != nil {
					return err
				}
				out.Signed = &made
			}
			if out.Exports, err = p.export(cmd.Context(), def.App, built, export); err != nil {
				return err
			}
			p.showBuilt(out)
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "build twice more under other circumstances, and compare")
	cmd.Flags().BoolVar(&flags.untested, "untested", false, "leave the run tests of minimised components to the deploy")
	cmd.Flags().BoolVar(&flags.anew, anewFlag, false, "build Dockerfiles without caches, whatever is locked: one of the builds of --check")
	if err := cmd.Flags().MarkHidden(anewFlag); err != nil {
		panic(err) // the flag is not there
	}
	cmd.Flags().BoolVar(&sign, "sign", false, "sign what is built, as  ashlar deploy  does where there are keys, and have the server record it")
	cmd.Flags().StringVar(&export, "export", "", "write each artifact as an OCI layout too: a directory, or a file that ends in .tar")
	cmd.MarkFlagsMutuallyExclusive("check", "update")
	cmd.MarkFlagsMutuallyExclusive("check", "sign")
	cmd.MarkFlagsMutuallyExclusive("untested", "sign")
	cmd.MarkFlagsMutuallyExclusive("check", "export")
	return cmd
}

// buildKeys opens the keys for a build that has to be signed.
func (p *program) buildKeys(ctx context.Context) (keyring, error) {
	ring, err := p.keyring(trust.RoleRelease, trust.RoleBuilder)
	if err == nil && len(ring) == 0 {
		_, err = p.signerOf(trust.RoleRelease) // says that there is none, and where
	}
	if err == nil {
		err = p.needServer(ctx)
	}
	return ring, err
}

// build builds and shows the progress on standard error. The environment that is to be
// deployed to has to have its secrets; it may be empty.
func (p *program) build(ctx context.Context, def *definition.Definition, env string, flags buildFlags) (Built, error) {
	dir, err := p.stateDir()
	if err != nil {
		return Built{}, err
	}
	if err := p.bindSecrets(ctx, def, env); err != nil {
		return Built{}, err
	}
	return p.parts.Build(ctx, BuildRequest{
		Dir: dir, File: p.file, Definition: def, Update: flags.update, Locked: flags.locked, Platforms: flags.platforms, Untested: flags.untested, Anew: flags.anew, Progress: p.buildProgress(),
	})
}

// buildProgress shows steps that are done as lines, and on a terminal the one
// that goes on, redrawn.
func (p *program) buildProgress() func(BuildEvent) {
	if p.json() {
		return func(BuildEvent) {}
	}
	var mu sync.Mutex
	return func(e BuildEvent) {
		mu.Lock()
		defer mu.Unlock()
		text := strings.TrimSpace(e.Component + "  " + e.Step + "  " + e.Text)
		switch {
		case e.Done && e.Reused:
			p.err.clearBlock()
		case e.Done:
			p.err.clearBlock()
			p.err.linef("%s  %s", text, p.err.paint(faint, seconds(e.Took)))
		case p.err.terminal && e.Total > 0:
			p.err.redraw([]string{text + "  " + number(e.Count) + "/" + number(e.Total)})
		case p.err.terminal:
			p.err.redraw([]string{text})
		}
	}
}

// clearBlock takes the redrawn block away.
func (p *printer) clearBlock() {
	if p.drawn == 0 {
		return
	}
	p.redraw(nil)
	p.text("\x1b[" + number(p.drawn) + "A")
	p.settle()
}

// export writes the artifacts as OCI layouts: to the place itself when there is
// one component, else below it or beside it, with the component's name.
func (p *program) export(ctx context.Context, app string, built Built, to string) (map[string]string, error) {
	if to == "" {
		return nil, nil
	}
	dir, err := p.stateDir()
	if err != nil {
		return nil, err
	}
	written := map[string]string{}
	for _, c := range built.Components {
		place := to
		if len(built.Components) > 1 && strings.HasSuffix(to, ".tar") {
			place = strings.TrimSuffix(to, ".tar") + "-" + c.Name + ".tar"
		} else if len(built.Components) > 1 {
			place = filepath.Join(to, c.Name)
		}
		if err := p.parts.Export(ctx, ExportRequest{Dir: dir, Artifact: cmp.Or(c.Index, c.Artifact), Tag: app + "-" + c.Name, To: place}); err != nil {
			return nil, err
		}
		written[c.Name] = place
	}
	return written, nil
}

// builtView is what `ashlar build` answers.
type builtView struct {
	App        string            `json:"app"`
	Release    digest.Digest     `json:"release"`
	Components []BuiltComponent  `json:"components"`
	Seconds    float64           `json:"seconds"`
	Exports    map[string]string `json:"exports"`          // by component: where it was written to
	Signed     *signedReport     `json:"signed,omitempty"` // with --sign
}

func (p *program) showBuilt(out builtView) {
	if p.json() {
		p.out.json(out)
		return
	}
	for _, c := range out.Components {
		how := "built"
		if c.Reused {
			how = "unchanged"
		}
		p.out.linef("%s  artifact %s  seal %s  %s, %s  %s", c.Name, short(c.Artifact), short(c.Seal), count(c.Files, "file"), size(c.Bytes), how)
		if c.Index != "" {
			p.out.linef("%s  index %s of all platforms", c.Name, short(c.Index))
		}
		if to := out.Exports[c.Name]; to != "" {
			p.out.linef("%s  written to %s", c.Name, to)
		}
	}
	if s := out.Signed; s != nil {
		p.out.linef("%s, signed and recorded: %s new", count(s.Artifacts, "artifact"), count(s.Statements, "statement"))
	}
	p.out.linef("release %s of %s, in %s", short(out.Release), out.App, seconds(time.Duration(out.Seconds*1e9)))
}

// tellAhead is needServer of one who will deploy: the server gets ready meanwhile.
func (p *program) tellAhead(ctx context.Context, app, env string) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	return c.Ahead(ctx, api.AheadRequest{App: app, Env: env})
}

// needServer fails early, before minutes of building, when nobody could deploy.
func (p *program) needServer(ctx context.Context) error {
	c, err := p.client()
	if err != nil {
		return err
	}
	_, err = c.Version(ctx)
	return err
}
