package cli

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// PushRequest asks for an artifact to be brought to another registry.
type PushRequest struct {
	Dir      string // state directory
	Artifact digest.Digest
	Whole    bool // the index that it is in, if one was built
	To       string
	Progress func(Moved)
}

// PullRequest asks for an image to be brought from another registry.
type PullRequest struct {
	Dir      string // state directory
	From     string
	Arch     string // GOARCH, of an image for several; empty: all
	Progress func(Moved)
}

// Moved is a sign of progress.
type Moved struct {
	What  string // beginning of a digest
	Bytes int64
	Total int64
	Had   bool // it was there already
}

// Pushed is what a push did.
type Pushed struct {
	Component  string        `json:"component,omitempty"`
	Reference  string        `json:"reference"` // by digest
	Manifest   digest.Digest `json:"manifest"`  // or the index of several
	Images     int           `json:"images"`
	Statements int           `json:"statements"`
	Bytes      int64         `json:"bytes"` // that were sent
}

// Pulled is what a pull did.
type Pulled struct {
	Reference  string        `json:"reference"`  // by digest
	Repository string        `json:"repository"` // of `ashlar registry`, where it is now
	Manifest   digest.Digest `json:"manifest"`   // or the index of several
	Images     int           `json:"images"`
	Layers     int           `json:"layers"`
	Statements int           `json:"statements"`
	Others     int           `json:"others"` // that refer to it and were left there
	Bytes      int64         `json:"bytes"`  // that were fetched
}

func (p *program) pushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "push WHAT REFERENCE",
		Short: "Bring artifacts, with the statements about them, to another registry",
		Long: "WHAT is an environment (what is live there), the number or digest of a release, or a component (of the\n" +
			"newest release). ENV/COMPONENT and RELEASE/COMPONENT name one artifact, sha256:DIGEST any image of the\n" +
			"object store.\n\n" +
			"REFERENCE is HOST/NAME, or HOST/NAME:TAG for one artifact. Without a tag it is the release's number.\n" +
			"Several artifacts go to HOST/NAME/COMPONENT. Layers that the registry has are not sent again, and\n" +
			"statements go where cosign finds them. Where `ashlar build` made artifacts for several platforms, the index\n" +
			"of them goes with all that it names; sha256:DIGEST sends one alone. Credentials are Docker's: ~/.docker/config.json and its helpers.",
		Example: "  ashlar push production registry.example.com/shop\n" +
			"  ashlar push 7/web registry.example.com/shop/web:stable",
		Args: cobra.ExactArgs(2), ValidArgsFunction: p.completePushed,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := p.stateDir()
			if err != nil {
				return err
			}
			list, err := p.toPush(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			var done []Pushed
			for _, x := range list {
				progress, end := p.moves()
				out, err := p.parts.Registry.Push(cmd.Context(), PushRequest{Dir: dir, Artifact: x.artifact, Whole: x.component != "", To: x.to, Progress: progress})
				end()
				if err != nil {
					return err
				}
				out.Component = x.component
				done = append(done, out)
				if !p.json() {
					p.out.linef("%s  %s%s sent, %s", out.Reference, several(out.Images), size(out.Bytes), count(out.Statements, "statement"))
				}
			}
			if p.json() {
				p.out.json(done)
			}
			return nil
		},
	}
}

func (p *program) pullCommand() *cobra.Command {
	var arch string
	var all bool
	cmd := &cobra.Command{
		Use:   "pull REFERENCE",
		Short: "Bring an image, with the statements about it, from another registry",
		Long: "Brings an image into the object store of the state directory: for `image:` sources of a build, which\n" +
			"then need no network, and for `ashlar registry`, which serves it as HOST/NAME. Everything is compared with\n" +
			"its digest, and what is here already is not fetched again. Statements are kept beside it; they\n" +
			"are worth what `ashlar statement verify` says.\n\n" +
			"REFERENCE is HOST/NAME:TAG or HOST/NAME@sha256:DIGEST. Credentials are Docker's: ~/.docker/config.json\n" +
			"and its helpers.",
		Example: "  ashlar pull registry.example.com/shop/web:7",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := p.stateDir()
			if err != nil {
				return err
			}
			if all {
				arch = ""
			}
			progress, end := p.moves()
			out, err := p.parts.Registry.Pull(cmd.Context(), PullRequest{Dir: dir, From: args[0], Arch: arch, Progress: progress})
			end()
			if err != nil {
				return err
			}
			if p.json() {
				p.out.json(out)
				return nil
			}
			p.out.linef("%s  %s%s, %s fetched, %s", out.Reference, several(out.Images), count(out.Layers, "layer"), size(out.Bytes), count(out.Statements, "statement"))
			if out.Others > 0 {
				p.out.linef("%s of other kinds that refer to it stay there", count(out.Others, "thing"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&arch, "arch", runtime.GOARCH, "architecture, of an image for several")
	cmd.Flags().BoolVar(&all, "all", false, "the images for all architectures, so that it can be pushed on as it is")
	cmd.MarkFlagsMutuallyExclusive("arch", "all")
	fixed(cmd, "arch", "amd64", "arm64")
	return cmd
}

// several tells of images when there is more than one.
func several(images int) string {
	if images < 2 {
		return ""
	}
	return count(images, "image") + ", "
}

// outgoing is one artifact with where it goes.
type outgoing struct {
	component string
	artifact  digest.Digest
	to        string
}

// toPush finds what the arguments name.
func (p *program) toPush(ctx context.Context, what, to string) ([]outgoing, error) {
	last := to[strings.LastIndexByte(to, '/')+1:]
	tagged := strings.ContainsAny(last, ":@")
	if strings.HasPrefix(what, "sha256:") {
		if !tagged {
			return nil, fault.New(fault.Invalid, "%s names no tag", to).Mend("write  %s:TAG", to)
		}
		return []outgoing{{"", digest.Digest(what), to}}, nil
	}
	rel, component, err := p.releaseOf(ctx, what)
	if err != nil {
		return nil, err
	}
	artifacts := map[string]digest.Digest{}
	for _, env := range rel.Release.Environments {
		for name, c := range env.Components {
			artifacts[name] = c.Spec.Artifact
		}
	}
	tag := ":" + strconv.Itoa(rel.Number)
	if component != "" || len(artifacts) == 1 {
		for name, d := range artifacts {
			if component != "" && name != component {
				continue
			}
			if tagged {
				tag = ""
			}
			return []outgoing{{name, d, to + tag}}, nil
		}
		return nil, fault.New(fault.NotFound, "%q is no environment in which something is live, and no component of release %d", component, rel.Number).
			Detail("components: " + strings.Join(slices.Sorted(maps.Keys(artifacts)), ", ")).Mend("name one of them, or an environment, or a release by number")
	}
	if tagged {
		return nil, fault.New(fault.Invalid, "release %d has %d components, and %s names one image", rel.Number, len(artifacts), to).
			Mend("leave the tag out, or name one:  ashlar push %s/COMPONENT %s", what, to)
	}
	var list []outgoing
	for _, name := range slices.Sorted(maps.Keys(artifacts)) {
		list = append(list, outgoing{name, artifacts[name], to + "/" + name + tag})
	}
	return list, nil
}

// releaseOf finds the release that an argument names: one by number or digest, what is
// live in an environment, or the newest, of which it names a component.
func (p *program) releaseOf(ctx context.Context, what string) (rel api.Release, component string, err error) {
	c, err := p.client()
	if err != nil {
		return rel, "", err
	}
	app, err := p.application(ctx, c)
	if err != nil {
		return rel, "", err
	}
	name, component, _ := strings.Cut(what, "/")
	if strings.Trim(name, "0123456789") == "" {
		rel, err = c.Release(ctx, app, name)
		return rel, component, err
	}
	if len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "" {
		rel, err = c.Release(ctx, app, "sha256:"+name)
		return rel, component, err
	}
	h, err := c.History(ctx, app, "")
	if err != nil {
		return rel, "", err
	}
	if len(h.Releases) == 0 {
		return rel, "", fault.New(fault.NotFound, "there is no release of %s", app).Mend("make one:  ashlar deploy")
	}
	for _, r := range slices.Backward(h.Releases) {
		if slices.Contains(r.LiveIn, name) {
			rel, err = c.Release(ctx, app, string(r.Digest))
			return rel, component, err
		}
	}
	if component != "" {
		return rel, "", fault.New(fault.NotFound, "nothing is live in %s/%s", app, name).Mend("deploy to it:  ashlar deploy %s", name)
	}
	rel, err = c.Release(ctx, app, string(h.Releases[len(h.Releases)-1].Digest))
	return rel, name, err
}

// moves shows what is moved: on a terminal all that goes on, redrawn, elsewhere a line
// for each blob that is there. Call end before anything else is shown.
func (p *program) moves() (progress func(Moved), end func()) {
	if p.json() {
		return func(Moved) {}, func() {}
	}
	var mu sync.Mutex
	under := map[string]Moved{}
	var drawn time.Time
	return func(m Moved) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case m.Had:
				p.err.clearBlock()
				p.err.linef("%s  there already", m.What)
			case m.Bytes >= m.Total:
				delete(under, m.What)
				p.err.clearBlock()
				p.err.linef("%s  %s", m.What, size(m.Total))
			case p.err.terminal:
				under[m.What] = m
				if time.Since(drawn) < 100*time.Millisecond {
					return
				}
				drawn = time.Now()
				var lines []string
				for _, name := range slices.Sorted(maps.Keys(under)) {
					lines = append(lines, name+"  "+size(under[name].Bytes)+" of "+size(under[name].Total))
				}
				p.err.redraw(lines)
			}
		}, func() {
			mu.Lock()
			defer mu.Unlock()
			p.err.clearBlock()
		}
}
