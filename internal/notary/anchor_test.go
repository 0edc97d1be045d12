package notary

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// A file anchor gets a checkpoint when it is time and the record grew, and at the
// end; each is one that an auditor can compare with.
func TestAnchorFile(t *testing.T) {
	p := newPlace(t)
	p.append(t, "x", 3)
	file := filepath.Join(t.TempDir(), "anchor")
	c := p.config()
	var err error
	if c.Anchor, err = NewAnchor(file); err != nil {
		t.Fatal(err)
	}
	n := p.notary(t, c)
	n.look(t.Context()) // the first
	p.append(t, "y", 1)
	n.look(t.Context()) // too early
	if raw, err := os.ReadFile(file); err != nil || strings.Count(string(raw), n.signer.Name()+"\n") != 1 {
		t.Errorf("a moment later: %v\n%s", err, raw)
	}
	p.now = p.now.Add(time.Hour)
	n.look(t.Context()) // the second
	p.now = p.now.Add(time.Hour)
	n.look(t.Context()) // nothing new
	p.append(t, "z", 1)
	if err := n.Close(t.Context()); err != nil { // the third
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := record.SplitCheckpoints(raw)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int64
	for _, signed := range notes {
		c, err := record.OpenCheckpoint(signed, n.verifier)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, c.Size)
	}
	if len(sizes) != 3 || sizes[0] != 3 || sizes[1] != 4 || sizes[2] != 5 {
		t.Errorf("anchored %v", sizes)
	}
}

func TestAnchorGit(t *testing.T) {
	repository := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("git", append([]string{"-C", repository}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if _, err := NewAnchor(repository); fault.Of(err) == nil || fault.Of(err).Kind != fault.Invalid {
		t.Errorf("a directory that is no repository: %v", err)
	}
	git("init", "--quiet")
	p := newPlace(t)
	p.append(t, "x", 3)
	c := p.config()
	var err error
	if c.Anchor, err = NewAnchor(repository); err != nil {
		t.Fatal(err)
	}
	n := p.notary(t, c)
	n.look(t.Context())
	p.append(t, "y", 4)
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	log := strings.Split(strings.TrimSpace(git("log", "--format=%s")), "\n")
	if len(log) != 2 || !strings.Contains(log[0], ": 7 entries, root ") || !strings.Contains(log[1], ": 3 entries") {
		t.Errorf("%q", log)
	}
	files := strings.Fields(git("ls-files"))
	if len(files) != 1 || !strings.HasSuffix(files[0], ".checkpoint") {
		t.Errorf("%q", files)
	}
	if status := git("status", "--porcelain"); status != "" {
		t.Errorf("left: %s", status)
	}
}
