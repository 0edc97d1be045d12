// Package oracle holds builds of Debian packages against a second implementation of the
// same, ledger.py: every byte and attribute of the nginx image of examples/site and of
// the redis image of examples/guestbook, and every line of their ledgers.
//
// It needs python3 and dpkg-deb, and the network for Debian's archive, as apt is set up
// on the host.
package oracle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// built is a component that was built by the program, exported, and explained.
type built struct {
	t                    *testing.T
	dir, state           string
	layout, ledger, name string
	copies               []string
}

// build copies an example, keeps one component of it, and builds that.
func build(t *testing.T, ashlar, example, component string, copies ...string) *built {
	t.Helper()
	work := t.TempDir()
	b := &built{
		t: t, dir: filepath.Join(work, "app"), state: filepath.Join(work, "state"), name: component, copies: copies,
		layout: filepath.Join(work, "image"), ledger: filepath.Join(work, "ledger.json"),
	}
	if err := os.CopyFS(b.dir, os.DirFS(filepath.Join("..", "..", "examples", example))); err != nil {
		t.Fatal(err)
	}
	b.only()
	b.run(ashlar, "build", "--export", b.layout)
	write(t, b.ledger, b.run(ashlar, "explain", component, "--output", "json"))
	return b
}

// only drops the components that are no part of the test: they need a Go module around.
func (b *built) only() {
	b.t.Helper()
	name := filepath.Join(b.dir, "ashlar.yaml")
	text, err := os.ReadFile(name)
	if err != nil {
		b.t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), "\n  web:\n    needs:")
	if !ok {
		return
	}
	_, tail, ok := strings.Cut(rest, "\nenvironments:")
	if !ok {
		b.t.Fatal("ashlar.yaml is not as expected")
	}
	write(b.t, name, []byte(head+"\nenvironments:"+tail))
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (b *built) run(args ...string) []byte {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), "ASHLAR_DIR="+b.state)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%v: %v\n%s", args, err, &stderr)
	}
	return out
}

// judge asks the oracle, and gives what it says and whether it agrees.
func (b *built) judge(layout, ledger string) (string, bool) {
	b.t.Helper()
	script, err := filepath.Abs("ledger.py")
	if err != nil {
		b.t.Fatal(err)
	}
	args := []string{script, "--lock", "ashlar.lock", "--component", b.name, "--objects", filepath.Join(b.state, "objects")}
	for _, c := range b.copies {
		args = append(args, "--copy", c)
	}
	if layout != "" {
		args = append(args, "--image", layout)
	}
	if ledger != "" {
		args = append(args, "--ledger", ledger)
	}
	cmd := exec.CommandContext(b.t.Context(), "python3", args...)
	cmd.Dir = b.dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		b.t.Fatalf("the oracle: %v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("entries, ")) {
		b.t.Fatalf("the oracle did not come to the end:\n%s", out)
	}
	return string(out), err == nil
}

func program(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ashlar")
	if out, err := exec.Command("go", "build", "-o", name, "../../cmd/ashlar").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return name
}

func TestOracle(t *testing.T) {
	ashlar := program(t)
	site := build(t, ashlar, "site", "web", "www:/srv/www")
	redis := build(t, ashlar, "guestbook", "redis")
	for _, b := range []*built{site, redis} {
		out, agrees := b.judge(b.layout, b.ledger)
		t.Logf("%s:\n%s", b.name, out)
		if !agrees || strings.Count(out, " 0 unexplained, 0 missing, 0 different") != 2 {
			t.Errorf("%s: the two implementations do not agree", b.name)
		}
	}
	t.Run("planted", site.planted)
}

// planted changes an entry of the image in each of its attributes, and lines of the
// ledger. The oracle must name each, and nothing else.
func (b *built) planted(t *testing.T) {
	changes := map[string]func(h *tar.Header, body *[]byte){
		"usr/sbin/nginx":  func(_ *tar.Header, body *[]byte) { (*body)[1000] ^= 1 },
		"usr/bin/debconf": func(h *tar.Header, _ *[]byte) { h.Mode = 0o4755 },
		"etc/passwd":      func(h *tar.Header, _ *[]byte) { h.Uid = 33 },
		"etc/group":       func(h *tar.Header, _ *[]byte) { h.Gid = 33 },
		"etc/nginx":       func(h *tar.Header, _ *[]byte) { h.ModTime = h.ModTime.AddDate(0, 0, 1) },
		"bin":             func(h *tar.Header, _ *[]byte) { h.Linkname = "tmp" },
		"usr/lib/os-release": func(h *tar.Header, _ *[]byte) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "x"}
		},
		"etc/nsswitch.conf": func(h *tar.Header, _ *[]byte) { h.Name = "etc/planted" },
	}
	rewrite(t, b.layout, func(h *tar.Header, body *[]byte) {
		if change := changes[strings.TrimSuffix(h.Name, "/")]; change != nil {
			change(h, body)
		}
	})
	b.named("the image", b.layout, "", "1 unexplained, 1 missing, 7 different",
		"unexplained: etc/planted", "missing: etc/nsswitch.conf", "different: /usr/sbin/nginx: digest", "different: /usr/bin/debconf: mode",
		"different: /etc/passwd: uid", "different: /etc/group: gid", "different: /etc/nginx: mtime", "different: /bin: link",
		"different: /usr/lib/os-release: xattrs")

	lines := map[string]func(line, from map[string]any){
		"usr/sbin/nginx":                      func(_, from map[string]any) { from["name"] = "nginx-light" },
		"usr/bin/debconf":                     func(_, from map[string]any) { from["digest"] = "sha256:00" },
		"usr/lib/x86_64-linux-gnu/libc.so.6":  func(line, _ map[string]any) { line["member"] = "lib/other" },
		"etc/passwd":                          func(_, from map[string]any) { from["name"] = "accounts/2" },
		"var/log/nginx":                       func(line, _ map[string]any) { delete(line, "amended") },
		"usr/share/doc/nginx-light/copyright": func(line, _ map[string]any) { line["size"] = 1 },
		"srv/www/index.html":                  func(line, _ map[string]any) { line["path"] = "srv/www/other.html" },
	}
	text, err := os.ReadFile(b.ledger)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for _, l := range doc["entries"].([]any) {
		line := l.(map[string]any)
		if change := lines[line["path"].(string)]; change != nil {
			change(line, line["from"].(map[string]any))
		}
	}
	changed, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	write(t, b.ledger, changed)
	b.named("the ledger", "", b.ledger, "1 unexplained, 1 missing, 6 different",
		"unexplained: srv/www/other.html", "missing: srv/www/index.html", "different: /usr/sbin/nginx: origin", "different: /usr/bin/debconf: origin",
		"different: /usr/lib/x86_64-linux-gnu/libc.so.6: member", "different: /etc/passwd: origin", "different: /var/log/nginx: amended",
		"different: /usr/share/doc/nginx-light/copyright: size")
}

// named asks the oracle about something changed.
func (b *built) named(what, layout, ledger string, want ...string) {
	b.t.Helper()
	out, agrees := b.judge(layout, ledger)
	for _, w := range want {
		if agrees || !strings.Contains(out, w) {
			b.t.Errorf("the oracle says of %s, which was changed, nothing of %q:\n%s", what, w, out)
		}
	}
}

// rewrite changes members of every layer of a layout. Digests are left as they are: the
// oracle is asked about files.
func rewrite(t *testing.T, layout string, change func(h *tar.Header, body *[]byte)) {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(layout, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range blobs {
		old, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if old[0] == '{' {
			continue
		}
		var out bytes.Buffer
		r, w := tar.NewReader(bytes.NewReader(old)), tar.NewWriter(&out)
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			change(h, &body)
			h.Format = tar.FormatPAX
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(body); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, name, out.Bytes())
	}
}
