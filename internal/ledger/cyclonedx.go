package ledger

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
)

type cdxDocument struct {
	Format       string          `json:"bomFormat"`
	Spec         string          `json:"specVersion"`
	Serial       string          `json:"serialNumber"`
	Version      int             `json:"version"`
	Metadata     cdxMetadata     `json:"metadata"`
	Components   []cdxComponent  `json:"components"`
	Dependencies []cdxDependency `json:"dependencies"`
}

type cdxMetadata struct {
	Timestamp string       `json:"timestamp"`
	Tools     cdxTools     `json:"tools"`
	Component cdxComponent `json:"component"`
}

type cdxTools struct {
	Components []cdxComponent `json:"components"`
}

type cdxComponent struct {
	Type       string        `json:"type"`
	Ref        string        `json:"bom-ref,omitempty"`
	Name       string        `json:"name"`
	Version    string        `json:"version,omitempty"`
	Text       string        `json:"description,omitempty"`
	Hashes     []cdxHash     `json:"hashes,omitempty"`
	PURL       string        `json:"purl,omitempty"`
	References []cdxRef      `json:"externalReferences,omitempty"`
	Properties []cdxProperty `json:"properties,omitempty"`
}

type cdxHash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type cdxRef struct {
	URL  string `json:"url"`
	Type string `json:"type"`
}

type cdxProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type cdxDependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn,omitempty"`
}

// CycloneDX gives the bill of materials of an artifact as a CycloneDX 1.6 document in
// JSON (https://cyclonedx.org/docs/1.6/json/), with the same parts as [SPDX]. Equal
// books give equal bytes.
func CycloneDX(b *Book) ([]byte, error) {
	root := b.self().cdx("container", "artifact")
	root.Properties = append(root.Properties, cdxProperty{"ashlar:ledger", b.Digest.String()}, cdxProperty{"ashlar:seal", b.Ledger.Seal.String()})
	doc := cdxDocument{
		Format: "CycloneDX", Spec: "1.6", Serial: serial(b), Version: 1,
		Metadata: cdxMetadata{
			Timestamp: b.created(), Component: root,
			Tools: cdxTools{[]cdxComponent{{Type: "application", Name: "ashlar", Text: "made from the ledger, not by a scan"}}},
		},
	}
	parts := b.parts()
	below := make([][]string, len(parts))
	var top []string
	for i, p := range parts {
		ref := "part-" + strconv.Itoa(i+1)
		doc.Components = append(doc.Components, p.cdx(p.cdxType(), ref))
		if p.within < 0 {
			top = append(top, ref)
		} else {
			below[p.within] = append(below[p.within], ref)
		}
	}
	doc.Dependencies = append(doc.Dependencies, cdxDependency{root.Ref, top})
	for i, refs := range below {
		if len(refs) > 0 {
			doc.Dependencies = append(doc.Dependencies, cdxDependency{doc.Components[i].Ref, refs})
		}
	}
	return json.Marshal(doc)
}

// serial is a UUID of version 8 (RFC 9562, section 5.8), made of the ledger's digest.
func serial(b *Book) string {
	u := sha256.Sum256([]byte("cyclonedx " + b.Digest.String()))
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

func (p part) cdxType() string {
	switch {
	case p.kind == KindImage:
		return "container"
	case p.kind == KindGo && p.within < 0:
		return "application"
	case p.kind == KindFile:
		return "data"
	}
	return "library"
}

func (p part) cdx(kind, ref string) cdxComponent {
	c := cdxComponent{Type: kind, Ref: ref, Name: p.name, Version: p.version, Text: p.note, PURL: p.purl}
	if p.digest != "" {
		c.Hashes = []cdxHash{{"SHA-256", p.digest.Encoded()}}
	}
	if p.place != "" {
		c.References = []cdxRef{{p.place, "distribution"}}
	}
	if p.sum != "" {
		c.Properties = append(c.Properties, cdxProperty{"ashlar:h1", p.sum})
	}
	if p.entries > 0 {
		c.Properties = append(c.Properties, cdxProperty{"ashlar:entries", strconv.Itoa(p.entries)})
	}
	return c
}
