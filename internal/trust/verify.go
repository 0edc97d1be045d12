package trust

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// Want is what a statement has to be to count.
type Want struct {
	Kind    Kind
	About   digest.Digest // the artifact
	NoProof bool          // it counts also without the proof that it is in a log
}

// Verified is a statement that is believed.
type Verified struct {
	Statement Statement            `json:"statement"`
	Key       KeyID                `json:"key"`
	Owner     string               `json:"owner,omitempty"`
	Version   int                  `json:"version"`       // of the trust root that it was judged by
	Log       string               `json:"log,omitempty"` // where it is recorded
	Index     int64                `json:"index"`         // there; -1: it is not
	Seen      []record.Cosignature `json:"seen,omitempty"`
}

// Verify judges one bundle. Its error is a *Refusal.
func (c *Chain) Verify(bundle []byte, want Want, now time.Time) (Verified, error) {
	if err := c.Fresh(now); err != nil {
		return Verified{}, err
	}
	b, err := ParseBundle(bundle)
	if err != nil {
		return Verified{}, refuse(Malformed, "%v", err)
	}
	key, ok := c.find(b.Key)
	if !ok {
		return Verified{}, refuse(UnknownKey, "the trust root does not know the key %s", b.Key)
	}
	if !key.verify(message(b.Payload), b.Signature) {
		return Verified{}, refuse(BadSignature, "the signature is not of the key %s over the statement", b.Key)
	}
	out := Verified{Key: b.Key, Index: -1}
	root := c.Latest()
	switch {
	case b.Log != nil:
		if root, err = c.logged(b, key, &out); err != nil {
			return Verified{}, err
		}
	case !want.NoProof:
		return Verified{}, refuse(NotLogged, "the statement bears no proof that it is in a record")
	}
	out.Version, out.Owner = root.Version, root.Keys[b.Key].Owner
	if out.Statement, err = c.content(root, b, want); err != nil {
		return Verified{}, err
	}
	return out, c.revoked(out)
}

// Key gives a key of any version, whatever it may say now.
func (c *Chain) Key(id KeyID) (PublicKey, bool) { return c.find(id) }

// find gives a key of any version: which one counts is seen later.
func (c *Chain) find(id KeyID) (PublicKey, bool) {
	for _, v := range c.versions {
		if key, ok := v.root.public(id); ok {
			return key, true
		}
	}
	return PublicKey{}, false
}

// logged checks the proof and gives the version that was in force there.
func (c *Chain) logged(b Bundle, key PublicKey, out *Verified) (Root, error) {
	body, err := b.LogEntry(key)
	if err != nil || !bytes.Equal(body, b.Log.Body) {
		return Root{}, refuse(NotLogged, "what is in the log is not this statement")
	}
	origin, _, _ := strings.Cut(string(b.Log.Proof.Checkpoint), "\n")
	log, ok := c.Latest().Logs[origin]
	if !ok {
		return Root{}, refuse(NotLogged, "the trust root does not know the log %q", origin)
	}
	a := log.Auditor()
	if !bytes.Equal(b.Log.LogID, LogID(a.Log, log.Key)) {
		return Root{}, refuse(NotLogged, "the bundle names another log than %s", origin)
	}
	seen, finding := a.Open(b.Log.Proof.Checkpoint)
	switch {
	case finding != nil && finding.Verdict == record.Unwitnessed:
		return Root{}, refuse(Unwitnessed, "%s", finding.What)
	case finding != nil:
		return Root{}, refuse(NotLogged, "%s", finding.What)
	}
	if err := record.CheckInclusion(b.Log.Proof.Hashes, seen.Size, seen.Root, b.Log.Proof.Index, body); err != nil {
		return Root{}, refuse(NotLogged, "%v", err)
	}
	out.Log, out.Index, out.Seen = origin, b.Log.Proof.Index, seen.Cosignatures
	for i := len(c.versions) - 1; i >= 0; i-- {
		r := c.versions[i].root
		if l, ok := r.Logs[origin]; ok && l.From <= out.Index {
			return r, nil
		}
	}
	return Root{}, refuse(UnknownKey, "no version of the trust root was in force at entry %d of %s", out.Index, origin)
}

// content checks who may say what, and what is said.
func (c *Chain) content(root Root, b Bundle, want Want) (Statement, error) {
	s, err := ParseStatement(b.Payload)
	if err != nil {
		return s, refuse(Malformed, "%v", err)
	}
	if s.PredicateType != want.Kind.PredicateType {
		return s, refuse(WrongPredicate, "the statement is of the type %s, not %s", s.PredicateType, want.Kind.PredicateType)
	}
	if _, ok := root.Keys[b.Key]; !ok {
		return s, refuse(UnknownKey, "version %d of the trust root, which was in force, does not know the key %s", root.Version, b.Key)
	}
	if !root.Has(want.Kind.Role, b.Key) {
		return s, refuse(WrongRole, "the key %s does not have the role %s in version %d of the trust root", b.Key, want.Kind.Role, root.Version)
	}
	if !s.About(want.About) {
		return s, refuse(OtherArtifact, "the statement is not about %s", want.About)
	}
	return s, nil
}

// revoked judges by the latest version, which may reach back.
func (c *Chain) revoked(v Verified) error {
	r, ok := c.Latest().Revoked[v.Key]
	if !ok {
		return nil
	}
	from, listed := r.From[v.Log]
	if v.Index >= 0 && listed && v.Index < from {
		return nil
	}
	return refuse(Revoked, "the key %s is revoked: %s", v.Key, r.Reason)
}

// VerifyAll judges bundles that have to say the same, by as many keys as the role's
// threshold. It gives those that are believed, and with too few of them the first
// refusal.
func (c *Chain) VerifyAll(bundles [][]byte, want Want, now time.Time) ([]Verified, error) {
	var out []Verified
	var first error
	by := map[KeyID]int{} // place in out
	for _, b := range bundles {
		v, err := c.Verify(b, want, now)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		switch i, again := by[v.Key]; {
		case !again:
			by[v.Key] = len(out)
			out = append(out, v)
		case v.Version < out[i].Version:
			out[i] = v
		}
	}
	switch {
	case c.enough(out, want.Kind.Role):
		return out, nil
	case first != nil:
		return nil, first
	}
	need := max(1, c.Latest().Roles[want.Kind.Role].Threshold)
	return nil, refuse(TooFew, "%d keys of the role %s say so; %d are needed", len(out), want.Kind.Role, need)
}

// enough says whether statements, each by another key, are as many as the role's
// threshold was in a version that was in force then. A threshold that is raised later
// leaves true what was enough before.
func (c *Chain) enough(said []Verified, role Role) bool {
	for _, v := range c.versions {
		n := 0
		for _, s := range said {
			if s.Version <= v.root.Version {
				n++
			}
		}
		if need := v.root.Roles[role].Threshold; need > 0 && n >= need {
			return true
		}
	}
	return false
}

// LogID names a log in bundles: SHA-256 of its name and key, as for checkpoints.
func LogID(v note.Verifier, key string) []byte {
	material := keyMaterial(key)
	sum := sha256.Sum256(append(fmt.Appendf(nil, "%s\n", v.Name()), material...))
	return sum[:]
}
