package debian

import (
	"fmt"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Archive is one suite of one Debian archive, with the keys that may sign it.
type Archive struct {
	URL     string   // base, without a final slash; the suite is at URL/dists/Suite
	Suite   string   // e.g. bookworm, bookworm-security
	Areas   []string // e.g. main
	Keyring []byte   // OpenPGP public keys, binary or armoured; several armoured blocks may follow each other
}

// Source is what is wanted from archives: the packages, and what to leave out of
// their closure.
type Source struct {
	Archives []Archive         // the first one that has the highest version of a package gives it
	Packages []string          // names to install
	Exclude  []string          // dependencies that are left out on purpose
	Waive    map[string]string // package to the reason why its maintainer scripts may be ignored
	Arch     string            // Debian architecture, e.g. amd64
	Now      time.Time         // for Valid-Until, Date and the expiry of keys
	Progress func(Progress)    // nil: nobody looks; may be called from several goroutines, one at a time
}

// Progress is one step that Resolve, Fetch or Tree made.
type Progress struct {
	Step  string // "index", "fetch", "unpack"
	What  string // the package or file
	Done  int    // of Total
	Total int
	Bytes int64 // read by this step; 0 when it was on hand
}

// goToDebian maps runtime.GOARCH to Debian's names (dpkg-architecture(1)).
var goToDebian = map[string]string{
	"amd64": "amd64", "arm64": "arm64", "386": "i386", "arm": "armhf",
	"ppc64le": "ppc64el", "s390x": "s390x", "riscv64": "riscv64", "mips64le": "mips64el",
}

// Arch is Debian's name of a Go architecture.
func Arch(goarch string) (string, error) {
	if a, ok := goToDebian[goarch]; ok {
		return a, nil
	}
	return "", fault.New(fault.Invalid, "Debian has no architecture for %s", goarch)
}

func (s Source) check() error {
	switch {
	case len(s.Packages) == 0:
		return fault.New(fault.Invalid, "no packages are named").Mend("list at least one under  packages:")
	case len(s.Archives) == 0:
		return fault.New(fault.Invalid, "no Debian archive is given")
	case s.Arch == "":
		return fmt.Errorf("debian: Source.Arch is empty")
	case s.Now.IsZero():
		return fmt.Errorf("debian: Source.Now is zero")
	}
	for _, n := range s.Packages {
		if !validName(n) {
			return fault.New(fault.Invalid, "%q is not a Debian package name", n).
				Mend("use lower-case letters, digits, + - and . as in  nginx-light")
		}
		for _, x := range s.Exclude {
			if n == x {
				return fault.New(fault.Invalid, "package %s is both asked for and excluded", n).
					Mend("take it out of  packages:  or  exclude:")
			}
		}
	}
	return nil
}

// validName is Debian policy 5.6.7.
func validName(n string) bool {
	if len(n) < 2 || len(n) > 128 {
		return false
	}
	for i := 0; i < len(n); i++ {
		c := n[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return true
}
