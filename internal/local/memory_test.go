package local

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

func TestProgramInMemoryRunsAndCannotBeChanged(t *testing.T) {
	f, err := inMemory("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // the test's own
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it could be written to")
	}
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if err := os.Truncate(path, 0); err == nil {
		t.Error("it could be truncated")
	}
	cmd := exec.Command(path, "-test.run", "^$")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("it does not run: %v\n%s", err, out)
	}
}
