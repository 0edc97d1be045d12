package ledger_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	"github.com/opencontainers/go-digest"
	"github.com/package-url/packageurl-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
)

// purls are the package URLs of everything in the sample.
var purls = []string{
	"pkg:deb/debian/nginx-light@1.22.1-9?arch=amd64&distro=bookworm&upstream=nginx",
	"pkg:golang/example.com/dep@v1.2.3",
	"pkg:golang/example.com/hello/cmd/hello",
	"pkg:golang/stdlib@1.26.8",
	"pkg:oci/web@sha256%3A" + digest.FromString("a").Encoded() + "?arch=amd64",
}

func wantURLs(t *testing.T, what string, got []string) {
	t.Helper()
	slices.Sort(got)
	if diff := cmp.Diff(purls, got); diff != "" {
		t.Errorf("package URLs of the %s (-want +got):\n%s", what, diff)
	}
}

// TestPackageURLs holds our writing of package URLs against the library.
func TestPackageURLs(t *testing.T) {
	for _, u := range purls {
		p, err := packageurl.FromString(u)
		if err != nil {
			t.Errorf("%s: %v", u, err)
			continue
		}
		if err := p.Normalize(); err != nil || p.ToString() != strings.ReplaceAll(u, "sha256%3A", "sha256:") && p.ToString() != u {
			t.Errorf("%s is %s in its normal form (%v)", u, p.ToString(), err)
		}
	}
}

// TestSPDX reads what is written with the library for SPDX, and follows the relationships.
func TestSPDX(t *testing.T) {
	raw, err := ledger.SPDX(book(t))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := spdxjson.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	var urls []string
	name := map[common.ElementID]string{}
	for _, p := range doc.Packages {
		name[p.PackageSPDXIdentifier] = p.PackageName
		for _, r := range p.PackageExternalReferences {
			urls = append(urls, r.Locator)
		}
		if p.PackageName == "nginx-light" && (p.PackageChecksums[0].Value != nginx.Digest.Encoded() || p.PackageDownloadLocation != nginx.Place || p.PackageVersion != nginx.Version) {
			t.Errorf("nginx-light: %+v", p)
		}
	}
	wantURLs(t, "SPDX document", urls)
	var edges []string
	for _, r := range doc.Relationships {
		edges = append(edges, name[r.RefA.ElementRefID]+" "+r.Relationship+" "+name[r.RefB.ElementRefID])
	}
	want := []string{
		" DESCRIBES web", "web CONTAINS nginx-light", "web CONTAINS example.com/hello/cmd/hello",
		"example.com/hello/cmd/hello STATIC_LINK stdlib", "example.com/hello/cmd/hello STATIC_LINK example.com/dep", "web CONTAINS files",
	}
	if diff := cmp.Diff(want, edges); diff != "" {
		t.Error(diff)
	}
	if doc.CreationInfo.Created != index.Date {
		t.Errorf("created %s, not when the index was signed", doc.CreationInfo.Created)
	}
}

// TestCycloneDX reads what is written with the library for CycloneDX, which knows every key.
func TestCycloneDX(t *testing.T) {
	raw, err := ledger.CycloneDX(book(t))
	if err != nil {
		t.Fatal(err)
	}
	var doc cyclonedx.BOM
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if doc.SpecVersion != cyclonedx.SpecVersion1_6 || !strings.HasPrefix(doc.SerialNumber, "urn:uuid:") {
		t.Errorf("version %s, serial number %s", doc.SpecVersion, doc.SerialNumber)
	}
	urls := []string{doc.Metadata.Component.PackageURL}
	name := map[string]string{doc.Metadata.Component.BOMRef: doc.Metadata.Component.Name}
	for _, c := range *doc.Components {
		name[c.BOMRef] = c.Name
		if c.PackageURL != "" {
			urls = append(urls, c.PackageURL)
		}
	}
	wantURLs(t, "CycloneDX document", urls)
	var edges []string
	for _, d := range *doc.Dependencies {
		for _, on := range *d.Dependencies {
			edges = append(edges, name[d.Ref]+" on "+name[on])
		}
	}
	want := []string{
		"web on nginx-light", "web on example.com/hello/cmd/hello", "web on files",
		"example.com/hello/cmd/hello on stdlib", "example.com/hello/cmd/hello on example.com/dep",
	}
	if diff := cmp.Diff(want, edges); diff != "" {
		t.Error(diff)
	}
}

// TestProvenance reads what is written with in-toto's library, and looks for every input.
func TestProvenance(t *testing.T) {
	raw, err := ledger.Provenance(book(t), "https://builder.test/1")
	if err != nil {
		t.Fatal(err)
	}
	var p provenance.Provenance
	if err := protojson.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
	if p.BuildDefinition.BuildType != ledger.BuildType || p.RunDetails.Builder.Id != "https://builder.test/1" {
		t.Errorf("%s by %s", p.BuildDefinition.BuildType, p.RunDetails.Builder.Id)
	}
	var got []string
	for _, r := range p.BuildDefinition.ResolvedDependencies {
		for _, d := range []string{"sha256", "dirHash"} {
			if r.Digest[d] != "" {
				got = append(got, r.Name+r.Uri+" "+d+":"+r.Digest[d])
			}
		}
		if len(r.Digest) == 0 {
			got = append(got, r.Name+r.Uri)
		}
	}
	sum := func(text string) string { return " " + digest.FromString(text).String() }
	want := []string{
		purls[0] + sum("deb"),
		"http://archive.test/debian/dists/bookworm/InRelease" + sum("InRelease"),
		"pkg:generic/go@1.26.8",
		"cmd/hello/main.go" + sum("package main"),
		purls[1] + " dirHash:" + digest.FromString("").Encoded(),
		"conf/\"nginx\"\n" + sum("wrapper"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
}

// TestOpaqueImage shows what is said of a base image: that nothing is known of it.
func TestOpaqueImage(t *testing.T) {
	o := objects{}
	w := ledger.NewWriter("image base")
	from := w.Origin(ledger.Origin{Kind: ledger.KindImage, Name: "registry.test/team/base:1", Digest: digest.FromString("manifest")})
	w.Line(ledger.Line{Path: ".", Origin: from})
	c, err := w.Chapter().Canonical()
	chapter := o.put(t, c, err)
	tree := o.put(t, treeOf(dir(".")), nil)
	l, err := ledger.Ledger{
		Schema: ledger.Schema, Component: "web", Arch: "arm64", Artifact: digest.FromString("a"), Seal: digest.FromString("s"),
		Layers: []ledger.Layer{{Chapter: chapter, Tree: tree}},
	}.Canonical()
	b, err := ledger.Read(o, o.put(t, l, err))
	if err != nil {
		t.Fatal(err)
	}
	want := "pkg:oci/base@sha256%3A" + digest.FromString("manifest").Encoded() + "?arch=arm64"
	for name, write := range map[string]func(*ledger.Book) ([]byte, error){
		"SPDX": ledger.SPDX, "CycloneDX": ledger.CycloneDX,
		"provenance": func(b *ledger.Book) ([]byte, error) { return ledger.Provenance(b, "x:y") },
	} {
		raw, err := write(b)
		if err != nil || !strings.Contains(string(raw), want) || name != "provenance" && !strings.Contains(string(raw), "opaque") {
			t.Errorf("%s (%v) does not say that the image is opaque, or which it is: %s", name, err, raw)
		}
	}
}

func treeOf(entries ...image.Entry) []byte { return image.Tree{Entries: entries}.Marshal() }
