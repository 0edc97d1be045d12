package registry

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// Lengths of names, bytes.
const (
	maxName = 255
	maxTag  = 128
)

// validName says whether s can be the name of a repository: components with slashes
// between them, each of lower-case letters and digits with a dot, one or two
// underscores or any number of dashes between them.
func validName(s string) bool {
	if len(s) > maxName {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if !validComponent(part) {
			return false
		}
	}
	return true
}

func validComponent(s string) bool {
	for {
		n := 0
		for n < len(s) && lowerOrDigit(s[n]) {
			n++
		}
		if n == 0 {
			return false
		}
		if s = s[n:]; s == "" {
			return true
		}
		switch {
		case s[0] == '.':
			s = s[1:]
		case strings.HasPrefix(s, "__"):
			s = s[2:]
		case s[0] == '_':
			s = s[1:]
		case s[0] == '-':
			s = strings.TrimLeft(s, "-")
		default:
			return false
		}
	}
}

// validTag says whether s can be a tag: a letter, digit or underscore, and then up to
// 127 of these, dots and dashes.
func validTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !lowerOrDigit(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func lowerOrDigit(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// parseDigest reads a digest of an algorithm that content may be named by here:
// SHA-256 or SHA-512, in lower case.
func parseDigest(s string) (digest.Digest, bool) {
	d := digest.Digest(s)
	if len(s) > 7+128 || d.Validate() != nil {
		return "", false
	}
	return d, d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512
}

// endpoint is what a path asks for.
type endpoint int

const (
	unknownEndpoint endpoint = iota
	ping                     // /v2/
	catalog                  // /v2/_catalog
	tagList                  // /v2/NAME/tags/list
	manifests                // /v2/NAME/manifests/REFERENCE
	blobs                    // /v2/NAME/blobs/DIGEST
	uploads                  // /v2/NAME/blobs/uploads/
	upload                   // /v2/NAME/blobs/uploads/ID
	referrers                // /v2/NAME/referrers/DIGEST
)

// target is a path taken apart.
type target struct {
	endpoint endpoint
	name     string // of the repository, not checked
	ref      string // tag, digest or upload, not checked
}

// parsePath takes a path apart from its end, since names have slashes.
func parsePath(path string) target {
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case !ok:
		return target{}
	case rest == "" || rest == "/":
		return target{endpoint: ping}
	case rest == "/_catalog":
		return target{endpoint: catalog}
	case rest[0] != '/':
		return target{}
	}
	rest = rest[1:]
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return target{tagList, name, ""}
	}
	if name, ok := strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/blobs/uploads"); ok {
		return target{uploads, name, ""}
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return target{}
	}
	parent, ref := rest[:i], rest[i+1:]
	for _, e := range []struct {
		suffix   string
		endpoint endpoint
	}{{"/blobs/uploads", upload}, {"/blobs", blobs}, {"/manifests", manifests}, {"/referrers", referrers}} {
		if name, ok := strings.CutSuffix(parent, e.suffix); ok {
			return target{e.endpoint, name, ref}
		}
	}
	return target{}
}
