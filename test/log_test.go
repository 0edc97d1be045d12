package e2e

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// The record is checked from outside, with keys alone; a witness cosigns it; and a
// database that was put back to yesterday is found: by the server that comes back,
// by the witness, and by whoever saw the record before.
func TestRecordFromOutside(t *testing.T) {
	a := newHost(t).guest()
	dir := t.TempDir()
	key := strings.TrimSpace(a.ashlar("log", "key").ok().stdout)
	witnessKey := a.witness(dir, key)
	address, witness := freeAddress(t), freeAddress(t)
	w := a.spawnProgram("ashlar-witness", "serve", "--dir", filepath.Join(dir, "witness"), "--log", key, "--listen", witness)
	t.Cleanup(func() { w.end(t) })
	a.stop()
	a.flags = []string{"--log-listen", address, "--witness", witnessKey + " http://" + witness, "--anchor", filepath.Join(dir, "anchor")}
	a.start()
	a.deploy()

	seen := filepath.Join(dir, "seen")
	outside := []string{"log", "verify", "--url", "http://" + address, "--log-key", key, "--witness-key", witnessKey, "--checkpoint", seen}
	a.await("the witness to cosign all of it", func() error { return a.ashlar("log", "verify", "--witness-key", witnessKey).problem() })
	a.ashlar(outside...).ok().says("the record is intact", "cosigned by w.example/1", "the first checkpoint")
	proof := a.ashlar("log", "prove", "3").ok().stdout
	if err := os.WriteFile(filepath.Join(dir, "proof"), []byte(proof), 0o644); err != nil {
		t.Fatal(err)
	}

	a.stop()
	copyFile(t, filepath.Join(dir, "yesterday"), a.dirOf("ashlar.db"))
	a.start()
	a.deployed("MARK", "1")
	a.ashlar(outside...).ok().says("it begins with what was seen before: 1 checkpoint")
	resp, err := http.Post("http://"+address+"/checkpoint", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("who writes gets %d, %v", resp.StatusCode, err)
	}

	// The database as it was before the last change: the server does not start on it.
	a.stop()
	copyFile(t, a.dirOf("ashlar.db"), filepath.Join(dir, "yesterday"))
	again := a.spawn("server")
	<-again.done
	var exit *exec.ExitError
	if !errors.As(again.err, &exit) || exit.ExitCode() != fault.Refused.ExitCode() || !strings.Contains(a.said.from(0), "verdict: rolled-back") {
		t.Errorf("a server on an older database: %v\n%s", again.err, a.said.from(0))
	}
	t.Attr("refused", "rolled-back <- a server on yesterday's database")
	// Without a network or server what was proven stays proven.
	a.ashlar("log", "check", filepath.Join(dir, "proof"), "--log-key", key).ok().says("it is entry 3 of the record")

	// Whoever hides that from the server is found by who saw the record before, and
	// the witness does not cosign.
	if err := os.Remove(a.dirOf("log.checkpoint")); err != nil {
		t.Fatal(err)
	}
	a.flags = a.flags[:4]
	a.start()
	a.ashlar(outside...).failed(fault.Refused.ExitCode(), "verdict: unwitnessed")
	t.Attr("refused", "unwitnessed <- a record of yesterday, hidden from the server")
	if r := a.ashlar("log", "verify", "--checkpoint", seen).failed(fault.Refused.ExitCode()); !strings.Contains(r.stderr, "verdict: rolled-back") && !strings.Contains(r.stderr, "verdict: forked") {
		t.Error(r)
	}

	// The loss is accepted, and the record says so.
	a.stop()
	a.ashlar("log", "renew").failed(fault.Invalid.ExitCode(), "without a reason")
	a.ashlar("log", "renew", "--reason", "a test").ok().says("the log is now")
	a.flags = nil
	a.start()
	a.ashlar("log").ok().says("record.renewed", "a test")
}

// witness makes a witness and gives its public key.
func (a *app) witness(dir, log string) string {
	a.t.Helper()
	out, err := exec.Command(filepath.Join(bin, "ashlar-witness"), "init", "--dir", filepath.Join(dir, "witness"), "--name", "w.example/1").Output()
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// deployed changes a setting and deploys.
func (a *app) deployed(name, to string) {
	a.t.Helper()
	a.edit("ashlar.yaml", name+`: "0"`, name+`: "`+to+`"`)
	a.deploy()
}

func (h *host) dirOf(name string) string { return filepath.Join(h.dir, name) }

// problem is nil for a command that succeeded.
func (r result) problem() error {
	if r.code != 0 {
		return errors.New(r.String())
	}
	return nil
}

// end ends a process that the test started.
func (p *process) end(t *testing.T) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	<-p.done
}

// copyFile copies a database that nobody has open.
func copyFile(t *testing.T, to, from string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
