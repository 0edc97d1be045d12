package cli

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// RebuildParts build a release anew.
type RebuildParts struct {
	Export  func(ctx context.Context, q ExportInputsRequest) error
	Rebuild func(ctx context.Context, q RebuildRequest) (Rebuilt, error)
}

// ExportInputsRequest asks for all inputs of a release's builds as one tar.
type ExportInputsRequest struct {
	Dir     string // state directory
	File    string // ashlar.yaml, as it was when the release was made
	Release release.Release
	Digest  digest.Digest // of the release
	To      string
}

// RebuildRequest asks for a build of what a tar of inputs has.
type RebuildRequest struct {
	File     string
	Progress io.Writer
}

// Rebuilt is what came out.
type Rebuilt struct {
	App        string             `json:"app"`
	Release    digest.Digest      `json:"release"`
	Inputs     digest.Digest      `json:"inputs"` // of the tar
	Components []RebuiltComponent `json:"components"`
}

// RebuiltComponent is one artifact that was built anew.
type RebuiltComponent struct {
	Name string        `json:"name"`
	Want digest.Digest `json:"want"`
	Got  digest.Digest `json:"got"` // empty: it was not built
}

func (p *program) exportCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "export RELEASE",
		Short: "Write all inputs of a release's builds into one tar, to rebuild it on another machine",
		Long: "The tar has the definition's directory, which has to be as it was when the release was made, the packages and\n" +
			"images that ashlar.lock names, the Go modules, and the digests that have to come out. Elsewhere:  ashlar rebuild FILE",
		Args: cobra.ExactArgs(1), ValidArgsFunction: p.completeRelease,
		RunE: func(cmd *cobra.Command, args []string) error {
			rel, err := p.releaseNamed(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if to == "" {
				to = rel.Release.App + "-" + number(rel.Number) + ".inputs.tar"
			}
			if err := p.exportInputs(cmd.Context(), rel, to); err != nil {
				return err
			}
			if p.json() {
				p.out.json(map[string]any{"file": to, "release": rel.Digest})
				return nil
			}
			p.out.linef("%s: the inputs of release %d", to, rel.Number)
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "file to write; APP-NUMBER.inputs.tar if it is not named")
	return cmd
}

func (p *program) exportInputs(ctx context.Context, rel api.Release, to string) error {
	dir, err := p.stateDir()
	if err != nil {
		return err
	}
	return p.parts.Rebuild.Export(ctx, ExportInputsRequest{Dir: dir, File: p.file, Release: rel.Release, Digest: rel.Digest, To: to})
}

func (p *program) rebuildCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "rebuild RELEASE|FILE",
		Short: "Build a release anew without a network, compare, and sign that the same came out",
		Long: "Builds from the inputs alone, in a directory of its own and a network namespace that has no interface. FILE is what\n" +
			"ashlar export  wrote on another machine; a RELEASE of this server's is exported first. Artifacts that come out\n" +
			"different are refused (exit status 5). With a key of the role rebuilder a statement is signed for each: recorded\n" +
			"and attached here, or for a FILE written beside it, for  ashlar statement attach  on the server.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := p.keyring(trust.RoleRebuilder)
			if err != nil {
				return err
			}
			file, here := args[0], false
			if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
				here = true
				if file, err = p.exportAside(cmd.Context(), args[0]); err != nil {
					return err
				}
				defer os.RemoveAll(filepath.Dir(file)) //nolint:errcheck // a directory of its own
			}
			progress := io.Writer(p.err.w)
			if p.json() {
				progress = io.Discard
			}
			out, err := p.parts.Rebuild.Rebuild(cmd.Context(), RebuildRequest{File: file, Progress: progress})
			if err != nil {
				return err
			}
			slices.SortFunc(out.Components, func(a, b RebuiltComponent) int { return strings.Compare(a.Name, b.Name) })
			if err := p.showRebuilt(out); err != nil {
				return err
			}
			return p.signRebuilt(cmd.Context(), out, ring, here, to)
		},
	}
	cmd.Flags().StringVar(&to, "to", ".", "directory for the statements about a FILE")
	return cmd
}

// exportAside exports a release of the server's into a directory of its own.
func (p *program) exportAside(ctx context.Context, name string) (string, error) {
	rel, err := p.releaseNamed(ctx, name)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "ashlar-inputs-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "inputs.tar")
	if err := p.exportInputs(ctx, rel, file); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return file, nil
}

func (p *program) showRebuilt(out Rebuilt) error {
	if p.json() {
		p.out.json(out)
	}
	f := fault.New(fault.Refused, "the rebuild of %s gave something else", out.App)
	for _, c := range out.Components {
		if c.Got != c.Want {
			f.Detail(c.Name + ": " + c.Want.String() + " was to come out, and did not: " + c.Got.String())
		} else if !p.json() {
			p.out.linef("%s  artifact %s  the same", c.Name, short(c.Got))
		}
	}
	if len(f.Details) > 0 {
		return f.Mend("see that the sources are those of the release's commit; what differs:  ashlar build --check")
	}
	return nil
}

func (p *program) signRebuilt(ctx context.Context, out Rebuilt, ring keyring, here bool, to string) error {
	open, ok := ring[trust.RoleRebuilder]
	if !ok {
		p.err.linef("not signed: there is no key of the role rebuilder")
		return nil
	}
	signer, err := open()
	if err != nil {
		return err
	}
	made, err := p.rebuildStatements(out, signer)
	if err != nil {
		return err
	}
	if here {
		dir, err := p.stateDir()
		if err != nil {
			return err
		}
		if err := p.keep(ctx, dir, made); err != nil {
			return err
		}
		if !p.json() {
			p.out.linef("%s recorded and attached", count(len(made), "statement"))
		}
		return nil
	}
	for i, m := range made {
		text, err := m.bundle.Marshal()
		if err != nil {
			return err
		}
		path := filepath.Join(to, out.App+"-"+out.Components[i].Name+".rebuild.json")
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return fault.New(fault.Unavailable, "the statement cannot be written: %w", err)
		}
		if !p.json() {
			p.out.linef("%s: on the server,  ashlar statement attach %s", path, path)
		}
	}
	return nil
}

func (p *program) rebuildStatements(out Rebuilt, signer crypto.Signer) ([]signed, error) {
	key, err := trust.NewPublicKey(signer.Public())
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	kind, _ := trust.KindOf("rebuild")
	var made []signed
	for _, c := range out.Components {
		text, err := policy.RebuildPredicate{Release: out.Release, Component: c.Name, Rebuilt: c.Got, Inputs: out.Inputs, Ashlar: p.parts.Version, Network: "denied"}.Marshal()
		if err != nil {
			return nil, err
		}
		s, err := trust.NewStatement(kind, out.App+"/"+c.Name, c.Got, text)
		if err != nil {
			return nil, fault.New(fault.Internal, "%w", err)
		}
		b, err := trust.Sign(s, signer, rand.Reader)
		if err != nil {
			return nil, err
		}
		made = append(made, signed{c.Got, b, key})
	}
	return made, nil
}

func (p *program) statementAttachCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "attach BUNDLE...",
		Short: "Keep statements that were made elsewhere beside what they are about",
		Long: "Has the server record those that bear no proof of this record yet, and keeps them in the object store as\n" +
			"referrers of their artifacts. The server's trust root has to know their keys.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chain, err := p.trustRootOr(cmd.Context(), "")
			if err != nil {
				return err
			}
			var made []signed
			for _, path := range args {
				some, err := readSigned(path, chain)
				if err != nil {
					return err
				}
				made = append(made, some...)
			}
			dir, err := p.stateDir()
			if err != nil {
				return err
			}
			if err := p.keep(cmd.Context(), dir, made); err != nil {
				return err
			}
			if p.json() {
				p.out.json(map[string]int{"attached": len(made)})
				return nil
			}
			p.out.linef("%s recorded and attached", count(len(made), "statement"))
			return nil
		},
	}
}

// readSigned reads a bundle; one for each of its subjects.
func readSigned(path string, chain *trust.Chain) ([]signed, error) {
	text, err := readFile("the bundle", path, trust.MaxBundle)
	if err != nil {
		return nil, err
	}
	b, err := trust.ParseBundle(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err).At(path).Mend("name a bundle that  ashlar statement sign  or  ashlar rebuild  wrote")
	}
	s, err := trust.ParseStatement(b.Payload)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err).At(path)
	}
	key, ok := chain.Key(b.Key)
	if !ok {
		return nil, fault.New(fault.Refused, "the trust root does not know the key %s", b.Key).At(path).Detail("verdict: " + string(trust.UnknownKey)).
			Mend("give it a role:  ashlar trust rotate FILE --add ROLE=KEY  and  ashlar trust install FILE")
	}
	var out []signed
	for _, about := range s.Subject {
		d := digest.NewDigestFromEncoded(digest.SHA256, about.Digest["sha256"])
		if err := d.Validate(); err != nil {
			return nil, fault.New(fault.Invalid, "the statement is about something without a digest").At(path)
		}
		out = append(out, signed{d, b, key})
	}
	return out, nil
}
