package image_test

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// FuzzIndex: what is taken for an index is in the one form that it can have.
func FuzzIndex(f *testing.F) {
	sound, err := image.AssembleIndex([]image.Platform{{Architecture: "amd64", Manifest: digest.FromString("a"), Size: 1}, {Architecture: "arm64", Manifest: digest.FromString("b"), Size: 2}})
	if err != nil {
		f.Fatal(err)
	}
	if all, ok := image.ParseIndex(sound); !ok || len(all) != 2 {
		f.Fatalf("%s is not taken: %v", sound, all)
	}
	f.Add(sound)
	f.Add(bytes.Replace(sound, []byte(`"os":"linux"`), []byte(`"os":"plan9"`), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, ok := image.ParseIndex(b)
		if !ok {
			return
		}
		if again, err := image.AssembleIndex(all); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s passes for %s", b, again)
		}
	})
}
