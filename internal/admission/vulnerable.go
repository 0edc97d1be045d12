package admission

import (
	"encoding/json"
	"slices"

	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// excuse is what a VEX statement says of one vulnerability.
type excuse struct {
	component string // whose artifact it is about; empty: all of the release
	id        string
	packages  []string // purls; empty: all
	why       string
}

// vex is a document of OpenVEX (https://github.com/openvex/spec), as far as it is read.
type vex struct {
	Statements []struct {
		Vulnerability struct {
			ID      string   `json:"@id"`
			Name    string   `json:"name"`
			Aliases []string `json:"aliases"`
		} `json:"vulnerability"`
		Products []struct {
			Subcomponents []struct {
				ID string `json:"@id"`
			} `json:"subcomponents"`
		} `json:"products"`
		Status        string `json:"status"`
		Justification string `json:"justification"`
		Impact        string `json:"impact_statement"`
	} `json:"statements"`
}

// excuse takes in what a VEX statement says does not matter.
func (g *gathering) excuse(component string, v trust.Verified) {
	var doc vex
	if err := json.Unmarshal(v.Statement.Predicate, &doc); err != nil {
		g.doubt("a VEX statement by %s cannot be read: %v", v.Owner, err)
		return
	}
	for _, s := range doc.Statements {
		if s.Status != "not_affected" && s.Status != "fixed" {
			continue
		}
		why := s.Status
		for _, more := range []string{s.Justification, s.Impact} {
			if more != "" {
				why += ": " + more
			}
		}
		var packages []string
		for _, p := range s.Products {
			for _, c := range p.Subcomponents {
				packages = append(packages, c.ID)
			}
		}
		for _, id := range append([]string{s.Vulnerability.Name, s.Vulnerability.ID}, s.Vulnerability.Aliases...) {
			if id != "" {
				g.excused = append(g.excused, excuse{component, id, packages, why + " (" + v.Owner + ")"})
			}
		}
	}
}

// excuses says why a vulnerability does not count; empty: it does.
func (g *gathering) excuses(component, purl, version string, ids []string) string {
	for _, e := range g.excused {
		if (e.component == "" || e.component == component) && slices.Contains(ids, e.id) &&
			(len(e.packages) == 0 || slices.Contains(e.packages, purl) || slices.Contains(e.packages, purl+"@"+version)) {
			return e.why
		}
	}
	return ""
}

// vulnerabilities looks the packages of the components up, and notes of each component
// whether its packages are known.
func (g *gathering) vulnerabilities(components []policy.Component, of map[string]release.Component) (policy.Vulnerabilities, error) {
	out := policy.Vulnerabilities{Unlisted: []string{}, Found: []policy.Vulnerability{}}
	db, err := g.a.Database()
	if err != nil {
		return out, err
	}
	if db != nil {
		out.Database, out.Date = string(db.Digest), db.Date
	}
	for i := range components {
		c := &components[i]
		packages, listed, err := g.a.Packages(of[c.Name])
		if err != nil {
			return out, err
		}
		c.Packages, c.Listed = len(packages), listed
		if !listed {
			out.Unlisted = append(out.Unlisted, c.Name)
		}
		if db == nil {
			continue
		}
		out.Packages += len(packages)
		for _, p := range packages {
			for _, f := range db.Match(p.Name, p.Version) {
				out.Found = append(out.Found, policy.Vulnerability{
					ID: f.ID, Component: c.Name, Package: p.PURL, Version: p.Version, Severity: f.Severity, Fixed: f.Fixed, Published: f.Published,
					Excused: g.excuses(c.Name, p.PURL, p.Version, append([]string{f.ID}, f.Aliases...)),
				})
			}
		}
	}
	return out, nil
}
