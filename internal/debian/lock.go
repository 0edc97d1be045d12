package debian

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Lock is one resolved Debian source: every input of its build by digest. It is
// what ashlar.lock holds of a component's debian: source.
type Lock struct {
	Arch      string          `json:"arch" yaml:"arch"`
	Requested []string        `json:"requested" yaml:"requested"`                   // as asked for, sorted
	Excluded  []string        `json:"excluded,omitempty" yaml:"excluded,omitempty"` // sorted
	Epoch     int64           `json:"epoch" yaml:"epoch"`                           // seconds; the newest InRelease's Date, to which file times are clamped
	Archives  []LockedArchive `json:"archives" yaml:"archives"`                     // in the order of Source.Archives
	Packages  []LockedPackage `json:"packages" yaml:"packages"`                     // sorted by name
}

// LockedArchive is one suite as it was when it was resolved.
type LockedArchive struct {
	URL       string        `json:"url" yaml:"url"`
	Suite     string        `json:"suite" yaml:"suite"`
	Codename  string        `json:"codename" yaml:"codename"`
	Version   string        `json:"version,omitempty" yaml:"version,omitempty"` // e.g. 12.15
	InRelease digest.Digest `json:"inRelease" yaml:"inRelease"`
	Date      string        `json:"date" yaml:"date"`     // RFC 3339
	Signer    string        `json:"signer" yaml:"signer"` // fingerprint of the primary key, upper-case hex
	Indexes   []LockedIndex `json:"indexes" yaml:"indexes"`
}

// LockedIndex is one Packages file.
type LockedIndex struct {
	Path   string        `json:"path" yaml:"path"` // below dists/<suite>/
	SHA256 digest.Digest `json:"sha256" yaml:"sha256"`
	Size   int64         `json:"size" yaml:"size"`
}

// LockedPackage is one .deb.
type LockedPackage struct {
	Name    string        `json:"name" yaml:"name"`
	Version string        `json:"version" yaml:"version"`
	Arch    string        `json:"arch" yaml:"arch"`
	SHA256  digest.Digest `json:"sha256" yaml:"sha256"`
	Size    int64         `json:"size" yaml:"size"`
	Path    string        `json:"path" yaml:"path"`       // below the archive's URL
	Archive int           `json:"archive" yaml:"archive"` // index in Archives
}

// Digest names the lock: the SHA-256 of its JSON.
func (l Lock) Digest() digest.Digest {
	b, err := json.Marshal(l)
	if err != nil {
		panic(fmt.Sprintf("debian: a lock must marshal: %v", err))
	}
	return digest.FromBytes(b)
}

// Inputs are the digests of every byte the lock names: what must be kept to build
// it again offline.
func (l Lock) Inputs() []digest.Digest {
	var out []digest.Digest
	for _, a := range l.Archives {
		out = append(out, a.InRelease)
		for _, x := range a.Indexes {
			out = append(out, x.SHA256)
		}
	}
	for _, p := range l.Packages {
		out = append(out, p.SHA256)
	}
	return out
}

// Matches says whether the lock was resolved from the same packages and
// exclusions, in any order.
func (l Lock) Matches(packages, exclude []string, arch string) bool {
	return l.Arch == arch && slices.Equal(l.Requested, sorted(packages)) && slices.Equal(l.Excluded, sorted(exclude))
}

// Check finds what makes a lock unusable, such as a hand edit. A file that is
// written by this program never fails.
func (l Lock) Check() error {
	if len(l.Packages) == 0 || l.Arch == "" || l.Epoch <= 0 {
		return l.bad("it names no packages, architecture or epoch")
	}
	for i, p := range l.Packages {
		switch {
		case !validName(p.Name):
			return l.bad("package %q is not a name", p.Name)
		case i > 0 && strings.Compare(l.Packages[i-1].Name, p.Name) >= 0:
			return l.bad("package %s is out of order or stands twice", p.Name)
		case p.Arch != l.Arch && p.Arch != "all":
			return l.bad("package %s is for %s", p.Name, p.Arch)
		case p.SHA256.Validate() != nil || p.SHA256.Algorithm() != digest.SHA256:
			return l.bad("package %s has no SHA-256", p.Name)
		case p.Size <= 0 || p.Size > maxDeb:
			return l.bad("package %s has size %d", p.Name, p.Size)
		case !safePath(p.Path):
			return l.bad("package %s has path %q", p.Name, p.Path)
		case p.Archive < 0 || p.Archive >= len(l.Archives):
			return l.bad("package %s is of archive %d, which is not there", p.Name, p.Archive)
		}
	}
	return nil
}

func (l Lock) bad(format string, args ...any) error {
	return fault.New(fault.Invalid, "the lock of the Debian source is damaged: "+format, args...).
		Mend("take the file back from Git, or resolve anew with  ashlar build --update")
}

func sorted(in []string) []string {
	if len(in) == 0 {
		return nil
	}
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
