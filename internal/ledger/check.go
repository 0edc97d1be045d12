package ledger

import (
	"github.com/ashlar-infra/ashlar/internal/image"
)

// Verdict is what is wrong with an entry.
type Verdict string

// The verdicts of [Check].
const (
	Unexplained Verdict = "unexplained" // it is there, and the ledger knows nothing of it
	Missing     Verdict = "missing"     // the ledger explains it, and it is not there
	Different   Verdict = "different"   // it is not what the ledger says
)

// Finding is one entry that is not as the ledger has it.
type Finding struct {
	Path    string   `json:"path"`
	Verdict Verdict  `json:"verdict"`
	What    []string `json:"what,omitempty"` // of Different: each difference in words
}

// Check holds a book against a tree, such as the one that a seal has. No findings mean
// that every entry of the tree is explained, with all its attributes and its bytes'
// digest, and that nothing is missing.
func Check(b *Book, root image.Tree) []Finding {
	verdicts := map[image.ChangeKind]Verdict{image.Added: Unexplained, image.Removed: Missing, image.Changed: Different}
	var out []Finding
	for _, c := range image.Diff(b.Tree(), root) {
		out = append(out, Finding{c.Path, verdicts[c.Kind], c.What})
	}
	return out
}
