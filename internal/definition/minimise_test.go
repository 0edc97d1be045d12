package definition_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/definition"
)

func minimised(with string) (*definition.Definition, error) {
	text := "app: a\ncomponents:\n  b:\n    build:\n      - debian:\n          suite: bookworm\n          packages: [redis-server]\n          minimise: " + with +
		"\n    run: {command: [/usr/bin/redis-server]}\nenvironments: {production: {}}\n"
	return definition.Parse("ashlar.yaml", []byte(text), nil)
}

// A minimised source has a run test; what is wrong is said with its place.
func TestMinimise(t *testing.T) {
	d, err := minimised("{keep: [/usr/bin/x*], test: [/usr/bin/redis-server, --version]}")
	if err != nil {
		t.Fatal(err)
	}
	m := d.Components[0].Build[0].Debian.Minimise
	if m.Timeout != 30*time.Second || m.Keep[0] != "usr/bin/x*" || len(m.Test) != 2 {
		t.Errorf("%+v", m)
	}
	for with, want := range map[string]string{
		"{}":                         "ashlar.yaml:8:",
		"{keep: [/x]}":               "test",
		"{test: []}":                 "ashlar.yaml:8:28",
		"{test: [redis]}":            `ashlar.yaml:8:29: the run test "redis" is not an absolute path`,
		"{test: [/x], keep: [x]}":    "ashlar.yaml:8:41",
		"{test: [/x], keep: ['/[']}": "ashlar.yaml:8:41: glob",
	} {
		if _, err := minimised(with); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: it does not say %q: %v", with, want, err)
		}
	}
}
