package registry

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestAttacks: each is refused for its reason, and leaves nothing.
func TestAttacks(t *testing.T) {
	w := newWorld(t)
	good := w.manifest("shop/web", "layer")
	with := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the manifest has no %s:\n%s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	const image, index = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	other, missing := digest.FromString("other"), digest.FromString("missing")
	layer := digest.FromString("layer").String()
	blobs, put := "/v2/shop/web/blobs/uploads/", "/v2/shop/web/manifests/"
	session := func() string {
		return w.want(http.StatusAccepted, "POST", blobs, "").header.Get("Location")
	}
	objects, refs := w.stored()

	for name, c := range map[string]struct {
		method, path, body, kind string
		status                   int
		code                     string
	}{
		"manifest by another digest":       {"PUT", put + other.String(), good, image, 400, "DIGEST_INVALID"},
		"manifest by a short digest":       {"PUT", put + "sha256:abc", good, image, 400, "DIGEST_INVALID"},
		"manifest by MD5":                  {"PUT", put + "md5:d41d8cd98f00b204e9800998ecf8427e", good, image, 400, "DIGEST_INVALID"},
		"manifest by an upper-case digest": {"PUT", put + "sha256:" + strings.ToUpper(other.Encoded()), good, image, 400, "DIGEST_INVALID"},
		"blob that is missing":             {"PUT", put + "t", with(layer, missing.String()), image, 400, "MANIFEST_BLOB_UNKNOWN"},
		"blob of another repository":       {"PUT", "/v2/elsewhere/manifests/t", good, image, 400, "MANIFEST_BLOB_UNKNOWN"},
		"blob of another size":             {"PUT", put + "t", with(`"size":5`, `"size":6`), image, 400, "MANIFEST_INVALID"},
		"negative size":                    {"PUT", put + "t", with(`"size":5`, `"size":-5`), image, 400, "MANIFEST_INVALID"},
		"size beyond numbers":              {"PUT", put + "t", with(`"size":5`, `"size":5e99`), image, 400, "MANIFEST_INVALID"},
		"digest that is a path":            {"PUT", put + "t", with(layer, "sha256:../../../../etc/passwd"), image, 400, "MANIFEST_INVALID"},
		"data that is not the digest's":    {"PUT", put + "t", with(`"size":5`, `"size":5,"data":"b3RoZXI="`), image, 400, "MANIFEST_INVALID"},
		"sent as an index":                 {"PUT", put + "t", good, index, 400, "MANIFEST_INVALID"},
		"sent as HTML":                     {"PUT", put + "t", good, "text/html", 400, "MANIFEST_INVALID"},
		"says it is an index":              {"PUT", put + "t", with(image, index), index, 400, "MANIFEST_INVALID"},
		"says it is HTML":                  {"PUT", put + "t", with(image, "text/html"), "text/html", 400, "MANIFEST_INVALID"},
		"no type is sent, and none known":  {"PUT", put + "t", with(image, "text/html"), "", 400, "MANIFEST_INVALID"},
		"content type that is none":        {"PUT", put + "t", good, ";", 400, "MANIFEST_INVALID"},
		"manifest and index at once":       {"PUT", put + "t", with(`"layers"`, `"manifests":[],"layers"`), image, 400, "MANIFEST_INVALID"},
		"and index in capitals":            {"PUT", put + "t", with(`"layers"`, `"Manifests":[],"layers"`), image, 400, "MANIFEST_INVALID"},
		"a config in capitals":             {"PUT", put + "t", with(`"config"`, `"Config"`), image, 400, "MANIFEST_INVALID"},
		"layers twice":                     {"PUT", put + "t", with(`"layers"`, `"layers":[],"layers"`), image, 400, "MANIFEST_INVALID"},
		"a descriptor's digest twice":      {"PUT", put + "t", with(`"digest":"`+layer, `"digest":"`+missing.String()+`","digest":"`+layer), image, 400, "MANIFEST_INVALID"},
		"an escaped key twice":             {"PUT", put + "t", with(`"layers"`, `"l\u0061yers":[],"layers"`), image, 400, "MANIFEST_INVALID"},
		"schema 1":                         {"PUT", put + "t", `{"schemaVersion":1,"fsLayers":[]}`, "application/vnd.docker.distribution.manifest.v1+json", 400, "MANIFEST_INVALID"},
		"Docker's type without saying so":  {"PUT", put + "t", with(`"mediaType":"`+image+`",`, ""), dockerManifest, 400, "MANIFEST_INVALID"},
		"no JSON":                          {"PUT", put + "t", "<html>", image, 400, "MANIFEST_INVALID"},
		"something after it":               {"PUT", put + "t", good + "{}", image, 400, "MANIFEST_INVALID"},
		"nothing":                          {"PUT", put + "t", "", image, 400, "MANIFEST_INVALID"},
		"null":                             {"PUT", put + "t", "null", image, 400, "MANIFEST_INVALID"},
		"nested deep":                      {"PUT", put + "t", with(`"layers"`, `"x":`+strings.Repeat("[", 9999)+strings.Repeat("]", 9999)+`,"layers"`), image, 400, "MANIFEST_INVALID"},
		"a manifest of 5 MB":               {"PUT", put + "t", with(`"layers"`, `"x":"`+strings.Repeat("x", 5<<20)+`","layers"`), image, 413, "SIZE_INVALID"},
		"20,000 layers":                    {"PUT", put + "t", with(`"layers":[`, `"layers":[`+strings.Repeat(`{"mediaType":"a","digest":"`+layer+`","size":5},`, 20000)), image, 400, "MANIFEST_INVALID"},
		"an index of what is missing":      {"PUT", put + "t", `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[{"mediaType":"` + image + `","digest":"` + missing.String() + `","size":7}]}`, index, 400, "MANIFEST_BLOB_UNKNOWN"},
		"a tag that is a path":             {"PUT", put + "..", good, image, 400, "MANIFEST_INVALID"},
		"a tag that begins with a dot":     {"PUT", put + ".hidden", good, image, 400, "MANIFEST_INVALID"},
		"a tag of 129 bytes":               {"PUT", put + strings.Repeat("t", 129), good, image, 400, "MANIFEST_INVALID"},
		"a tag with an escaped slash":      {"PUT", put + "a%2fb", good, image, 400, "NAME_INVALID"},
		"a tag with a NUL":                 {"PUT", put + "a%00b", good, image, 400, "MANIFEST_INVALID"},
		"an added tag that is a path":      {"PUT", put + digest.FromString(good).String() + "?tag=../../x", good, image, 400, "MANIFEST_INVALID"},
		"a thousand tags":                  {"PUT", put + digest.FromString(good).String() + "?" + strings.Repeat("tag=a&", 1000), good, image, 414, "SIZE_INVALID"},
		"a name that leaves":               {"PUT", "/v2/../../etc/manifests/t", good, image, 400, "NAME_INVALID"},
		"a name that leaves, escaped":      {"PUT", "/v2/%2e%2e/%2e%2e/etc/manifests/t", good, image, 400, "NAME_INVALID"},
		"a name in capitals":               {"POST", "/v2/Shop/blobs/uploads/", "", "", 400, "NAME_INVALID"},
		"an empty component":               {"POST", "/v2/shop//web/blobs/uploads/", "", "", 400, "NAME_INVALID"},
		"a name of 300 bytes":              {"POST", "/v2/" + strings.Repeat("n", 300) + "/blobs/uploads/", "", "", 400, "NAME_INVALID"},
		"no name":                          {"GET", "/v2//tags/list", "", "", 400, "NAME_INVALID"},
		"another API":                      {"GET", "/v1/shop", "", "", 404, "UNSUPPORTED"},
		"a blob by another digest":         {"POST", blobs + "?digest=" + other.String(), "content", "", 400, "DIGEST_INVALID"},
		"a blob by another SHA-512":        {"POST", blobs + "?digest=" + digest.SHA512.FromString("other").String(), "content", "", 400, "DIGEST_INVALID"},
		"a blob by a path":                 {"POST", blobs + "?digest=sha256:../../x", "content", "", 400, "DIGEST_INVALID"},
		"an upload by another digest":      {"PUT", session() + "?digest=" + other.String(), "content", "", 400, "DIGEST_INVALID"},
		"an upload without a digest":       {"PUT", session(), "content", "", 400, "DIGEST_INVALID"},
		"an unknown upload":                {"PATCH", blobs + newID(), "content", "", 404, "BLOB_UPLOAD_UNKNOWN"},
		"an upload that is a path":         {"PATCH", blobs + "..%2f..%2fx", "content", "", 400, "NAME_INVALID"},
		"another repository's upload":      {"PATCH", strings.Replace(session(), "shop/web", "elsewhere", 1), "content", "", 404, "BLOB_UPLOAD_UNKNOWN"},
		"an unknown algorithm":             {"POST", blobs + "?digest-algorithm=md5", "", "", 400, "UNSUPPORTED"},
		"a mount from a path":              {"POST", blobs + "?mount=" + layer + "&from=../../etc", "", "", 400, "NAME_INVALID"},
		"a mount of a path":                {"POST", blobs + "?mount=../../x&from=shop/web", "", "", 400, "DIGEST_INVALID"},
		"a blob that is a path":            {"GET", "/v2/shop/web/blobs/sha256:..%2f..%2f..%2fetc%2fpasswd", "", "", 400, "NAME_INVALID"},
		"referrers of nothing":             {"GET", "/v2/shop/web/referrers/x", "", "", 400, "DIGEST_INVALID"},
		"a page of less than nothing":      {"GET", "/v2/shop/web/tags/list?n=-1", "", "", 400, "UNSUPPORTED"},
		"a blob that a manifest needs":     {"DELETE", "/v2/none/blobs/" + layer, "", "", 404, "BLOB_UNKNOWN"},
		"another method":                   {"POST", put + "t", good, image, 405, "UNSUPPORTED"},
	} {
		t.Run(name, func(t *testing.T) {
			inner := *w
			inner.T = t
			header := []string{}
			if c.kind != "" {
				header = append(header, "Content-Type: "+c.kind)
			}
			if got := inner.do(c.method, c.path, c.body, header...); got.status != c.status || got.code() != c.code {
				t.Errorf("status %d %s, want %d %s\n%.300s", got.status, got.code(), c.status, c.code, got.body)
			}
			if o, r := inner.stored(); o != objects || r != refs {
				t.Errorf("it leaves %d objects and %d references, before there were %d and %d", o, r, objects, refs)
			}
		})
	}
	if log := w.log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("some of it is taken for a failure of the registry:\n%s", log)
	}
	w.put("shop/web", "t", good) // so it was the attacks
	w.want(http.StatusMethodNotAllowed, "DELETE", "/v2/shop/web/blobs/"+layer, "")
}

// TestNothingIsLeftOfRefusedUploads: the bytes of what was refused are gone from the
// disk, not only from the list.
func TestNothingIsLeftOfRefusedUploads(t *testing.T) {
	w := newWorld(t)
	other := digest.FromString("other").String()
	w.want(http.StatusBadRequest, "POST", "/v2/a/blobs/uploads/?digest="+other, strings.Repeat("x", 1<<20))
	loc := w.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
	w.want(http.StatusAccepted, "PATCH", loc, strings.Repeat("x", 1<<20))
	w.want(http.StatusBadRequest, "PUT", loc+"?digest="+other, "")
	loc = w.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
	w.want(http.StatusNoContent, "DELETE", loc, "")
	w.want(http.StatusNotFound, "GET", loc, "")
	left, err := filepath.Glob(filepath.Join(w.dir, "objects", "tmp", "*", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("%q are left (%v)", left, err)
	}
}

// TestUploadsAreBounded: in number, in time, and in what they may say of their size.
func TestUploadsAreBounded(t *testing.T) {
	w := newWorld(t)
	var first string
	for i := range maxSessions {
		loc := w.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
		if i == 0 {
			first = loc
		}
	}
	if got := w.want(http.StatusTooManyRequests, "POST", "/v2/a/blobs/uploads/", ""); got.code() != "TOOMANYREQUESTS" {
		t.Error(got.body)
	}
	w.clock.pass(sessionIdle / 2)
	w.want(http.StatusAccepted, "PATCH", first, "x")
	w.clock.pass(sessionIdle/2 + time.Second)
	w.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "")
	w.want(http.StatusNoContent, "GET", first, "")
	if n := len(w.server.uploads.open); n != 2 {
		t.Errorf("%d uploads are open, want the one that was used and the new one", n)
	}
	r, err := http.NewRequest("PATCH", w.url+first, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = maxBlob + 1
	r.Body = http.NoBody
	r.Header.Set("Expect", "100-continue")
	r.GetBody = nil
	if err := checkLength(r); err == nil {
		t.Error("a blob may say that it is larger than is allowed")
	}
}

// TestChunks: they come in order, and an upload that broke off goes on where it did.
func TestChunks(t *testing.T) {
	w := newWorld(t)
	loc := w.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
	w.want(http.StatusAccepted, "PATCH", loc, "hello ", "Content-Range: 0-5")
	for name, c := range map[string]struct {
		chunk, header string
		status        int
	}{
		"a gap":           {"world", "7-11", 416},
		"an overlap":      {"world", "5-9", 416},
		"another length":  {"world", "6-11", 400},
		"HTTP's own form": {"world", "bytes 6-10/11", 400},
		"backwards":       {"world", "10-6", 400},
		"a sign":          {"world", "+6-10", 400},
		"no number":       {"world", "6-", 400},
	} {
		if got := w.do("PATCH", loc, c.chunk, "Content-Range: "+c.header); got.status != c.status {
			t.Errorf("%s: status %d, want %d", name, got.status, c.status)
		}
	}
	if got := w.want(http.StatusNoContent, "GET", loc, "").header.Get("Range"); got != "0-5" {
		t.Errorf("the range is %s", got)
	}
	w.want(http.StatusCreated, "PUT", loc+"?digest="+digest.FromString("hello world").String(), "world", "Content-Range: 6-10")
	if got := w.want(http.StatusOK, "GET", "/v2/a/blobs/"+digest.FromString("hello world").String(), ""); got.body != "hello world" {
		t.Errorf("the blob is %q", got.body)
	}
}

// TestReferrersAreBounded: many large ones come in parts, each once.
func TestReferrersAreBounded(t *testing.T) {
	w := newWorld(t)
	subject := w.put("a", "t", w.manifest("a", "subject"))
	want := map[string]bool{}
	for i := range 6 {
		want[w.put("a", fmt.Sprint("r", i), w.manifest("a", "x", func(m *ocispec.Manifest) {
			m.Subject = &ocispec.Descriptor{MediaType: m.MediaType, Digest: subject, Size: 1}
			m.Annotations = map[string]string{"n": fmt.Sprint(i), "bomb": strings.Repeat("x", 2<<20)}
		})).String()] = true
	}
	pages, next := 0, "/v2/a/referrers/"+subject.String()
	for ; next != ""; pages++ {
		got := w.want(http.StatusOK, "GET", next, "")
		if len(got.body) > 2*maxManifest {
			t.Fatalf("one answer has %d bytes", len(got.body))
		}
		for d := range want {
			if strings.Contains(got.body, d) {
				delete(want, d)
			}
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(got.header.Get("Link"), "<"), ">")
	}
	if len(want) != 0 || pages < 3 {
		t.Errorf("%d are missing after %d pages", len(want), pages)
	}
}

// TestPages: tags come in order and in parts.
func TestPages(t *testing.T) {
	w := newWorld(t)
	m := w.manifest("a", "x")
	d := w.put("a", "b", m)
	w.want(http.StatusCreated, "PUT", "/v2/a/manifests/"+d.String()+"?tag=c&tag=A&tag=d", m, "Content-Type: "+ocispec.MediaTypeImageManifest)
	for path, want := range map[string]struct{ tags, link string }{
		"":             {`["A","b","c","d"]`, ""},
		"?n=2":         {`["A","b"]`, `</v2/a/tags/list?last=b&n=2>; rel="next"`},
		"?n=2&last=b":  {`["c","d"]`, ""},
		"?last=bb":     {`["c","d"]`, ""},
		"?n=0":         {`[]`, ""},
		"?n=99&last=d": {`[]`, ""},
	} {
		got := w.want(http.StatusOK, "GET", "/v2/a/tags/list"+path, "")
		if got.body != `{"name":"a","tags":`+want.tags+`}` || got.header.Get("Link") != want.link {
			t.Errorf("%q: %s, link %q", path, got.body, got.header.Get("Link"))
		}
	}
	w.want(http.StatusNotFound, "GET", "/v2/nothing/tags/list", "")
}

// TestLoopbackNames: without users no web page may ask in another name.
func TestLoopbackNames(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Loopback = true })
	for host, want := range map[string]int{"localhost": 200, "127.0.0.1:5000": 200, "[::1]:5000": 200, "evil.example": 421, "evil.example:5000": 421, "127.0.0.1.evil.example": 421} {
		if got := w.do("GET", "/v2/", "", "Host: "+host); got.status != want {
			t.Errorf("Host %s: status %d, want %d", host, got.status, want)
		}
	}
}
