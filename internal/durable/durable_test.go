package durable_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/durable"
)

var ways = map[string]func(string, []byte, os.FileMode) error{"Replace": durable.Replace, "Swap": durable.Swap}

func TestNewContentsAndMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for name, write := range ways {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			for _, text := range []string{"first, and longer", "second"} {
				if err := write(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != text {
					t.Errorf("%q %v, want %q", got, err, text)
				}
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
				t.Errorf("mode %v %v, want 0644 whatever the umask", info.Mode(), err)
			}
			alone(t, dir, "file")
		})
	}
}

// TestReadersKeepWhatTheyHave: a file is never written in place.
func TestReadersKeepWhatTheyHave(t *testing.T) {
	for name, write := range ways {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close() //nolint:errcheck // only read
			if err := write(path, []byte("new"), 0o600); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 8)
			if n, err := f.Read(got); err != nil || string(got[:n]) != "old" {
				t.Errorf("who had it open reads %q %v, want old", got[:n], err)
			}
		})
	}
}

// TestFailureLeavesNothing: the old contents stay, and no temporary file does.
func TestFailureLeavesNothing(t *testing.T) {
	for name, write := range ways {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "file") // cannot be replaced: it is a directory that is not empty
			if err := os.MkdirAll(filepath.Join(path, "old"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := write(path, []byte("new"), 0o600); err == nil {
				t.Error("no error")
			}
			alone(t, dir, "file")
			alone(t, path, "old")
		})
	}
	if err := durable.Replace(filepath.Join(t.TempDir(), "no", "file"), nil, 0o600); !os.IsNotExist(err) {
		t.Errorf("without its directory: %v", err)
	}
}

func alone(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("in %s: %v %v, want %s alone", dir, entries, err, name)
	}
}
