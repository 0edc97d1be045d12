package ledger

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// BuildType names the meaning of the parameters in a provenance; docs/security.md tells it.
const BuildType = project + "buildtypes/component/v1"

// LocalBuilder is the builder of whoever runs the program by hand, of whom nothing is known.
const LocalBuilder = project + "builders/local/v1"

type provenance struct {
	Definition buildDefinition `json:"buildDefinition"`
	Run        runDetails      `json:"runDetails"`
}

type buildDefinition struct {
	Type         string             `json:"buildType"`
	External     externalParameters `json:"externalParameters"`
	Internal     internalParameters `json:"internalParameters"`
	Dependencies []resource         `json:"resolvedDependencies"`
}

type externalParameters struct {
	Component string   `json:"component"`
	Sources   []string `json:"sources"`
}

type internalParameters struct {
	Arch  string   `json:"arch"`
	Rules []string `json:"rules"`
}

// resource is a ResourceDescriptor of in-toto.
type resource struct {
	Name    string            `json:"name,omitempty"`
	URI     string            `json:"uri,omitempty"`
	Digest  map[string]string `json:"digest,omitempty"`
	Content []byte            `json:"content,omitempty"` // base64 in JSON
	Place   string            `json:"downloadLocation,omitempty"`
	Media   string            `json:"mediaType,omitempty"`
	Notes   map[string]string `json:"annotations,omitempty"`
}

type runDetails struct {
	Builder    builder    `json:"builder"`
	Byproducts []resource `json:"byproducts"`
}

type builder struct {
	ID string `json:"id"`
}

// Provenance gives the predicate of a SLSA provenance v1
// (https://slsa.dev/spec/v1.1/provenance) for the artifact, whose manifest is the
// statement's subject. builderID is the URI of who built; the ledger does not know it.
//
// All inputs are dependencies: packages by package URL and digest, the index they were
// chosen from, modules by package URL and dirHash, every source file and every copied
// file by its path and digest. The Go toolchain is named by its version and has no
// digest. There are no times: a build has none. Equal arguments give equal bytes.
func Provenance(b *Book, builderID string) ([]byte, error) {
	p := provenance{Run: runDetails{Builder: builder{builderID}}}
	p.Definition = buildDefinition{
		Type:     BuildType,
		External: externalParameters{Component: b.Ledger.Component, Sources: []string{}},
		Internal: internalParameters{Arch: b.Ledger.Arch, Rules: []string{}},
	}
	for _, r := range b.Rules() {
		p.Definition.Internal.Rules = append(p.Definition.Internal.Rules, r.Name)
	}
	seen := map[string]bool{}
	for i, c := range b.Chapters {
		p.Definition.External.Sources = append(p.Definition.External.Sources, c.Source)
		for _, r := range c.dependencies(b.Trees[i], b.Ledger.Arch) {
			if id := r.Name + "\n" + r.URI + "\n" + r.Digest["sha256"] + string(r.Content); !seen[id] {
				seen[id] = true
				p.Definition.Dependencies = append(p.Definition.Dependencies, r)
			}
		}
	}
	p.Run.Byproducts = []resource{
		{Name: "ledger", Digest: sha256Set(b.Digest), Media: "application/json"},
		{Name: "sealed tree", Digest: sha256Set(b.Ledger.Seal)},
	}
	return json.Marshal(p)
}

// dependencies are the inputs of one layer, also of what a later layer hides.
func (c Chapter) dependencies(t image.Tree, arch string) []resource {
	var out []resource
	for _, o := range c.Origins {
		switch o.Kind {
		case KindDebian:
			out = append(out, resource{URI: debianURL(o), Digest: sha256Set(o.Digest), Place: o.Place})
		case KindArchive:
			out = append(out, resource{URI: strings.TrimRight(o.Place, "/") + "/dists/" + o.Name + "/InRelease", Digest: sha256Set(o.Digest)})
		case KindImage:
			r := resource{URI: ociURL(o.Name, o.Digest, arch), Name: o.Name, Digest: sha256Set(o.Digest)}
			if o.Text != "" {
				r.Notes = map[string]string{"made": o.Text}
			}
			out = append(out, r)
		case KindGo:
			out = append(out, o.Go.dependencies(o.Version)...)
		}
	}
	for i, l := range c.Lines {
		if c.Origins[l.Origin].Kind != KindFile {
			continue
		}
		name := l.Member
		if name == "" {
			name = l.Path
		}
		switch e := t.Entries[i]; e.Type {
		case image.File:
			out = append(out, resource{Name: name, Digest: sha256Set(e.Digest)})
		case image.Symlink:
			out = append(out, resource{Name: name, Content: []byte(e.Link), Media: "inode/symlink"})
		}
	}
	return out
}

func (g *Program) dependencies(toolchain string) []resource {
	out := []resource{{URI: packageURL("generic", "", "go", strings.TrimPrefix(toolchain, "go"))}}
	for _, f := range g.Files {
		out = append(out, resource{Name: f.Path, Digest: sha256Set(f.Digest)})
	}
	for _, m := range g.Modules {
		r := resource{URI: packageURL("golang", "", m.Path, m.Version)}
		if sum := dirHash(m.Sum); sum != "" {
			r.Digest = map[string]string{"dirHash": sum}
		}
		out = append(out, r)
	}
	return out
}

func sha256Set(d digest.Digest) map[string]string { return map[string]string{"sha256": d.Encoded()} }
