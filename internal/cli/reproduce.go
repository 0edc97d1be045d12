package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// CheckRequest asks whether a build is reproducible.
type CheckRequest struct {
	Dir        string // state directory
	File       string // ashlar.yaml
	Definition *definition.Definition
	Locked     bool     // ashlar.lock may not be changed
	Built      Built    // what is compared
	Outside    []string // files that it read outside of the definition's directory, relative to it
	Tell       func(text string)
}

// CheckReport is what building again showed.
type CheckReport struct {
	Components []CheckedComponent `json:"components"`
	Varied     []string           `json:"varied"`
	NotVaried  []string           `json:"notVaried,omitempty"`
	Noted      bool               `json:"noted"` // ashlar.lock was changed: it says something else of Dockerfiles now
}

// CheckedComponent is one component in all builds.
type CheckedComponent struct {
	Name         string            `json:"name"`
	Reproducible bool              `json:"reproducible"`
	Artifacts    []digest.Digest   `json:"artifacts"` // of the build here, and of the others
	Differences  []CheckDifference `json:"differences,omitempty"`
}

// CheckDifference is one path that is not the same in two builds.
type CheckDifference struct {
	Path   string   `json:"path"` // empty: the image's configuration
	What   []string `json:"what"`
	Offset int64    `json:"offset"`          // of the first byte that differs; -1: the bytes are the same
	Bytes  int64    `json:"bytes,omitempty"` // how many differ
}

// reproduce builds everything again, twice, and fails if anything differs. What that
// shows of Dockerfiles is noted in the lock, and then in ledgers.
func (p *program) reproduce(ctx context.Context, def *definition.Definition, built Built, flags buildFlags) error {
	dir, err := p.stateDir()
	if err != nil {
		return err
	}
	outside, err := p.outside(dir, built)
	if err != nil {
		return err
	}
	report, err := p.parts.Check(ctx, CheckRequest{
		Dir: dir, File: p.file, Definition: def, Built: built, Outside: outside, Locked: flags.locked,
		Tell: func(text string) {
			if !p.json() {
				p.err.linef("check  %s", text)
			}
		},
	})
	if err != nil {
		return err
	}
	if report.Noted { // everything is on hand: only ledgers are written
		again, err := p.build(ctx, def, "", buildFlags{locked: true, untested: true, platforms: flags.platforms})
		if err != nil {
			return err
		}
		again.Unlock()
	}
	if p.json() {
		p.out.json(report)
	} else {
		p.showReproduced(report)
	}
	return verdict(report)
}

// outside are the source files of programs that are not below the definition's directory.
func (p *program) outside(dir string, built Built) ([]string, error) {
	seals, err := p.parts.Seals(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, env := range built.Release.Environments {
		for _, c := range env.Components {
			book, err := seals.Ledger(c.Ledger)
			if err != nil {
				return nil, err
			}
			for _, o := range book.Inputs() {
				if o.Kind == ledger.KindGo {
					out = append(out, above(o.Go.Files)...)
				}
			}
		}
		break // artifacts are the same in every environment
	}
	return out, nil
}

func above(files []ledger.File) []string {
	var out []string
	for _, f := range files {
		if strings.HasPrefix(f.Path, "../") {
			out = append(out, f.Path)
		}
	}
	return out
}

func (p *program) showReproduced(r CheckReport) {
	for _, c := range r.Components {
		if c.Reproducible {
			p.out.linef("%s  reproducible: 3 builds are %s", c.Name, short(c.Artifacts[0]))
			continue
		}
		var names []string
		for _, d := range c.Artifacts {
			names = append(names, short(d))
		}
		p.out.linef("%s  NOT reproducible: %s", c.Name, strings.Join(names, ", "))
		for _, d := range c.Differences {
			p.out.linef("  %s", differenceWords(d))
		}
	}
	p.out.linef("what differed between the builds: %s", strings.Join(r.Varied, ", "))
	for _, n := range r.NotVaried {
		p.out.linef("what could not be made to differ here: %s", n)
	}
	if r.Noted {
		p.out.linef("noted in ashlar.lock, of Dockerfiles")
	}
}

func differenceWords(d CheckDifference) string {
	text := strings.TrimSpace(d.Path + "  " + strings.Join(d.What, ", "))
	if d.Offset >= 0 {
		text += fmt.Sprintf("; the first of %s that differ is at offset %d", count(int(d.Bytes), "byte"), d.Offset)
	}
	return text
}

func verdict(r CheckReport) error {
	var bad []string
	for _, c := range r.Components {
		if !c.Reproducible {
			bad = append(bad, c.Name)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fault.New(fault.Refused, "not reproducible: %s", strings.Join(bad, ", ")).
		Mend("find out what of its surroundings gets into the bytes at the offset, and leave it out")
}
