package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Mistakes in the definition are told with their place, all at once, and how to
// mend them. The tests of package definition have the rest.
func TestBadInput(t *testing.T) {
	a := newHost(t).guest()
	good := strings.ReplaceAll(guestYAML, "ADDRESS", a.address)
	tests := []struct {
		name, old, new string
		words          []string
	}{
		{"malformed", "      port: 8080", "      port: [8080", []string{"ashlar.yaml:"}},
		{"unknown key", "      drain: 20s", "      drian: 20s", []string{"ashlar.yaml:13:7: ", `"drian"`, "drain"}},
		{"wrong type", "port: 8080", "port: eighty", []string{"ashlar.yaml:8:13: ", "eighty"}},
		{"duration", "drain: 20s", "drain: 20", []string{"ashlar.yaml:13:14: ", "20s"}},
		{"missing file", "      drain: 20s", "      files: {/etc/web.conf: {from: web.conf}}", []string{"ashlar.yaml:13:", "web.conf"}},
		{"no such package", "./cmd/guest", "./cmd/nothing", []string{"ashlar.yaml:5:", "./cmd/nothing"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := a.within(t)
			if strings.Count(good, tt.old) != 1 {
				t.Fatalf("%q is not in the definition once", tt.old)
			}
			a.write("ashlar.yaml", strings.Replace(good, tt.old, tt.new, 1))
			for _, command := range [][]string{{"build"}, {"deploy", "production", "--yes"}} {
				a.ashlar(command...).failed(2, tt.words...)
			}
		})
	}
	a.write("ashlar.yaml", strings.NewReplacer("drain: 20s", "drian: 20s", "port: 8080", "port: eighty").Replace(good))
	r := a.ashlar("build", "-o", "json")
	var told struct{ Faults []fault.Error }
	if err := json.Unmarshal([]byte(r.stderr), &told); err != nil || r.code != 2 || len(told.Faults) != 2 {
		t.Errorf("two mistakes as JSON: %v, %s", err, r)
	}
	for _, f := range told.Faults {
		if f.Kind != fault.Invalid || f.Fix == "" || !strings.HasPrefix(f.Where, "ashlar.yaml:") {
			t.Errorf("as JSON: %+v", f)
		}
	}
	a.write("ashlar.yaml", good)
	a.ashlar("deploy", "prodution", "--yes").failed(3, "prodution", "production")
	a.ashlar("deploy", "--nonsense").failed(2, "nonsense")
	a.ashlar("build", "-f", "elsewhere.yaml").failed(3, "elsewhere.yaml", "ashlar init")
	a.ashlar("rollback", "production", "--yes").failed(3, "ashlar deploy")
	if n := len(a.entries(0)); n != 2 {
		t.Errorf("the record has %d entries; the starts of server and router are all that happened", n)
	}
}
