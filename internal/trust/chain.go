package trust

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/gowebpki/jcs"
	"github.com/opencontainers/go-digest"
)

// MaxRoot is the largest trust root that is read, in bytes; and of its versions.
const (
	MaxRoot     = 4 << 20
	maxVersions = 1000
)

// Chain is a trust root with all its versions, each signed by the one before. It is
// one file: who trusts its first version trusts the last.
type Chain struct {
	versions []signedRoot
}

type signedRoot struct {
	root   Root
	digest digest.Digest   // of the canonical form
	raw    json.RawMessage // canonical
	sigs   []RootSignature
}

// RootSignature is a signature in TUF's form.
type RootSignature struct {
	KeyID KeyID  `json:"keyid"`
	Sig   string `json:"sig"` // hex
}

type chainJSON struct {
	Versions []versionJSON `json:"versions"`
}

type versionJSON struct {
	Signed     json.RawMessage `json:"signed"`
	Signatures []RootSignature `json:"signatures"`
}

// ParseChain reads a trust root and checks that each version was signed by enough
// of its own root keys, and of the version's before.
func ParseChain(text []byte) (*Chain, error) {
	var in chainJSON
	if err := strict(text, MaxRoot, &in); err != nil {
		return nil, refuse(Malformed, "the trust root is not readable: %v", err)
	}
	if len(in.Versions) == 0 || len(in.Versions) > maxVersions {
		return nil, refuse(Malformed, "the trust root has %d versions", len(in.Versions))
	}
	c := &Chain{}
	for i, v := range in.Versions {
		raw, err := jcs.Transform(v.Signed)
		if err != nil {
			return nil, refuse(Malformed, "version %d of the trust root is not readable: %v", i+1, err)
		}
		next := signedRoot{raw: raw, digest: digest.FromBytes(raw), sigs: v.Signatures}
		if err := strict(raw, MaxRoot, &next.root); err != nil {
			return nil, refuse(Malformed, "version %d of the trust root is not readable: %v", i+1, err)
		}
		if again, err := next.root.canonical(); err != nil || !bytes.Equal(again, raw) {
			return nil, refuse(Malformed, "version %d of the trust root is not in its one form", i+1)
		}
		if err := c.append(next); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Chain) append(next signedRoot) error {
	n := len(c.versions)
	if err := next.root.Validate(); err != nil {
		return refuse(Malformed, "version %d of the trust root is not one: %v", n+1, err)
	}
	if next.root.Version != n+1 {
		return refuse(Malformed, "version %d of the trust root says that it is version %d", n+1, next.root.Version)
	}
	if n > 0 && next.root.Previous != c.versions[n-1].digest {
		return refuse(OtherRoot, "version %d of the trust root does not follow version %d", n+1, n)
	}
	by := []Root{next.root}
	if n > 0 {
		by = append(by, c.versions[n-1].root)
	}
	for _, r := range by {
		if got := signers(r, next); got < r.Roles[RoleRoot].Threshold {
			return refuse(BadSignature, "version %d of the trust root is signed by %d root keys of version %d; %d are needed", n+1, got, r.Version, r.Roles[RoleRoot].Threshold)
		}
	}
	c.versions = append(c.versions, next)
	return nil
}

// signers counts the root keys of r that signed.
func signers(r Root, s signedRoot) int {
	counted := map[KeyID]bool{}
	for _, sig := range s.sigs {
		key, ok := r.public(sig.KeyID)
		raw, err := hex.DecodeString(sig.Sig)
		if ok && err == nil && r.Has(RoleRoot, sig.KeyID) && key.verify(s.raw, raw) {
			counted[sig.KeyID] = true
		}
	}
	return len(counted)
}

// Latest is the version in force.
func (c *Chain) Latest() Root { return c.versions[len(c.versions)-1].root }

// Versions is how many there are.
func (c *Chain) Versions() int { return len(c.versions) }

// ID names the trust root: the digest of its first version.
func (c *Chain) ID() digest.Digest { return c.versions[0].digest }

// Digest names the version in force.
func (c *Chain) Digest() digest.Digest { return c.versions[len(c.versions)-1].digest }

// Marshal gives the trust root as a file.
func (c *Chain) Marshal() ([]byte, error) {
	var out chainJSON
	for _, v := range c.versions {
		out.Versions = append(out.Versions, versionJSON{v.raw, v.sigs})
	}
	text, err := json.MarshalIndent(out, "", "  ")
	return append(text, '\n'), err
}

// Extend gives the trust root with one more version, signed by the keys; nil makes a
// trust root of its first version. Version, type and predecessor are set here.
func (c *Chain) Extend(r Root, signers []crypto.Signer, random io.Reader) (*Chain, error) {
	out := &Chain{}
	r.Type, r.SpecVersion, r.Version, r.Expires = "root", "1.0.0", 1, r.Expires.UTC().Truncate(time.Second)
	if c != nil {
		out.versions = append(out.versions, c.versions...)
		r.Version, r.Previous = len(c.versions)+1, c.versions[len(c.versions)-1].digest
	}
	raw, err := r.canonical()
	if err != nil {
		return nil, err
	}
	next := signedRoot{root: r, digest: digest.FromBytes(raw), raw: raw}
	sum := sha256.Sum256(raw)
	for _, s := range signers {
		key, err := NewPublicKey(s.Public())
		if err != nil {
			return nil, err
		}
		sig, err := s.Sign(random, sum[:], crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("trust: sign: %w", err)
		}
		next.sigs = append(next.sigs, RootSignature{key.ID(), hex.EncodeToString(sig)})
	}
	return out, out.append(next)
}

// Follows says whether the trust root goes on from one that was used before: nil, or
// a refusal.
func (c *Chain) Follows(before *Chain) error {
	for i, v := range before.versions {
		if i == len(c.versions) {
			return refuse(RolledBack, "the trust root has %d versions; one with %d was used before", len(c.versions), len(before.versions))
		}
		if v.digest != c.versions[i].digest {
			return refuse(OtherRoot, "version %d of the trust root is not the one that was used before", i+1)
		}
	}
	return nil
}

// Fresh says whether the trust root may decide at a time: nil, or a refusal.
func (c *Chain) Fresh(now time.Time) error {
	if r := c.Latest(); !now.Before(r.Expires) {
		return refuse(Expired, "version %d of the trust root expired on %s", r.Version, r.Expires.Format(time.DateOnly))
	}
	return nil
}
