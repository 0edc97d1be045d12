package ledger

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// part is what a bill of materials lists: a package, a program, a module in it, a base
// image, or the files of the definition's directory.
type part struct {
	kind    Kind
	name    string
	version string
	purl    string        // https://github.com/package-url/purl-spec; empty: there is none
	digest  digest.Digest // of what was fetched, where it is one file
	place   string        // URL that it was fetched from
	sum     string        // of a module: h1:
	note    string
	entries int // of the artifact's root that come from it
	within  int // index of the part that it is compiled into; -1: the artifact
}

// parts lists what an artifact is made of, in the order of the layers.
func (b *Book) parts() []part {
	minimised := slices.ContainsFunc(b.Rules(), func(o Origin) bool { return o.Name == RuleMinimise })
	counts, files := map[key]int{}, map[key]int{}
	for _, e := range b.Entries {
		counts[keyOf(b.Origin(e))]++
		if e.Type != image.Dir {
			files[keyOf(b.Origin(e))]++
		}
	}
	var out []part
	for _, o := range b.Inputs() {
		p := part{kind: o.Kind, name: o.Name, version: o.Version, digest: o.Digest, place: o.Place, entries: counts[keyOf(o)], within: -1}
		switch o.Kind {
		case KindArchive:
			continue // it is read to choose packages, and in no artifact
		case KindDebian:
			if minimised && files[keyOf(o)] == 0 {
				continue // nothing of it was left but directories
			}
			p.purl = debianURL(o)
			p.note = "source package " + o.Source + " " + o.SourceVersion
		case KindGo:
			p.version = ""
			p.purl = packageURL("golang", "", o.Name, "")
			p.note = "compiled by " + o.Version + " from " + count(len(o.Go.Files), "file") + " of the definition's directory"
		case KindFile:
			p.name, p.note = "files", "copied from the definition's directory"
		case KindImage:
			p.note = "opaque: what it is made of is not known here"
			if o.Text != "" {
				p.note += "; " + o.Text
			}
			p.purl = ociURL(o.Name, o.Digest, b.Ledger.Arch)
		}
		out = append(out, p)
		if o.Kind == KindGo {
			out = append(out, o.Go.parts(o.Version, len(out)-1)...)
		}
	}
	return out
}

func keyOf(o Origin) key { return key{o.Kind, o.Name, o.Version, o.Digest} }

// parts are the modules of a program, the standard library first.
func (g *Program) parts(toolchain string, within int) []part {
	version := strings.TrimPrefix(toolchain, "go")
	out := []part{{kind: KindGo, name: "stdlib", version: version, purl: packageURL("golang", "", "stdlib", version), within: within}}
	for _, m := range g.Modules {
		out = append(out, part{kind: KindGo, name: m.Path, version: m.Version, purl: packageURL("golang", "", m.Path, m.Version), sum: m.Sum, within: within})
	}
	return out
}

// self is the artifact itself.
func (b *Book) self() part {
	return part{
		kind: KindImage, name: b.Ledger.Component, version: b.Ledger.Artifact.String(), digest: b.Ledger.Artifact,
		purl: ociURL(b.Ledger.Component, b.Ledger.Artifact, b.Ledger.Arch), entries: len(b.Entries), within: -1,
		note: "every entry is explained by the ledger " + b.Digest.String(),
	}
}

// created is the time of the newest archive that packages were chosen from; the epoch if
// there is none. A build has no time of its own.
func (b *Book) created() string {
	newest := "1970-01-01T00:00:00Z"
	for _, o := range b.Inputs() {
		if o.Kind == KindArchive {
			newest = max(newest, o.Date)
		}
	}
	return newest
}

// debianURL is the deb type of package URLs. The source package is told by the qualifier
// upstream, as scanners know it, where it is called otherwise.
func debianURL(o Origin) string {
	codename, _, _ := strings.Cut(o.Distribution, "-") // of bookworm-security too
	u := packageURL("deb", "debian", o.Name, o.Version) + "?arch=" + escape(o.Arch)
	if codename != "" {
		u += "&distro=" + escape(codename)
	}
	switch {
	case o.Source != o.Name && o.SourceVersion != o.Version:
		u += "&upstream=" + escape(o.Source+"@"+o.SourceVersion)
	case o.Source != o.Name:
		u += "&upstream=" + escape(o.Source)
	case o.SourceVersion != o.Version:
		u += "&upstream=" + escape(o.Source+"@"+o.SourceVersion)
	}
	return u
}

// ociURL is the oci type: named by the last part of the repository, and by digest.
func ociURL(name string, d digest.Digest, arch string) string {
	name = name[strings.LastIndexByte(name, '/')+1:]
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ":")
	if name == "" {
		name = "image"
	}
	return packageURL("oci", "", strings.ToLower(name), d.String()) + "?arch=" + escape(arch)
}

// packageURL writes a package URL. The slashes of a name part its namespace.
func packageURL(kind, namespace, name, version string) string {
	u := "pkg:" + kind
	if namespace != "" {
		u += "/" + escape(namespace)
	}
	for part := range strings.SplitSeq(name, "/") {
		u += "/" + escape(part)
	}
	if version != "" {
		u += "@" + escape(version)
	}
	return u
}

// escape percent-encodes what a package URL does not allow as it is: everything but
// letters, digits and .-_~
func escape(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".-_~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteString("%" + string(digits[c>>4]) + string(digits[c&15]))
	}
	return b.String()
}

// dirHash is a module's sum as in-toto's digest sets have it: in hexadecimal, without h1:.
func dirHash(sum string) string {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:"))
	if err != nil || len(raw) != 32 {
		return ""
	}
	return hex.EncodeToString(raw)
}
