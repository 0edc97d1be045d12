package registry

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type (
	manifestDoc   = ocispec.Manifest
	descriptorDoc = ocispec.Descriptor
)

func itoa(n int) string { return strconv.Itoa(n) }

// FuzzDocument: whatever is accepted names digests and sizes that can be, is of one
// kind, and is the same when nobody says what it is.
func FuzzDocument(f *testing.F) {
	d := digest.FromString("x").String()
	f.Add(`{"schemaVersion":2,"config":{"mediaType":"a","digest":"`+d+`","size":1},"layers":[]}`, "")
	f.Add(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"a","digest":"`+d+`","size":1}],"subject":{"mediaType":"a","digest":"`+d+`","size":1}}`, ocispec.MediaTypeImageIndex)
	f.Add(`{"schemaVersion":2,"mediaType":"`+dockerManifest+`","config":{"mediaType":"a","digest":"`+d+`","size":1,"data":"eA=="},"layers":[]}`, dockerManifest)
	f.Fuzz(func(t *testing.T, raw, contentType string) {
		doc, err := parseDocument([]byte(raw), contentType)
		if err != nil {
			return
		}
		for _, list := range [][]ocispec.Descriptor{doc.Blobs, doc.Foreign, doc.Manifests} {
			for _, x := range list {
				if x.Digest.Validate() != nil || x.Size < 0 {
					t.Errorf("%v is accepted", x)
				}
			}
		}
		if isIndex(doc.MediaType) && len(doc.Blobs) > 0 || !isIndex(doc.MediaType) && len(doc.Manifests) > 0 {
			t.Error("it is two things at once")
		}
		again, err := parseDocument([]byte(raw), "")
		if err != nil || again.MediaType != doc.MediaType {
			t.Errorf("it was %s, and is stored as %s (%v)", doc.MediaType, again.MediaType, err)
		}
	})
}

// FuzzNames: names and tags are those of the specification's expressions.
func FuzzNames(f *testing.F) {
	name := regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tag := regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	for _, s := range []string{"a", "a/b", "a__b", "a___b", "a..b", "a---b", "a-", "/a", "a//b", "A", "", "..", "a\n", "latest", "_x", "-x", ".x", strings.Repeat("a", 129)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := validName(s), name.MatchString(s) && len(s) <= maxName; got != want {
			t.Errorf("name %q: %v, want %v", s, got, want)
		}
		if got, want := validTag(s), tag.MatchString(s); got != want {
			t.Errorf("tag %q: %v, want %v", s, got, want)
		}
		if p := parsePath(s); p.endpoint != unknownEndpoint && !strings.HasPrefix(s, "/v2") {
			t.Errorf("%q is %v", s, p)
		}
	})
}

// FuzzHeaders: ranges, digests and files of users never panic, and what is accepted
// makes sense.
func FuzzHeaders(f *testing.F) {
	f.Add("0-5")
	f.Add("a:{SHA256}" + digest.FromString("x").Encoded() + ":write")
	f.Add("sha512:" + digest.SHA512.FromString("x").Encoded())
	f.Fuzz(func(t *testing.T, s string) {
		if first, last, err := parseContentRange(s); err == nil && (first < 0 || last < first) {
			t.Errorf("%q is %d to %d", s, first, last)
		}
		if d, ok := parseDigest(s); ok {
			if back, ok := digestOf(refName(d)); !ok || back != d {
				t.Errorf("%s comes back as %s", d, back)
			}
		}
		users, err := parseUsers([]byte(s))
		for name, u := range users {
			if err == nil && (name == "" || u.secret == "" || strings.ContainsAny(name, ":\n")) {
				t.Errorf("%q is a user", name)
			}
		}
	})
}
