package docs_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rules say what of an output may differ from the document: each match becomes its
// placeholder, in both.
var rules = []struct {
	match       *regexp.Regexp
	placeholder string
}{
	{regexp.MustCompile(`\b20\d\d[-/]\d\d[-/]\d\d \d\d:\d\d:\d\d(\.\d+)?`), "<time>"},
	{regexp.MustCompile(`(?m)^ *\d+  <time>`), "<index>  <time>"}, // of the record
	{regexp.MustCompile(`\b\d+\.\d\d s\b`), "<seconds>"},
	{regexp.MustCompile(`\b(\d+[dhms])+\b`), "<age>"},                         // how long ago, of status
	{regexp.MustCompile(`\b\d+(\.\d+)? (B|KiB|MiB|GiB)\b`), "<size>"},         // sizes differ with the Go version
	{regexp.MustCompile(`\bgo1\.\d+(\.\d+)?\b`), "<go version>"},              //
	{regexp.MustCompile(`\b\d+ entries, root \S{43}=`), "<head>"},             // the record's length and root hash
	{regexp.MustCompile(`\b\d+ of \d+ (requests failed )?\(`), "<counted> ("}, // how many requests an analysis has seen
	{regexp.MustCompile(`\broot@[\w.-]+`), "<who>"},                           //
	{regexp.MustCompile(`\b10\.213\.\d+\.\d+\b`), "<instance address>"},       // of the free block that was found
	{regexp.MustCompile(` {2,}`), "  "},                                       // columns are as wide as what is in them
}

var (
	digests = regexp.MustCompile(`sha256:([0-9a-f]{12})[0-9a-f]*`)
	// rehearsed is the line of status that is found out in the background: it may be there already or not yet.
	rehearsed = regexp.MustCompile(`^rollback: `)
	progress  = regexp.MustCompile(`^  <seconds>  \S+  \S+-\d+  (ordered|started|ready|leaving|stopping|removed)$`)
)

// normal makes outputs comparable. Digests become <digest 1>, <digest 2> and so on
// in the order in which they first appear in the document, so that it matters where
// the same one comes again.
type normal struct{ digests map[string]int }

func newNormal() *normal { return &normal{map[string]int{}} }

// lines gives an output as comparable lines. Successive lines of progress that tell
// of instances are sorted: which of two instances is ready first is left to chance.
func (n *normal) lines(output string) []string {
	output = digests.ReplaceAllStringFunc(output, func(d string) string {
		short := digests.FindStringSubmatch(d)[1]
		if n.digests[short] == 0 {
			n.digests[short] = len(n.digests) + 1
		}
		return fmt.Sprintf("<digest %d>", n.digests[short])
	})
	for _, r := range rules {
		output = r.match.ReplaceAllString(output, r.placeholder)
	}
	lines := strings.Split(strings.TrimRight(output, "\n"), "\n")
	lines = slices.DeleteFunc(lines, rehearsed.MatchString)
	begin := 0
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
		if !progress.MatchString(lines[i]) {
			slices.Sort(lines[begin:i])
			begin = i + 1
		}
	}
	slices.Sort(lines[begin:])
	return lines
}

func TestNormal(t *testing.T) {
	n := newNormal()
	a := n.lines("release 1 (sha256:7c7d7f7fae52) -> sha256:dec023774e05, sha256:7c7d7f7fae52b7c1107c  \n" +
		"   0.28 s  hello  a-2  ready\n   0.28 s  hello  a-1  ready\n   0.31 s  live: it serves\n")
	want := []string{"release 1 (<digest 1>) -> <digest 2>, <digest 1>",
		"  <seconds>  hello  a-1  ready", "  <seconds>  hello  a-2  ready", "  <seconds>  live: it serves"}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Error(diff)
	}
	for _, pair := range [][2]string{
		{"2 instances replaced", "3 instances replaced"},
		{"release 1 is live", "release 2 is live"},
		{"http://127.0.0.1:8090", "http://127.0.0.1:8091"},
		{"sha256:7c7d7f7fae52 sha256:7c7d7f7fae52", "sha256:7c7d7f7fae52 sha256:dec023774e05"},
		{"a\nb", "b\na"},
	} {
		if cmp.Equal(newNormal().lines(pair[0]), newNormal().lines(pair[1])) {
			t.Errorf("%q and %q count as the same", pair[0], pair[1])
		}
	}
}
