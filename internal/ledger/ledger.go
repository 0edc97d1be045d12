// Package ledger is the byte ledger of an artifact: it says of every entry of its
// file tree where it comes from, which is one member of one input or one named
// rule, and never both or neither.
//
// A ledger is three kinds of objects, so that a change of one file costs little:
//
//   - the [Ledger], a small document that names the artifact, its seal, and of each
//     layer the file tree (image.Tree.Marshal, an object that is there anyway, with
//     the mode, owner, time, size, digest and link of every entry) and the chapter;
//   - a [Chapter] for each layer: its origins, and one line for each entry. It holds
//     no digest of a file, so it stays the same object when only bytes change.
//
// [Read] puts them together to a [Book], in which every entry of the artifact's root
// has its attributes, its layer and its origin. [Check] holds a book against a tree;
// [SPDX], [CycloneDX] and [Provenance] are functions of a book.
//
// Ledger and chapter are JSON in the canonical form of RFC 8785. The package does no
// input or output; it reads objects through [Objects]. Who makes a ledger is package
// build. FuzzChapter, FuzzLedger and TestPlanted prove the reading, TestLedger of
// package build the making.
package ledger

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// The values of Ledger.Schema and Chapter.Schema.
const (
	Schema        = "ashlar.dev/ledger/v1"
	ChapterSchema = "ashlar.dev/ledger-chapter/v1"
)

// Ledger is the byte ledger of one artifact.
type Ledger struct {
	Arch      string        `json:"arch"`      // GOARCH
	Artifact  digest.Digest `json:"artifact"`  // of the OCI manifest
	Component string        `json:"component"` // whose artifact it is
	Layers    []Layer       `json:"layers"`    // bottom first, as in the manifest
	Schema    string        `json:"schema"`
	Seal      digest.Digest `json:"seal"` // of the sealed tree
}

// Layer is one layer of an artifact.
type Layer struct {
	Chapter digest.Digest `json:"chapter"` // of the object that holds the Chapter
	Tree    digest.Digest `json:"tree"`    // of the object that holds the image.Tree
}

// Chapter explains every entry of one layer.
type Chapter struct {
	Lines   []Line   `json:"lines"`   // sorted by path as image.Tree is, one for each entry
	Origins []Origin `json:"origins"` // what lines refer to by index, and inputs that no entry comes from
	Schema  string   `json:"schema"`
	Source  string   `json:"source"` // what the definition asked for, for people
}

// Line says where one entry comes from.
type Line struct {
	Path    string // as in image.Entry
	Origin  int    // index in Chapter.Origins
	Member  string // name within the input; empty: the same as Path
	Amended []int  // rules that changed owner, mode or time of the member; indexes in Chapter.Origins, ascending
}

// Kind is what kind of thing an origin is.
type Kind string

// The kinds of origins. All but KindRule are inputs.
const (
	KindDebian  Kind = "debian"  // a Debian package: the entry is a member of its data.tar
	KindArchive Kind = "archive" // a Debian archive's signed InRelease, by which packages were chosen; no entry comes from it
	KindGo      Kind = "go"      // a program that was compiled: the entry is the compiler's output
	KindFile    Kind = "file"    // the definition's directory: the entry's bytes are those of the member
	KindImage   Kind = "image"   // an OCI image, opaque: what its files are made of is not known here
	KindRule    Kind = "rule"    // no input but a rule of this program, named and versioned
)

// Origin is an input, or a rule.
type Origin struct {
	Kind          Kind          `json:"kind"`
	Name          string        `json:"name"`                    // of the package, suite, main package or image; "." for files; such as usrmerge/1 for a rule
	Version       string        `json:"version,omitempty"`       // of a Debian package or release, or the Go toolchain
	Arch          string        `json:"arch,omitempty"`          // Debian's or Go's name of it
	Digest        digest.Digest `json:"digest,omitempty"`        // of the .deb, the InRelease file or the image's manifest
	Size          int64         `json:"size,omitempty"`          // bytes of what Digest names
	Place         string        `json:"place,omitempty"`         // URL of the .deb or the archive
	Distribution  string        `json:"distribution,omitempty"`  // of a Debian package: codename, such as bookworm
	Source        string        `json:"source,omitempty"`        // of a Debian package: the source package
	SourceVersion string        `json:"sourceVersion,omitempty"` // likewise
	Date          string        `json:"date,omitempty"`          // of an archive's InRelease, RFC 3339
	Signer        string        `json:"signer,omitempty"`        // of it: fingerprint of the key, upper-case hex
	Text          string        `json:"text,omitempty"`          // of a rule: what it does and why; of an image: how it was made, if that is known
	Go            *Program      `json:"go,omitempty"`            // of a program
}

// Program is what a Go program was made of. The toolchain, standard library included,
// is known by its version alone (Origin.Version).
type Program struct {
	Module  string   `json:"module,omitempty"`  // path of the main module
	Flags   []string `json:"flags,omitempty"`   // of go build
	Files   []File   `json:"files,omitempty"`   // all that is outside the module cache, sorted by path
	Modules []Module `json:"modules,omitempty"` // in the executable, as the linker recorded them
}

// File is a source file.
type File struct {
	Path   string        `json:"path"` // relative to the definition's directory
	Digest digest.Digest `json:"digest"`
}

// Module is a module from the module cache.
type Module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Sum     string `json:"sum,omitempty"` // h1:, as in go.sum
}

// Rules that are no source's own.
var (
	// Parents is for directories that no source names but that its entries are in.
	Parents = Origin{Kind: KindRule, Name: "parents/1", Text: "a directory that the path of another entry implies: mode 0755, owner root"}
	// Below is for directories that a layer repeats because it has entries in them. In
	// the artifact's root they are explained by the layer below.
	Below = Origin{Kind: KindRule, Name: "below/1", Text: "a directory of the layer below, repeated as it is there"}
)

// RuleMinimise is the rule by which entries are left out. It explains no entry: it
// stands in a chapter beside the packages, which remain inputs although nothing of
// some is left. A bill of materials names those of which files remain.
const RuleMinimise = "minimise/1"

// Writer puts a chapter together.
type Writer struct {
	chapter Chapter
	index   map[key]int
}

// key tells origins apart. A chapter has one program at most under a name.
type key struct {
	kind          Kind
	name, version string
	digest        digest.Digest
}

// NewWriter begins the chapter of a source.
func NewWriter(source string) *Writer {
	return &Writer{chapter: Chapter{Schema: ChapterSchema, Source: source, Lines: []Line{}, Origins: []Origin{}}, index: map[key]int{}}
}

// Grow makes room for n lines.
func (w *Writer) Grow(n int) { w.chapter.Lines = slices.Grow(w.chapter.Lines, n) }

// Origin gives the index of an origin, which it adds if it is new.
func (w *Writer) Origin(o Origin) int {
	k := key{o.Kind, o.Name, o.Version, o.Digest}
	i, ok := w.index[k]
	if !ok {
		i = len(w.chapter.Origins)
		w.index[k] = i
		w.chapter.Origins = append(w.chapter.Origins, o)
	}
	return i
}

// Line adds a line. Lines may come in any order. A member that is the path is left out.
func (w *Writer) Line(l Line) {
	if l.Member == l.Path {
		l.Member = ""
	}
	w.chapter.Lines = append(w.chapter.Lines, l)
}

// Chapter is what was written.
func (w *Writer) Chapter() Chapter {
	byPath := func(a, b Line) int { return image.ComparePaths(a.Path, b.Path) }
	if !slices.IsSortedFunc(w.chapter.Lines, byPath) {
		slices.SortStableFunc(w.chapter.Lines, byPath)
	}
	return w.chapter
}
