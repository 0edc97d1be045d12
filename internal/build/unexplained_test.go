package build

import (
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// TestUnexplained builds layers of sources that do not say where all is from.
func TestUnexplained(t *testing.T) {
	root := image.Entry{Path: ".", Type: image.Dir, Mode: 0o755}
	planted := image.Entry{Path: "planted", Type: image.Dir, Mode: 0o755}
	tree := image.Tree{Entries: []image.Entry{root, planted}}
	silent := made{entries: tree.Entries}
	if _, err := explained(silent, image.Tree{}, tree, nil); err == nil || !strings.Contains(err.Error(), "unexplained") {
		t.Errorf("a source that says nothing: %v", err)
	}
	nowhere := made{entries: tree.Entries, explain: func(w *ledger.Writer) func(int) (ledger.Line, error) {
		w.Origin(ledger.Parents)
		return func(i int) (ledger.Line, error) { return ledger.Line{Origin: i}, nil } // there is one origin, of index 0
	}}
	ch, err := explained(nowhere, image.Tree{}, tree, nil)
	if err == nil {
		_, err = ch.Canonical()
	}
	if err == nil || !strings.Contains(err.Error(), `"planted"`) {
		t.Errorf("an entry from an origin that is not there: %v", err)
	}
}
