package build

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/debian"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// LockName is the name of the lock file, beside ashlar.yaml.
const LockName = "ashlar.lock"

// LockSchema is the value of LockFile.Schema that this program writes.
const LockSchema = "ashlar.dev/lock/v1"

// lockLimit is the largest lock file that is read, in bytes.
const lockLimit = 16 << 20

const lockHeader = `# Every external input of this definition's builds, by digest. Written by
# "ashlar build": keep it in Git, do not edit it. "ashlar build --update" renews it.
`

// LockFile is ashlar.lock: what the sources of each component resolved to. An
// entry belongs to a source by what the source asks for, not by its position, so
// that a change of one source leaves the others as they are.
type LockFile struct {
	Schema     string                   `yaml:"schema"`
	Components map[string]ComponentLock `yaml:"components"`
}

// ComponentLock holds the entries of one component, in the order of its sources.
type ComponentLock struct {
	// Sum is over the component's name and entries. Much of a lock is compared with
	// what it names, but not all: an epoch is only what file times are clamped to.
	Sum digest.Digest `yaml:"sum"`

	Go     []GoLock     `yaml:"go,omitempty"`
	Debian []DebianLock `yaml:"debian,omitempty"`
	Images []ImageLock  `yaml:"images,omitempty"`

	Dockerfiles []DockerLock `yaml:"dockerfiles,omitempty"`
}

// GoLock pins the toolchain of a go source.
type GoLock struct {
	Package   string `yaml:"package"`
	Toolchain string `yaml:"toolchain"` // e.g. go1.26.8
}

// DebianLock pins the packages of a debian source.
type DebianLock struct {
	Suite   string      `yaml:"suite"`
	Archive string      `yaml:"archive,omitempty"` // as asked for; empty: the host's
	Areas   []string    `yaml:"areas,omitempty"`   // as asked for
	Lock    debian.Lock `yaml:"lock"`
}

// NewLockFile is an empty lock file.
func NewLockFile() *LockFile {
	return &LockFile{Schema: LockSchema, Components: map[string]ComponentLock{}}
}

// Marshal gives the text of the file: components by name, entries in the order of
// the sources, always the same bytes for the same lock. It sets the sums.
func (l *LockFile) Marshal() ([]byte, error) {
	if err := l.setSums(); err != nil {
		return nil, err
	}
	b, err := yaml.MarshalWithOptions(l, yaml.Indent(2), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("writing the lock file: %w", err)
	}
	return append([]byte(lockHeader), b...), nil
}

// setSums sets each component's sum to what its entries are.
func (l *LockFile) setSums() error {
	for name, c := range l.Components {
		var err error
		if c.Sum, err = c.sum(name); err != nil {
			return err
		}
		l.Components[name] = c
	}
	return nil
}

// sum is what Sum has to be.
func (c ComponentLock) sum(name string) (digest.Digest, error) {
	c.Sum = ""
	text, err := json.Marshal(struct {
		Name string
		Lock ComponentLock
	}{name, c})
	// A list that is not there reads back as an empty one.
	return digest.FromBytes(bytes.ReplaceAll(text, []byte("null"), []byte("[]"))), err
}

// ParseLockFile reads a lock file; name is how it is called in errors. Unknown keys,
// aliases and entries that no build could use are errors.
func ParseLockFile(name string, b []byte) (*LockFile, error) {
	l, err := parseLock(b)
	if err == nil {
		return l, nil
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		f = fault.New(fault.Invalid, "the lock file cannot be read: %w", err)
	}
	if f.Fix == "" {
		f.Fix = "take the file back from Git, or delete it and resolve anew with  ashlar build"
	}
	if f.Where == "" {
		f.Where = name
	} else {
		f.Where = name + ":" + f.Where
	}
	return nil, f
}

func parseLock(b []byte) (*LockFile, error) {
	if len(b) > lockLimit {
		return nil, fault.New(fault.Invalid, "the lock file has %d bytes, more than %d", len(b), lockLimit)
	}
	if i := conflict(b); i > 0 {
		return nil, fault.New(fault.Invalid, "the lock file holds an unresolved merge conflict").At(fmt.Sprint(i)).
			Mend("take either side and run  ashlar build , which resolves what is missing")
	}
	for _, t := range lexer.Tokenize(string(b)) {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.TagType, token.MergeKeyType, token.DocumentHeaderType, token.DocumentEndType, token.DirectiveType:
			return nil, fault.New(fault.Invalid, "the lock file holds %q, which Ashlar never writes", t.Value).
				At(fmt.Sprintf("%d:%d", t.Position.Line, t.Position.Column))
		}
	}
	var l LockFile
	if err := yaml.UnmarshalWithOptions(b, &l, yaml.DisallowUnknownField()); err != nil {
		return nil, yamlFault(err)
	}
	if l.Schema != LockSchema {
		return nil, fault.New(fault.Invalid, "the lock file has schema %q, this program reads %q", l.Schema, LockSchema).
			Mend("use the version of Ashlar that wrote it, or renew it with  ashlar build --update")
	}
	if l.Components == nil {
		l.Components = map[string]ComponentLock{}
	}
	return &l, l.check()
}

func yamlFault(err error) error {
	var y yaml.Error
	if !errors.As(err, &y) || y.GetToken() == nil || y.GetToken().Position == nil {
		return err
	}
	p := y.GetToken().Position
	return fault.New(fault.Invalid, "the lock file is malformed: %s", y.GetMessage()).At(fmt.Sprintf("%d:%d", p.Line, p.Column))
}

// conflict gives the line of a merge conflict's marker, 0 if there is none.
func conflict(b []byte) int {
	line := 0
	for l := range bytes.Lines(b) {
		line++
		if bytes.HasPrefix(l, []byte("<<<<<<< ")) {
			return line
		}
	}
	return 0
}

var toolchainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+ :_-]*$`)

// maxToolchain bounds the name of a toolchain, in bytes.
const maxToolchain = 128

func (l *LockFile) check() error {
	for name, c := range l.Components {
		for _, g := range c.Go {
			if g.Package == "" || len(g.Toolchain) > maxToolchain || !toolchainName.MatchString(g.Toolchain) {
				return fault.New(fault.Invalid, "component %s: package %q has the toolchain %q", name, g.Package, g.Toolchain)
			}
		}
		for _, d := range c.Debian {
			if d.Suite == "" {
				return fault.New(fault.Invalid, "component %s: a debian entry has no suite", name)
			}
			if err := d.Lock.Check(); err != nil {
				return fmt.Errorf("component %s: %w", name, err)
			}
		}
		for _, d := range c.Dockerfiles {
			if err := d.check(); err != nil {
				return fmt.Errorf("component %s: %w", name, err)
			}
		}
		for _, i := range c.Images {
			if err := i.check(); err != nil {
				return fmt.Errorf("component %s: %w", name, err)
			}
		}
		if sum, err := c.sum(name); err != nil || c.Sum != sum {
			return fault.New(fault.Invalid, "component %s: the entries are not what was written there: they have the sum %s, the file says %q", name, sum, c.Sum).
				Mend("take the file back from Git, or resolve anew with  ashlar build --update")
		}
	}
	return nil
}

// ReadLockFile reads ashlar.lock in dir; an empty lock if there is none.
func ReadLockFile(dir string) (*LockFile, error) {
	path := filepath.Join(dir, LockName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return NewLockFile(), nil
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the lock file cannot be read: %w", err)
	}
	return ParseLockFile(path, b)
}

// Write writes ashlar.lock in dir in one step, unless it is there with the same
// content, and says whether it changed.
func (l *LockFile) Write(dir string) (changed bool, err error) {
	b, err := l.Marshal()
	if err != nil {
		return false, err
	}
	path := filepath.Join(dir, LockName)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return false, nil
	}
	if err := durable.Replace(path, b, 0o644); err != nil {
		return false, fault.New(fault.Unavailable, "the lock file cannot be written: %w", err).
			Mend("make %s writable, or build with  --locked", dir)
	}
	return true, nil
}

// Dockerfiles says that there is any.
func (l *LockFile) Dockerfiles() bool {
	for _, c := range l.Components {
		if len(c.Dockerfiles) > 0 {
			return true
		}
	}
	return false
}

// toolchain gives the locked toolchain of a go source, "" if there is none.
func (l *LockFile) toolchain(component string, src *definition.GoSource) string {
	if l == nil {
		return ""
	}
	for _, g := range l.Components[component].Go {
		if g.Package == src.Package {
			return g.Toolchain
		}
	}
	return ""
}

// debian gives the entry of a debian source.
func (l *LockFile) debian(component string, src *definition.DebianSource, arch string) (debian.Lock, bool) {
	if l == nil {
		return debian.Lock{}, false
	}
	for _, d := range l.Components[component].Debian {
		if d.Suite == src.Suite && d.Archive == src.Archive && slices.Equal(d.Areas, src.Components) && d.Lock.Matches(src.Packages, src.Exclude, arch) {
			return d.Lock, true
		}
	}
	return debian.Lock{}, false
}

// others says what the component's debian entries were resolved from, for messages.
func (l *LockFile) others(component string) string {
	var out []string
	for _, d := range l.Components[component].Debian {
		out = append(out, strings.TrimSpace(d.Suite+": "+strings.Join(d.Lock.Requested, " ")))
	}
	return strings.Join(out, "; ")
}
