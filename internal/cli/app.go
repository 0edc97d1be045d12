package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// definition reads ashlar.yaml strictly, as a build needs it.
func (p *program) definition() (*definition.Definition, error) {
	src, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, p.noFile()
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot read the definition: %w", err).At(p.file).Mend("name a file that can be read:  --file FILE")
	}
	return definition.Parse(filepath.ToSlash(p.file), src, dirFiles(filepath.Dir(p.file)))
}

func (p *program) noFile() *fault.Error {
	return fault.New(fault.NotFound, "there is no definition here").At(p.file).
		Mend("write one:  ashlar init  or name it:  --file FILE")
}

// dirFiles reads the files that a definition names.
type dirFiles string

// ReadFile reads one file below the directory.
func (d dirFiles) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(d), filepath.FromSlash(name)))
}

// outline is what of an ashlar.yaml is enough to talk about what runs: unlike a
// definition it can be had when the file has mistakes, or its inputs are gone.
type outline struct {
	App          string        `yaml:"app"`
	Components   yaml.MapSlice `yaml:"components"`
	Environments yaml.MapSlice `yaml:"environments"`
}

func (p *program) outline() (outline, bool) {
	src, err := os.ReadFile(p.file)
	if err != nil {
		return outline{}, false
	}
	var o outline
	if err := yaml.Unmarshal(src, &o); err != nil {
		return outline{}, false
	}
	return o, true
}

func keys(m yaml.MapSlice) []string {
	var names []string
	for _, item := range m {
		if name, ok := item.Key.(string); ok {
			names = append(names, name)
		}
	}
	return names
}
