package store

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		unlock, err := Lock(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Lock(t.Context(), dir)
		wantFault(t, err, fault.Conflict, dir, "its process is")
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		unlock, err = Lock(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		_, err = Lock(t.Context(), filepath.Join(dir, "nowhere"))
		wantFault(t, err, fault.Unavailable, "nowhere")
	})
}

// A killed server holds its lock a little longer than it lives.
func TestLockOutlastsWhoIsEnding(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ending, err := Lock(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(lockPatience/2, func() { _ = ending() })
		unlock, err := Lock(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
	})
}
