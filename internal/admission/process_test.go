package admission

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
)

// judgeProgram is the real program, built once.
var judgeProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ashlar-judge-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "ashlar-judge")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/ashlar-judge").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := judgeProgram(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func question(expr string) policy.Question {
	return policy.Question{Name: "p", Document: []byte("rules:\n  r:\n    why: x\n    allow: " + expr + "\n"), Facts: &policy.Facts{Env: "e", Kind: policy.Deploy, Now: now}}
}

// TestProcess: it is asked again and again, also after it was killed, and by many at once.
func TestProcess(t *testing.T) {
	path, err := judgeProgram()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Program: path}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a, err := p.Ask(t.Context(), question("kind == 'deploy'")); err != nil || a.Verdict == nil || !a.Verdict.Admitted {
				t.Errorf("%+v %v", a, err)
			}
		})
	}
	wg.Wait()
	if a, err := p.Ask(t.Context(), question("kind")); err != nil || len(a.Faults) != 1 || a.Faults[0].Kind != fault.Invalid {
		t.Errorf("%+v %v", a, err)
	}
	first := p.cmd.Process.Pid
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if a, err := p.Ask(t.Context(), question("1 == 1")); err == nil {
		t.Errorf("a process that was killed answered: %+v", a)
	}
	if a, err := p.Ask(t.Context(), question("1 == 1")); err != nil || !a.Verdict.Admitted || p.cmd.Process.Pid == first {
		t.Errorf("it is not started anew: %+v %v", a, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Ask(gone, question("1 == 1")); err == nil {
		t.Error("somebody who went away got an answer")
	}
}

// TestProcessFails: a program that is not there, says something else, or says nothing is
// an error, and it is not waited for without end.
func TestProcessFails(t *testing.T) {
	if _, err := (&Process{Program: "/nowhere/ashlar-judge"}).Ask(t.Context(), question("1 == 1")); err == nil || !strings.Contains(err.Error(), "put ashlar-judge beside ashlar") {
		t.Errorf("%v", err)
	}
	p := &Process{Program: "/bin/cat"} // it gives the question back
	if a, err := p.Ask(t.Context(), question("1 == 1")); err == nil && a.Verdict != nil {
		t.Errorf("%+v", a)
	}
	_ = p.Close()
	silent := filepath.Join(t.TempDir(), "silent")
	if err := os.WriteFile(silent, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	p = &Process{Program: silent}
	if _, err := p.Ask(soon, question("1 == 1")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
