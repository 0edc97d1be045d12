package osv

import (
	"math"
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

// scored is the severity of a CVSS v3 vector; empty if there is none.
func scored(scores []score) string {
	for _, s := range scores {
		if s.Type != "CVSS_V3" {
			continue
		}
		if base, ok := cvss3(s.Score); ok {
			return rating(base)
		}
	}
	return ""
}

// rating is the scale of https://www.first.org/cvss/v3.1/specification-document, section 5.
func rating(base float64) string {
	switch {
	case base >= 9:
		return "critical"
	case base >= 7:
		return "high"
	case base >= 4:
		return "medium"
	default:
		return "low"
	}
}

// weights are those of the metrics, ibid., section 7.4.
var weights = map[string]map[string]float64{
	"AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
	"AC": {"L": 0.77, "H": 0.44},
	"UI": {"N": 0.85, "R": 0.62},
	"C":  {"H": 0.56, "L": 0.22, "N": 0},
	"I":  {"H": 0.56, "L": 0.22, "N": 0},
	"A":  {"H": 0.56, "L": 0.22, "N": 0},
}

// privileges are the weights of PR by whether the scope changes.
var privileges = map[bool]map[string]float64{
	false: {"N": 0.85, "L": 0.62, "H": 0.27},
	true:  {"N": 0.85, "L": 0.68, "H": 0.5},
}

// cvss3 computes the base score of a vector, ibid., section 7.1.
func cvss3(vector string) (float64, bool) {
	said := map[string]string{}
	for part := range strings.SplitSeq(vector, "/") {
		name, value, _ := strings.Cut(part, ":")
		said[name] = value
	}
	w := map[string]float64{}
	for name, values := range weights {
		value, ok := values[said[name]]
		if !ok {
			return 0, false
		}
		w[name] = value
	}
	changed := said["S"] == "C"
	pr, ok := privileges[changed][said["PR"]]
	if !ok || !changed && said["S"] != "U" || !strings.HasPrefix(said["CVSS"], "3.") {
		return 0, false
	}
	iss := 1 - (1-w["C"])*(1-w["I"])*(1-w["A"])
	impact := 6.42 * iss
	if changed {
		impact = 7.52*(iss-0.029) - 3.25*math.Pow(iss-0.02, 15)
	}
	if impact <= 0 {
		return 0, true
	}
	sum := impact + 8.22*w["AV"]*w["AC"]*pr*w["UI"]
	if changed {
		sum *= 1.08
	}
	return roundUp(min(sum, 10)), true
}

// roundUp is ibid., appendix A: to one decimal, by whole numbers.
func roundUp(x float64) float64 {
	n := math.Round(x * 100_000)
	if math.Mod(n, 10_000) == 0 {
		return n / 100_000
	}
	return (math.Floor(n/10_000) + 1) / 10
}
