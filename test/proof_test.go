package e2e

import (
	"bytes"
	"compress/flate"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// What runs of the guestbook is proven by one file, in a container that has nothing but
// the program, the file and a trust root, and no network. On the host its bytes are
// compared too. A server whose database was edited by hand cannot prove it any more.
func TestProof(t *testing.T) {
	keys := t.TempDir()
	t.Setenv("ASHLAR_KEYS", keys)
	a := newHost(t).example("guestbook")
	for _, role := range []string{"root", "release", "builder"} {
		a.ashlar("key", "new", filepath.Join(keys, role), "--no-passphrase").ok()
	}
	root := filepath.Join(keys, "trust.json")
	key := func(role string) string { return role + "=" + filepath.Join(keys, role) }
	a.ashlar("trust", "init", root, "--sign", filepath.Join(keys, "root.key"), "--add", key("root"), "--add", key("release"), "--add", key("builder"),
		"--log", strings.TrimSpace(a.ashlar("log", "key").ok().stdout)).ok()
	a.ashlar("trust", "install", root).ok()
	a.edit("ashlar.yaml", "pause: 2s", "pause: 100ms")
	a.edit("ashlar.yaml", "bake: 2s", "bake: 100ms")
	a.password(">marble-one")
	a.deploy()
	a.settled()

	c := a.container(root)
	a.ashlar("proof", a.env, "--to", filepath.Join(c.dir, "proof")).ok().says("3 instances of production")
	c.verify("--require", "ledger,provenance,spdx,cyclonedx").ok("done +signature +redis", "done +ledger +redis", "done +spdx +web", "done +signature +web", "done +instance +guestbook-production-redis-", "NOT done +bytes", "no witness saw it", "verified: 3 instances of guestbook/production")
	c.verify("--require", "approval").refused("NOT done: approval")
	c.edit("proof", func(text []byte) []byte { return bytes.Replace(text, []byte("-redis-"), []byte("-redix-"), 1) })
	c.verify().refused("failed: instance guestbook-production-redix-")
	a.ashlar("verify", a.env, "--trust-root", root).ok().says("its root is what was sealed", "verified: 3 instances")

	// A byte on disk is another: the host says which.
	a.damaged("/usr/bin/web", func() {
		a.ashlar("verify", a.env, "--trust-root", root).failed(fault.Refused.ExitCode(), "bytes seal", "/usr/bin/web")
		t.Attr("refused", "bytes <- one bit of a file of a running instance, on disk")
	})

	// Somebody edits the database: entries of the record, then what is deployed.
	const open = "DROP TRIGGER entries_are_not_changed;"
	for what, edit := range map[string]struct {
		do    func(db *sql.DB) error
		check string
	}{
		"who added the release": {executes(open + `UPDATE entries SET leaf = replace(leaf, '"actor":"root@', '"actor":"toor@') WHERE leaf LIKE '%"release.added"%'`), "failed: record"},
		"what was ordered":      {executes(open + `UPDATE entries SET leaf = replace(leaf, '-web-', '-wex-') WHERE leaf LIKE '%"instance.ordered"%'`), "failed: instance guestbook-production-web-"},
		"what is deployed":      {editsRelease, ""}, // not even a proof is to be had
	} {
		t.Logf("edited: %s", what)
		a.stop()
		state := []string{"ashlar.db", "log.checkpoint"} // the latter would tell the server that somebody went back
		for _, name := range state {
			copyFile(t, filepath.Join(keys, name), a.dirOf(name))
		}
		db, err := sql.Open("sqlite", a.dirOf("ashlar.db"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(edit.do(db), db.Close()); err != nil {
			t.Error(err)
		}
		a.start()
		if r := a.ashlar("proof", a.env, "--to", filepath.Join(c.dir, "proof")); edit.check == "" {
			r.failed(fault.Refused.ExitCode(), "is damaged in the database")
			t.Attr("refused", "is damaged in the database <- edited by hand: "+what)
		} else {
			r.ok()
			c.verify().refused(edit.check)
			t.Attr("refused", strings.Fields(edit.check)[1]+" <- edited by hand: "+what)
		}
		a.stop()
		for _, name := range state {
			copyFile(t, a.dirOf(name), filepath.Join(keys, name))
		}
		a.start()
	}
	a.ashlar("proof", a.env, "--to", filepath.Join(c.dir, "proof")).ok()
	c.verify().ok("verified: 3 instances")
}

func executes(statement string) func(*sql.DB) error {
	return func(db *sql.DB) error {
		_, err := db.Exec(statement)
		return err
	}
}

// editsRelease has the release run another program.
func editsRelease(db *sql.DB) error {
	var packed []byte
	if err := db.QueryRow("SELECT doc FROM releases").Scan(&packed); err != nil {
		return err
	}
	doc, err := io.ReadAll(flate.NewReader(bytes.NewReader(packed)))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := w.Write(bytes.ReplaceAll(doc, []byte("/usr/bin/web"), []byte("/usr/bin/xeb"))); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err = db.Exec("UPDATE releases SET doc = ?", out.Bytes())
	return err
}

// container is a directory with the program, a trust root and what else is put there.
type container struct {
	t   *testing.T
	dir string
}

func (a *app) container(root string) container {
	a.t.Helper()
	c := container{a.t, a.t.TempDir()}
	copyFile(a.t, filepath.Join(c.dir, "ashlar"), filepath.Join(bin, "ashlar"))
	copyFile(a.t, filepath.Join(c.dir, "trust.json"), root)
	if err := os.Chmod(filepath.Join(c.dir, "ashlar"), 0o755); err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (c container) edit(name string, change func([]byte) []byte) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, name), change(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// verified is what a verification in the container said.
type verified struct {
	t    *testing.T
	out  string
	code int
}

// verify runs in namespaces of its own, without a network, with the directory as its
// whole file system.
func (c container) verify(more ...string) verified {
	c.t.Helper()
	cmd := exec.Command("/ashlar", append([]string{"verify", "/proof", "--trust-root", "/trust.json"}, more...)...)
	cmd.Dir, cmd.Env = "/", []string{"NO_COLOR=1", "PATH=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.dir, Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	out, err := cmd.CombinedOutput()
	v := verified{c.t, string(out), 0}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		v.code = exit.ExitCode()
	} else if err != nil {
		c.t.Fatal(err)
	}
	return v
}

func (v verified) ok(words ...string) {
	v.t.Helper()
	if v.code != 0 {
		v.t.Fatalf("exit status %d\n%s", v.code, v.out)
	}
	v.says(words...)
}

func (v verified) refused(words ...string) {
	v.t.Helper()
	if v.code != fault.Refused.ExitCode() {
		v.t.Fatalf("exit status %d, want a refusal\n%s", v.code, v.out)
	}
	v.says(words...)
}

// says looks for words; " +" stands for any space.
func (v verified) says(words ...string) {
	v.t.Helper()
	text := strings.Join(strings.Fields(v.out), " ")
	for _, w := range words {
		if !strings.Contains(text, strings.ReplaceAll(w, " +", " ")) {
			v.t.Errorf("it does not say %q:\n%s", w, v.out)
		}
	}
}

// damaged changes a byte of a file of a sealed tree while do runs.
func (a *app) damaged(path string, do func()) {
	a.t.Helper()
	var files []struct {
		Digest string `json:"digest"`
	}
	a.ashlar("seal", "ls", a.env+"/web", path, "-o", "json").ok().into(&files)
	hex := strings.TrimPrefix(files[0].Digest, "sha256:")
	file := filepath.Join(a.dirOf("objects"), hex[:2], hex[2:])
	good, err := os.ReadFile(file)
	if err != nil {
		a.t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	for _, content := range [][]byte{bad, good} {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			a.t.Fatal(err)
		}
		if _, err := f.WriteAt(content[len(content)-1:], int64(len(content)-1)); err != nil {
			a.t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			a.t.Fatal(fmt.Errorf("damage %s: %w", file, err))
		}
		if content[len(content)-1] == bad[len(bad)-1] {
			do()
		}
	}
}
