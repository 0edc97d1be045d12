package osv

import (
	"slices"
	"strings"

	gocvss20 "github.com/pandatix/go-cvss/20"
	gocvss30 "github.com/pandatix/go-cvss/30"
	gocvss31 "github.com/pandatix/go-cvss/31"
	gocvss40 "github.com/pandatix/go-cvss/40"
)

// ranks are the severities, the worst last.
var ranks = []string{"low", "medium", "high", "critical"}

// word is a severity that a database says in a word.
func word(m map[string]any) string {
	for _, key := range []string{"severity", "urgency"} {
		said, _ := m[key].(string)
		if rank := rankOf(said); rank != "" {
			return rank
		}
	}
	return ""
}

// rankOf is what a word means; empty if that is not known.
func rankOf(said string) string {
	switch said = strings.ToLower(strings.TrimRight(said, "*")); said {
	case "critical", "high", "medium", "low":
		return said
	case "moderate":
		return "medium"
	case "unimportant", "negligible":
		return "low"
	}
	return ""
}

// scored is the worst severity that is given in scores of the types that
// https://ossf.github.io/osv-schema/#severitytype-field has. It is empty when there is
// none, or none that can be read.
func scored(scores []score) string {
	worst := -1
	for _, s := range scores {
		rank := ""
		switch base, ok := cvss(s.Score); {
		case s.Type == "Ubuntu":
			rank = rankOf(s.Score)
		case strings.HasPrefix(s.Type, "CVSS_") && ok:
			rank = rating(base)
		}
		worst = max(worst, slices.Index(ranks, rank))
	}
	if worst < 0 {
		return ""
	}
	return ranks[worst]
}

// rating is the scale of https://www.first.org/cvss/v4.0/specification-document, section
// 6, which that of version 3 is too. Version 2 has none: it is judged by the same.
func rating(score float64) string {
	switch {
	case score >= 9:
		return "critical"
	case score >= 7:
		return "high"
	case score >= 4:
		return "medium"
	default:
		return "low"
	}
}

// cvss is the score of a vector, of whichever version: in version 4 with the threat and
// environmental metrics that it has, before by the base metrics.
func cvss(vector string) (float64, bool) {
	version, _, _ := strings.Cut(vector, "/")
	switch version {
	case "CVSS:4.0":
		v, err := gocvss40.ParseVector(vector)
		if err != nil {
			return 0, false
		}
		return v.Score(), true
	case "CVSS:3.1":
		v, err := gocvss31.ParseVector(vector)
		if err != nil {
			return 0, false
		}
		return v.BaseScore(), true
	case "CVSS:3.0":
		v, err := gocvss30.ParseVector(vector)
		if err != nil {
			return 0, false
		}
		return v.BaseScore(), true
	}
	v, err := gocvss20.ParseVector(vector)
	if err != nil {
		return 0, false
	}
	return v.BaseScore(), true
}
