package cli

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// artifactFlags are those of the commands that are about one artifact.
type artifactFlags struct{ release string }

// artifactHelp says how an artifact is named.
const artifactHelp = "Without ENV the component is built, as  ashlar build  does; with it, what is live there is meant, or the\n" +
	"release that --release names. Everything is read from the object store of the state directory."

func (f *artifactFlags) add(p *program, cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.release, "release", "", "number or digest of the release, instead of the live one")
	cmd.ValidArgsFunction = p.completeArtifacts
	completes(cmd, "release", whatever(p.completeRelease))
}

// subject is the artifact that a command is about, with its release.
type subject struct {
	env       string // empty: it was built here, and may be for several
	number    int    // of the release; 0: it is not stored
	component string
	release   release.Release
	settings  map[string]release.Component // of the environment; of any when env is empty
	seals     Seals
	book      *ledger.Book
	close     func()
}

func (s subject) spec() release.Spec { return s.settings[s.component].Spec }

// artifact finds what [ENV/]COMPONENT names, and reads its ledger.
func (p *program) artifact(ctx context.Context, arg string, flags artifactFlags) (s subject, err error) {
	dir, err := p.stateDir()
	if err != nil {
		return subject{}, err
	}
	env, component, ok := strings.Cut(arg, "/")
	if !ok {
		env, component = "", arg
	}
	if ok {
		s, err = p.storedArtifact(ctx, env, flags.release)
	} else {
		s, err = p.builtArtifact(ctx, flags)
	}
	if err != nil {
		return subject{}, err
	}
	s.component = component
	c, ok := s.settings[component]
	if !ok {
		s.close()
		return subject{}, fault.New(fault.NotFound, "there is no component %q", component).
			Detail("known: " + strings.Join(slices.Sorted(maps.Keys(s.settings)), ", ")).Mend("name one of them, as COMPONENT or ENV/COMPONENT")
	}
	if c.Ledger == "" {
		s.close()
		return subject{}, fault.New(fault.NotFound, "the release has no ledger of %s: it was made by an older version", component).
			Mend("build it again, and deploy it")
	}
	if s.seals, err = p.parts.Seals(dir); err == nil {
		s.book, err = s.seals.Ledger(c.Ledger)
	}
	if err != nil {
		s.close()
	}
	return s, err
}

// storedArtifact is of a release that the server has.
func (p *program) storedArtifact(ctx context.Context, env, ref string) (subject, error) {
	c, err := p.client()
	if err != nil {
		return subject{}, err
	}
	app, env, err := p.place(ctx, c, []string{env})
	if err != nil {
		return subject{}, err
	}
	if ref == "" {
		s, err := c.Status(ctx, app, env)
		if err != nil {
			return subject{}, err
		}
		if s.State.Current == nil {
			return subject{}, fault.New(fault.NotFound, "nothing is live in %s/%s", app, env).Mend("name a release with --release, or a component alone")
		}
		ref = string(s.State.Current.Release)
	}
	r, err := c.Release(ctx, app, ref)
	if err != nil {
		return subject{}, err
	}
	e, ok := r.Release.Environments[env]
	if !ok {
		return subject{}, fault.New(fault.NotFound, "release %d of %s knows no environment %q", r.Number, app, env).
			Detail("known: " + strings.Join(slices.Sorted(maps.Keys(r.Release.Environments)), ", ")).Mend("name one of them, as ENV/COMPONENT")
	}
	return subject{env: env, number: r.Number, release: r.Release, settings: e.Components, close: func() {}}, nil
}

// builtArtifact builds what ashlar.yaml says. With one environment its settings count.
func (p *program) builtArtifact(ctx context.Context, flags artifactFlags) (subject, error) {
	if flags.release != "" {
		return subject{}, fault.New(fault.Invalid, "a release is of an environment").Mend("write  ENV/COMPONENT")
	}
	def, err := p.definition()
	if err != nil {
		return subject{}, err
	}
	built, err := p.build(ctx, def, "", buildFlags{untested: true})
	if err != nil {
		return subject{}, err
	}
	s := subject{release: built.Release, close: built.Unlock}
	for name, e := range built.Release.Environments {
		s.settings = e.Components
		if len(built.Release.Environments) == 1 {
			s.env = name
		}
	}
	return s, nil
}

// sharing are the other places in the release that hold the same bytes.
func (s subject) sharing(e image.Entry) ([]sharedPlace, error) {
	if e.Type != image.File || e.Size == 0 {
		return nil, nil
	}
	var out []sharedPlace
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		if s.settings[name].Ledger == "" {
			continue
		}
		book := s.book
		if name != s.component {
			var err error
			if book, err = s.seals.Ledger(s.settings[name].Ledger); err != nil {
				return nil, err
			}
		}
		for _, other := range book.Entries {
			if other.Digest == e.Digest && (name != s.component || other.Path != e.Path) {
				out = append(out, sharedPlace{name, "/" + other.Path})
			}
		}
	}
	return out, nil
}
