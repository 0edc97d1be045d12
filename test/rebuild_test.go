package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// A release is built anew from an exported tar, by another state directory, without a
// network: the same comes out, and the rebuilder's statement counts on the server. Other
// sources give something else, which is refused and not signed.
func TestRebuild(t *testing.T) {
	keys := t.TempDir()
	t.Setenv("ASHLAR_KEYS", keys)
	a := newHost(t).guest()
	root := filepath.Join(keys, "trust.json")
	init := []string{"trust", "init", root, "--sign", filepath.Join(keys, "root.key"), "--log", strings.TrimSpace(a.ashlar("log", "key").ok().stdout)}
	for _, role := range []string{"root", "release", "builder", "rebuilder"} {
		a.ashlar("key", "new", filepath.Join(keys, role), "--no-passphrase").ok()
		init = append(init, "--add", role+"="+filepath.Join(keys, role))
	}
	a.ashlar(init...).ok()
	a.ashlar("trust", "install", root).ok()
	a.deploy()
	a.ashlar("verify", a.env, "--require", "rebuild").failed(fault.Refused.ExitCode(), "NOT done: rebuild")

	dir := t.TempDir()
	inputs := filepath.Join(dir, "inputs.tar")
	a.ashlar("export", "1", "--to", inputs).ok()
	elsewhere := func(file string, code int, words ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(bin, "ashlar"), "rebuild", file, "--to", dir, "--dir", filepath.Join(dir, "state"))
		cmd.Env = append(os.Environ(), "GOPROXY=http://192.0.2.1", "https_proxy=http://192.0.2.1")
		out, _ := cmd.CombinedOutput() //nolint:errcheck // the status tells
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("exit status %d, want %d\n%s", got, code, out)
		}
		for _, w := range words {
			if !strings.Contains(string(out), w) {
				t.Errorf("it does not say %q:\n%s", w, out)
			}
		}
	}
	elsewhere(inputs, 0, "web  artifact", "the same")
	statement := filepath.Join(dir, "demo-web.rebuild.json")
	a.ashlar("statement", "attach", statement).ok().says("1 statement recorded and attached")
	a.ashlar("verify", a.env, "--trust-root", root, "--require", "rebuild,ledger,provenance").ok().says("rebuild", "by rebuilder")

	// The sources are not those of the release any more.
	if err := os.Remove(statement); err != nil {
		t.Fatal(err)
	}
	a.write("cmd/guest/more.go", "package main\n\nfunc init() { println(\"something else\") }\n")
	other := filepath.Join(dir, "other.tar")
	a.ashlar("export", "1", "--to", other).ok()
	elsewhere(other, fault.Refused.ExitCode(), "gave something else", "web: sha256:")
	t.Attr("refused", "gave something else <- other sources than the release's")
	if _, err := os.Stat(statement); err == nil {
		t.Error("what is another artifact was signed")
	}
}
