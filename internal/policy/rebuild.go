package policy

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// RebuildPredicate is what a statement of the kind rebuild says. It is about an artifact,
// and is worth something only if that is what came out.
type RebuildPredicate struct {
	Release   digest.Digest `json:"release"`   // whose inputs were built
	Component string        `json:"component"` // of the release
	Rebuilt   digest.Digest `json:"rebuilt"`   // artifact that came out
	Inputs    digest.Digest `json:"inputs"`    // of the tar that it was built from
	Ashlar    string        `json:"ashlar"`    // version of the program that built it
	Network   string        `json:"network"`   // "denied"
}

// ParseRebuild reads the predicate of a rebuild. What is unknown in it is refused: it may
// say less than it seems to.
func ParseRebuild(text []byte) (RebuildPredicate, error) {
	var p RebuildPredicate
	return p, strict(text, &p)
}

// Marshal gives the predicate as JSON.
func (p RebuildPredicate) Marshal() ([]byte, error) { return json.Marshal(p) }

// RebuildOf reads the predicate of a rebuild, and gives an error unless it says that
// building this component of this release anew gave this artifact.
func RebuildOf(text []byte, release digest.Digest, component string, artifact digest.Digest) (RebuildPredicate, error) {
	p, err := ParseRebuild(text)
	switch {
	case err != nil:
		return p, fmt.Errorf("it cannot be read: %w", err)
	case p.Rebuilt == "":
		return p, fmt.Errorf("it does not say what came out")
	case p.Rebuilt != artifact:
		return p, fmt.Errorf("something different came out: %.60s", p.Rebuilt)
	case p.Release != release:
		return p, fmt.Errorf("it is of another release: %.60q", p.Release)
	case p.Component != component:
		return p, fmt.Errorf("it is of another component: %.60q", p.Component)
	}
	return p, nil
}
