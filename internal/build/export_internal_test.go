package build

import (
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// ExplainFiles prepares a files source of n files, and gives what explains it once
// and returns the size of the chapter.
func ExplainFiles(n int) func() int {
	m := &matcher{}
	for i := range n {
		name := fmt.Sprintf("www/dir%02d/file%04d.html", i%40, i)
		m.found = append(m.found, found{name: name})
		m.entries = append(m.entries, image.Entry{Path: "srv/" + name, Type: image.File, Mode: 0o644, Size: 1, Digest: digest.FromString(name)})
	}
	tree, from, err := place(image.Tree{}, m.entries)
	if err != nil {
		panic(err)
	}
	return func() int {
		ch, err := explained(made{entries: m.entries, comment: "files", explain: m.explain}, image.Tree{}, tree, from)
		if err != nil {
			panic(err)
		}
		text, err := ch.Canonical()
		if err != nil {
			panic(err)
		}
		_ = digest.FromBytes(text)
		return len(text)
	}
}
