package seal

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/object"
)

// TestTry: what mounts is told from what does not, and neither is left mounted.
func TestTry(t *testing.T) {
	s := newStore(t)
	good, top := put(t, s, richTree(t, s)), put(t, s, richTree(t, s))
	before := mounts(t)
	if err := Try(s.Path(), top, good); err != nil {
		t.Fatal(err)
	}
	rel, err := object.Rel(good)
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(s.Path(), rel)
	text, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	if err := Try(s.Path(), good); err == nil {
		t.Error("an image that is gone mounts")
	}
	if err := os.WriteFile(image, text, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := Try(s.Path(), good); err == nil {
		t.Error("an image that is another mounts")
	}
	if after := mounts(t); after != before {
		t.Errorf("mounts before:\n%s\nafter:\n%s", before, after)
	}
}

func mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
