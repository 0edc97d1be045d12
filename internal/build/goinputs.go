package build

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// goInputs are the packages a program is made of, apart from the standard library
// (the toolchain's version stands for it) and the module cache (go.sum does). They
// are remembered after a build: as long as no file in their directories changed,
// appeared or went, go list would say the same.
type goInputs struct {
	Packages []goPackage `json:"packages"` // sorted by directory
}

type goPackage struct {
	Dir   string   `json:"dir"`             // absolute
	Embed []string `json:"embed,omitempty"` // patterns of //go:embed
}

// compiled are the extensions of files that the Go command looks at without cgo;
// the C ones only make it fail, which must be noticed too.
var compiled = []string{".go", ".s", ".S", ".sx", ".h", ".hh", ".hpp", ".hxx", ".syso", ".c", ".cc", ".cpp", ".cxx", ".m", ".f", ".F", ".for", ".f90", ".swig", ".swigcxx"}

// moduleFiles decide which packages an import means. They are looked for in every
// directory above a package too: one that appears changes the answer.
var moduleFiles = []string{"go.mod", "go.sum", "go.work", "go.work.sum", "vendor/modules.txt"}

func loadInputs(path string) (goInputs, bool) {
	var in goInputs
	b, err := os.ReadFile(path)
	if err != nil {
		return in, false
	}
	return in, json.Unmarshal(b, &in) == nil && len(in.Packages) > 0
}

func (in goInputs) save(path string) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && string(old) == string(b) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return durable.Swap(path, b, 0o644)
}

// files gives every input's name, relative to dir, and digest.
func (in goInputs) files(dir string, cache *statCache) ([]ledger.File, error) {
	d := inputDigest{dir: dir, cache: cache, above: map[string]bool{}}
	for _, p := range in.Packages {
		if err := d.pkg(p); err != nil {
			return nil, err
		}
	}
	return d.found, nil
}

type inputDigest struct {
	dir   string
	cache *statCache
	above map[string]bool // directories whose module files are done
	found []ledger.File
}

func (d *inputDigest) pkg(p goPackage) error {
	entries, err := os.ReadDir(p.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || strings.HasSuffix(name, "_test.go") || !slices.Contains(compiled, filepath.Ext(name)) {
			continue
		}
		if err := d.file(filepath.Join(p.Dir, name)); err != nil {
			return err
		}
	}
	for _, pattern := range p.Embed {
		if err := d.embedded(p.Dir, pattern); err != nil {
			return err
		}
	}
	for at := p.Dir; !d.above[at]; at = filepath.Dir(at) {
		d.above[at] = true
		for _, name := range moduleFiles {
			err := d.file(filepath.Join(at, name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNotRegular) {
				return err
			}
		}
	}
	return nil
}

// embedded takes everything that a pattern could match: whole directories from
// its first wildcard on, so that a new file there is noticed.
func (d *inputDigest) embedded(dir, pattern string) error {
	pattern = strings.TrimPrefix(pattern, "all:")
	start := dir
	for part := range strings.SplitSeq(pattern, "/") {
		if strings.ContainsAny(part, `*?[\`) {
			break
		}
		start = filepath.Join(start, part)
	}
	return filepath.WalkDir(start, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !e.Type().IsRegular() {
			return err
		}
		return d.file(path)
	})
}

func (d *inputDigest) file(path string) error {
	sum, err := fileDigest(path, d.cache)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(d.dir, path)
	if err != nil {
		return err
	}
	d.found = append(d.found, ledger.File{Path: filepath.ToSlash(name), Digest: sum})
	return nil
}
