package osv

import (
	"strings"

	"golang.org/x/mod/semver"
	"pault.ag/go/debian/version"
)

// order is how an ecosystem orders versions. It says false of versions that cannot be
// read: what is not understood counts as affected.
func order(ecosystem string) func(a, b string) (int, bool) {
	if strings.HasPrefix(ecosystem, "Debian") {
		return debianOrder
	}
	return semverOrder
}

func debianOrder(a, b string) (int, bool) {
	x, err := version.Parse(a)
	y, err2 := version.Parse(b)
	if err != nil || err2 != nil {
		return 0, false
	}
	return version.Compare(x, y), true
}

func semverOrder(a, b string) (int, bool) {
	a, b = "v"+strings.TrimPrefix(a, "v"), "v"+strings.TrimPrefix(b, "v")
	if !semver.IsValid(a) || !semver.IsValid(b) {
		return 0, false
	}
	return semver.Compare(a, b), true
}
