package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ashlar-infra/ashlar/internal/router"
)

var update = flag.Bool("update", false, "write the golden files of the scripts anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"ashlar": func() {
			if v := os.Getenv("ASHLAR_TEST_VERSION"); v != "" {
				version = v
			}
			os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// TestScript plays the stories of testdata/script: what commands answer, to the
// letter. Run it with -update to write the golden files anew.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("ASHLAR_DIR", env.WorkDir+"/state")
			env.Setenv("NO_COLOR", "1")
			env.Setenv("TZ", "UTC")
			env.Defer(func() { endRouter(t, env.WorkDir+"/state/run") })
			return nil
		},
	})
}

// endRouter ends what a story that failed left running.
func endRouter(t *testing.T, runDir string) {
	p := routerProcess{runDir: runDir, client: router.Dial(runDir), log: slog.New(slog.DiscardHandler)}
	if err := p.end(context.Background()); err != nil {
		t.Error(err)
	}
}
