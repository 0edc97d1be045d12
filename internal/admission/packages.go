package admission

import (
	"cmp"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/osv"
)

// debianReleases are the numbers of Debian's releases by their codenames: databases name
// ecosystems by the number.
var debianReleases = map[string]string{"buster": "10", "bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14"}

// PackagesOf lists the packages that an artifact is made of, by its ledger: Debian's
// source packages, Go's modules and standard library. It says false where something in it
// is of unknown packages: an opaque image, a release of Debian whose number is not known.
func PackagesOf(b *ledger.Book) ([]Package, bool) {
	var out []Package
	known := true
	for _, o := range b.Inputs() {
		switch o.Kind {
		case ledger.KindDebian:
			codename, _, _ := strings.Cut(o.Distribution, "-") // of bookworm-security too
			number, ok := debianReleases[codename]
			source, version := cmp.Or(o.Source, o.Name), cmp.Or(o.SourceVersion, o.Version)
			known = known && ok
			out = append(out, Package{Name: osv.Name{Ecosystem: "Debian:" + number, Package: source}, Version: version, PURL: "pkg:deb/debian/" + source})
		case ledger.KindGo:
			out = append(out, module("stdlib", strings.TrimPrefix(o.Version, "go")))
			known = known && o.Go != nil
			if o.Go != nil {
				for _, m := range o.Go.Modules {
					out = append(out, module(m.Path, m.Version))
				}
			}
		case ledger.KindImage:
			known = false
		}
	}
	slices.SortFunc(out, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Name.Ecosystem, b.Name.Ecosystem), cmp.Compare(a.Name.Package, b.Name.Package), cmp.Compare(a.Version, b.Version))
	})
	return slices.Compact(out), known
}

func module(path, version string) Package {
	return Package{Name: osv.Name{Ecosystem: "Go", Package: path}, Version: version, PURL: "pkg:golang/" + path}
}
