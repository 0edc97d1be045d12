package minimal

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// ELF is what the loader reads of an executable or library (System V ABI, chapter 5:
// program headers and the dynamic section).
type ELF struct {
	Class       elf.Class
	Machine     elf.Machine
	Interpreter string   // PT_INTERP; empty in a library and in a static program
	Needed      []string // DT_NEEDED, in order
	RunPath     []string // DT_RUNPATH: lists with colons
	RPath       []string // DT_RPATH likewise
}

const (
	maxNeeded = 1000    // libraries of one object
	maxPath   = 4 << 10 // bytes of an interpreter's name
)

// Read gives what an ELF file says, nil for a file of another kind. A file that begins
// as one and is damaged is a fault.
func Read(r io.ReaderAt) (out *ELF, err error) {
	var magic [4]byte
	if n, _ := r.ReadAt(magic[:], 0); n < len(magic) || string(magic[:]) != elf.ELFMAG {
		return nil, nil
	}
	// debug/elf says that it is not hardened against adversarial inputs.
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, bad(fmt.Errorf("%v", p))
		}
	}()
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, bad(err)
	}
	out = &ELF{Class: f.Class, Machine: f.Machine}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return out, nil // an object file or a dump of memory: nothing loads it
	}
	dynamic := false
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_INTERP:
			if out.Interpreter, err = text(p); err != nil {
				return nil, err
			}
		case elf.PT_DYNAMIC:
			dynamic = p.Filesz > 0
		}
	}
	if !dynamic {
		return out, nil
	}
	if f.SectionByType(elf.SHT_DYNAMIC) == nil {
		return nil, bad(fmt.Errorf("it has no table of sections"))
	}
	for tag, to := range map[elf.DynTag]*[]string{elf.DT_NEEDED: &out.Needed, elf.DT_RUNPATH: &out.RunPath, elf.DT_RPATH: &out.RPath} {
		if *to, err = f.DynString(tag); err != nil || len(*to) > maxNeeded {
			return nil, bad(fmt.Errorf("%s: %d entries: %w", tag, len(*to), err))
		}
	}
	return out, nil
}

func text(p *elf.Prog) (string, error) {
	if p.Filesz > maxPath {
		return "", bad(fmt.Errorf("an interpreter's name of %d bytes", p.Filesz))
	}
	b, err := io.ReadAll(io.LimitReader(p.Open(), maxPath))
	if err != nil {
		return "", bad(err)
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b), nil
}

func bad(err error) error {
	return fault.New(fault.Invalid, "the executable cannot be read: %w", err).
		Mend("do not minimise what is built from this package")
}
