package build

import (
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/object"
)

// RefArtifact is the kind of references from an artifact (the hex of its manifest's
// digest) to the seal of its merged tree.
const RefArtifact = "artifact"

// Kinds of references that remember what was made from what. Each, and RefArtifact, is
// set only after everything it stands for is durable.
const (
	refLayer    = "layer"    // hex of a tree's digest to the OCI descriptor of its layer
	refLedger   = "ledger"   // hex of a manifest's digest to the ledger of the newest build that made it
	refSettings = "settings" // hex of a settings tree's digest to its seal
	refGo       = "go"       // hex over the inputs of a Go program to its executable
)

// recall gives what a reference leads to, if that is still stored, and notes the use.
func recall(objects *object.Store, kind, name string) (digest.Digest, bool) {
	d, err := objects.Ref(kind, name)
	if err != nil || !objects.Has(d) {
		return "", false
	}
	_ = objects.TouchRef(kind, name) // at worst it is collected early and made again
	return d, true
}
