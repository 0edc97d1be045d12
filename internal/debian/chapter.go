package debian

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// Names of rules that the code itself refers to.
const (
	ruleAccounts  = "accounts/1"
	ruleDebhelper = "debhelper/1"
	ruleTimes     = "times/1"
	ruleSetID     = "set-id/1"
)

// normal are the rules for what is done to every member of every package.
var normal = map[string]string{
	ruleTimes: "a file that was modified after the archive's index was signed counts as modified then",
	ruleSetID: "no program is set-user-ID or set-group-ID: an instance does not gain rights by starting one",
}

// chapter explains every entry of the tree: by the package whose member it is, or by
// the rule that made it.
func (a *assembly) chapter(t image.Tree) (ledger.Chapter, error) {
	w := ledger.NewWriter("debian " + strings.Join(a.lock.Requested, " "))
	c := chapterWriter{Writer: w, of: make(map[*unpacked]int, len(a.pkgs)), rules: ruleOrigins()}
	for i, u := range a.pkgs {
		c.of[u] = w.Origin(packageOrigin(a.lock, a.lock.Packages[i], u))
	}
	for _, x := range a.lock.Archives {
		w.Origin(ledger.Origin{
			Kind: ledger.KindArchive, Name: x.Suite, Version: x.Version, Digest: x.InRelease,
			Place: x.URL, Distribution: x.Codename, Date: x.Date, Signer: x.Signer,
		})
	}
	for _, e := range t.Entries {
		p, ok := a.entries[e.Path]
		if !ok {
			p = placed{rule: ledger.Parents.Name} // WithParents added it
		}
		line, err := c.line(e.Path, p)
		if err != nil {
			return ledger.Chapter{}, err
		}
		w.Line(line)
	}
	return w.Chapter(), nil
}

// chapterWriter finds the origins of entries.
type chapterWriter struct {
	*ledger.Writer
	of    map[*unpacked]int
	rules map[string]ledger.Origin
}

func (c chapterWriter) line(at string, p placed) (ledger.Line, error) {
	l := ledger.Line{Path: at}
	if p.from == nil {
		o, ok := c.rules[p.rule]
		if !ok {
			return l, fault.New(fault.Invalid, "/%s is unexplained: it is of no package and of no rule (%q)", at, p.rule)
		}
		l.Origin = c.Origin(o)
	} else {
		l.Origin = c.of[p.from]
		l.Member = p.shipped
		if shipped, ok := p.from.Shipped[p.shipped]; ok {
			l.Member = shipped
		}
		if p.from.Stripped[p.shipped] {
			p.amended = append(slices.Clone(p.amended), ruleSetID)
		}
	}
	for _, name := range p.amended {
		o, ok := c.rules[name]
		if !ok {
			return l, fmt.Errorf("debian: /%s was changed by the rule %q, which is not known", at, name)
		}
		l.Amended = append(l.Amended, c.Origin(o))
	}
	slices.Sort(l.Amended)
	l.Amended = slices.Compact(l.Amended)
	return l, nil
}

// ruleOrigins are all rules by name.
func ruleOrigins() map[string]ledger.Origin {
	texts := maps.Clone(normal)
	for _, r := range Rules() {
		texts[r.Name] = r.Why
	}
	out := map[string]ledger.Origin{ledger.Parents.Name: ledger.Parents}
	for name, text := range texts {
		out[name] = ledger.Origin{Kind: ledger.KindRule, Name: name, Text: text}
	}
	return out
}

func packageOrigin(lock Lock, p LockedPackage, u *unpacked) ledger.Origin {
	from := lock.Archives[p.Archive]
	o := ledger.Origin{
		Kind: ledger.KindDebian, Name: p.Name, Version: p.Version, Arch: p.Arch, Digest: p.SHA256, Size: p.Size,
		Place: strings.TrimRight(from.URL, "/") + "/" + path.Clean(p.Path), Distribution: from.Codename,
	}
	// Source: name, or name (version) where that differs (policy 5.6.1).
	name, version, ok := strings.Cut(u.Control["Source"], " ")
	if o.Source, o.SourceVersion = name, p.Version; ok {
		o.SourceVersion = strings.Trim(strings.TrimSpace(version), "()")
	}
	if o.Source == "" {
		o.Source = p.Name
	}
	return o
}
