package ledger

import (
	"encoding/json"
	"fmt"
)

// project begins every URI that is ours.
const project = "https://github.com/ashlar-infra/ashlar/"

type spdxDocument struct {
	Version       string             `json:"spdxVersion"`
	License       string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Creation      spdxCreation       `json:"creationInfo"`
	Packages      []spdxPackage      `json:"packages"`
	Relationships []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID        string         `json:"SPDXID"`
	Name      string         `json:"name"`
	Version   string         `json:"versionInfo,omitempty"`
	Place     string         `json:"downloadLocation"`
	Files     bool           `json:"filesAnalyzed"`
	Checksums []spdxChecksum `json:"checksums,omitempty"`
	Concluded string         `json:"licenseConcluded"`
	Declared  string         `json:"licenseDeclared"`
	Copyright string         `json:"copyrightText"`
	Purpose   string         `json:"primaryPackagePurpose,omitempty"`
	Comment   string         `json:"comment,omitempty"`
	Refs      []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// none is what SPDX writes where nothing is asserted.
const none = "NOASSERTION"

// SPDX gives the bill of materials of an artifact as an SPDX 2.3 document in JSON
// (https://spdx.github.io/spdx-spec/v2.3/). It lists packages and not files: SPDX asks
// for a SHA-1 of each file, and which file is of which package is what the ledger says,
// which the document names. Licences are not looked at. Equal books give equal bytes.
func SPDX(b *Book) ([]byte, error) {
	const root = "SPDXRef-Artifact"
	doc := spdxDocument{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: b.Ledger.Component,
		Namespace: project + "spdx/" + escape(b.Ledger.Component) + "/" + b.Digest.Encoded(),
		Creation:  spdxCreation{Created: b.created(), Creators: []string{"Tool: ashlar-ledger-1"}},
	}
	self := b.self().spdx(root)
	self.Purpose = "CONTAINER"
	doc.Packages = append(doc.Packages, self)
	doc.Relationships = append(doc.Relationships, spdxRelationship{doc.ID, "DESCRIBES", root})
	parts := b.parts()
	id := func(i int) string { return fmt.Sprintf("SPDXRef-Part-%d", i+1) }
	for i, p := range parts {
		doc.Packages = append(doc.Packages, p.spdx(id(i)))
		if p.within < 0 {
			doc.Relationships = append(doc.Relationships, spdxRelationship{root, "CONTAINS", id(i)})
		} else {
			doc.Relationships = append(doc.Relationships, spdxRelationship{id(p.within), "STATIC_LINK", id(i)})
		}
	}
	return json.Marshal(doc)
}

func (p part) spdx(id string) spdxPackage {
	out := spdxPackage{
		ID: id, Name: p.name, Version: p.version, Place: none, Concluded: none, Declared: none, Copyright: none, Comment: p.comment(),
	}
	if p.place != "" {
		out.Place = p.place
	}
	if p.digest != "" {
		out.Checksums = []spdxChecksum{{"SHA256", p.digest.Encoded()}}
	}
	if p.purl != "" {
		out.Refs = []spdxRef{{"PACKAGE-MANAGER", "purl", p.purl}}
	}
	return out
}

// comment is what is known beside names and digests, for people.
func (p part) comment() string {
	text := p.note
	if p.entries > 0 {
		text = join(text, "explains "+count(p.entries, "entry"))
	}
	return join(text, p.sum)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

func count(n int, what string) string {
	if n != 1 && what == "entry" {
		what = "entries"
	} else if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
