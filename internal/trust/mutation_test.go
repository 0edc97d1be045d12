package trust

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What is done to a statement, and what it is called.
func TestMutations(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		bundle func() []byte
		want   Want
		now    time.Time
		is     Verdict
	}{
		"as it should be":                 {func() []byte { return w.marshal(w.say("builder", "provenance", artifact, true)) }, want("provenance"), now, ""},
		"without a proof":                 {func() []byte { return w.marshal(w.say("builder", "provenance", artifact, false)) }, want("provenance"), now, NotLogged},
		"a key that nobody knows":         {func() []byte { return w.marshal(w.say("stranger", "provenance", artifact, true)) }, want("provenance"), now, UnknownKey},
		"a right signature, a wrong role": {func() []byte { return w.marshal(w.say("release", "provenance", artifact, true)) }, want("provenance"), now, WrongRole},
		"a key of the trust root itself":  {func() []byte { return w.marshal(w.say("root1", "provenance", artifact, true)) }, want("provenance"), now, WrongRole},
		"another kind by the right key":   {func() []byte { return w.marshal(w.say("builder", "spdx", artifact, true)) }, want("provenance"), now, WrongPredicate},
		"about another artifact":          {func() []byte { return w.marshal(w.say("builder", "provenance", another, true)) }, want("provenance"), now, OtherArtifact},
		"the trust root has expired":      {func() []byte { return w.marshal(w.say("builder", "provenance", artifact, true)) }, want("provenance"), now.AddDate(1, 0, 0), Expired},
		"the predicate was swapped": {func() []byte {
			b := w.say("builder", "provenance", artifact, true)
			b.Payload = bytes.Replace(b.Payload, []byte(`"predicate":{}`), []byte(`"predicate":{"a":1}`), 1)
			return w.marshal(b)
		}, want("provenance"), now, BadSignature},
		"the predicate's type was swapped": {func() []byte {
			b := w.say("builder", "spdx", artifact, true)
			b.Payload = bytes.Replace(b.Payload, []byte(want("spdx").Kind.PredicateType), []byte(want("provenance").Kind.PredicateType), 1)
			return w.marshal(b)
		}, want("provenance"), now, BadSignature},
		"the proof of another statement": {func() []byte {
			b := w.say("builder", "provenance", artifact, true)
			b.Log = w.say("builder", "provenance", another, true).Log
			return w.marshal(b)
		}, want("provenance"), now, NotLogged},
		"a leaf that says something else": {func() []byte {
			b := w.say("builder", "provenance", artifact, true)
			b.Log.Body = w.say("builder", "provenance", another, true).Log.Body
			return w.marshal(b)
		}, want("provenance"), now, NotLogged},
		"another root beside the proof": {func() []byte {
			b := w.say("builder", "provenance", artifact, true)
			c, err := checkpointOf(b.Log.Proof.Checkpoint)
			if err != nil {
				t.Fatal(err)
			}
			root := base64.StdEncoding.EncodeToString(c.Root[:])
			return bytes.Replace(w.marshal(b), []byte(`"rootHash":"`+root), []byte(`"rootHash":"`+strings.Repeat("A", 43)+"="), 1)
		}, want("provenance"), now, Malformed},
		"a log that nobody knows": {func() []byte {
			b := w.say("builder", "provenance", artifact, true)
			b.Log.Proof.Checkpoint = bytes.Replace(b.Log.Proof.Checkpoint, []byte(origin+"\n"), []byte("lob.example\n"), 1)
			return w.marshal(b)
		}, want("provenance"), now, NotLogged},
		"a log whose key is another's": {func() []byte {
			b := w.say("builder", "provenance", artifact, true)
			b.Log.LogID = make([]byte, 32)
			return w.marshal(b)
		}, want("provenance"), now, NotLogged},
		"no witness": {func() []byte {
			b := w.say("builder", "provenance", artifact, true)
			b.Log.Proof.Checkpoint = w.checkpoint(w.log)
			return w.marshal(b)
		}, want("provenance"), now, Unwitnessed},
		"another place in the log": {func() []byte {
			b := w.say("builder", "provenance", artifact, true)
			b.Log.Proof.Index++
			return w.marshal(b)
		}, want("provenance"), now, NotLogged},
		"no bundle":          {func() []byte { return []byte("{}") }, want("provenance"), now, Malformed},
		"something after it": {func() []byte { return append(w.marshal(w.say("builder", "provenance", artifact, true)), '{', '}') }, want("provenance"), now, Malformed},
		"a key twice": {func() []byte {
			return bytes.Replace(w.marshal(w.say("builder", "provenance", artifact, true)), []byte(`"mediaType"`), []byte(`"mediaType":"","mediaType"`), 1)
		}, want("provenance"), now, Malformed},
	} {
		_, err := w.chain.Verify(c.bundle(), c.want, c.now)
		expect(t, name, err, c.is)
	}
	unlogged := want("provenance")
	unlogged.NoProof = true
	_, err := w.chain.Verify(w.marshal(w.say("builder", "provenance", artifact, false)), unlogged, now)
	expect(t, "without a proof, where that is enough", err, "")
}

// Whatever byte of a bundle is another: it is not believed, or says the very same.
// Of the first kind every byte is tried, of the others samples.
func TestFlippedBitInBundle(t *testing.T) {
	w := newWorld(t)
	random := samples(t)
	for n, kind := range []string{"provenance", "spdx", "cyclonedx", "rebuild"} {
		by := map[string]string{"rebuild": "rebuilder"}[kind]
		good := w.marshal(w.say(cmp.Or(by, "builder"), kind, artifact, true))
		believed, err := w.chain.Verify(good, want(kind), now)
		expect(t, "untouched", err, "")
		verdicts := map[Verdict]int{}
		offsets := random.Perm(len(good))
		if n > 0 {
			offsets = offsets[:300]
		}
		for _, i := range offsets {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << random.IntN(8)
			v, err := w.chain.Verify(bad, want(kind), now)
			var refusal *Refusal
			if errors.As(err, &refusal) {
				verdicts[refusal.Verdict]++
				continue
			}
			verdicts[""]++
			a, _ := json.Marshal(believed)
			if b, _ := json.Marshal(v); err != nil || !bytes.Equal(a, b) {
				t.Errorf("byte %d of %s: believed, and says another thing: %s, %v", i, kind, b, err)
			}
		}
		flips(t, "a bundle: "+kind, verdicts)
	}
}

// Keys are exchanged and revoked, and what was said before stays true.
func TestRotationKeepsHistory(t *testing.T) {
	w := newWorld(t)
	before := w.marshal(w.say("builder", "provenance", artifact, true))
	w.extend(func(r *Root) {
		w.give(r, RoleBuilder, 1, "builder2")
		delete(r.Keys, w.id("builder"))
		l := r.Logs[origin]
		l.From = int64(len(w.leaves))
		r.Logs[origin] = l
	})
	v, err := w.chain.Verify(before, want("provenance"), now)
	expect(t, "the old key, before", err, "")
	if v.Version != 1 || v.Owner != "builder" || v.Log != origin || v.Index != 0 {
		t.Errorf("%+v", v)
	}
	_, err = w.chain.Verify(w.marshal(w.say("builder", "provenance", artifact, true)), want("provenance"), now)
	expect(t, "the old key, after", err, UnknownKey)
	after := w.marshal(w.say("builder2", "provenance", artifact, true))
	v, err = w.chain.Verify(after, want("provenance"), now)
	expect(t, "the new key, after", err, "")
	if v.Version != 2 {
		t.Errorf("%+v", v)
	}
	// An old statement without proof is judged by today's keys.
	unlogged := want("provenance")
	unlogged.NoProof = true
	_, err = w.chain.Verify(w.marshal(w.say("builder", "provenance", artifact, false)), unlogged, now)
	expect(t, "the old key, unrecorded", err, UnknownKey)

	// The new key turns out to be stolen from some entry on.
	stolen := int64(len(w.leaves))
	late := w.marshal(w.say("builder2", "provenance", artifact, true))
	w.extend(func(r *Root) {
		r.Revoked = map[KeyID]Revocation{w.id("builder2"): {Reason: "stolen", From: map[string]int64{origin: stolen}}}
	})
	_, err = w.chain.Verify(after, want("provenance"), now)
	expect(t, "before the theft", err, "")
	_, err = w.chain.Verify(late, want("provenance"), now)
	expect(t, "after the theft, before it was known", err, Revoked)
	_, err = w.chain.Verify(w.marshal(w.say("builder2", "provenance", artifact, false)), unlogged, now)
	expect(t, "unrecorded, so at no known time", err, Revoked)
	w.extend(func(r *Root) { r.Revoked = map[KeyID]Revocation{w.id("builder2"): {Reason: "never to be trusted"}} })
	_, err = w.chain.Verify(after, want("provenance"), now)
	expect(t, "revoked from the beginning", err, Revoked)
}

func TestThreshold(t *testing.T) {
	w := newWorld(t)
	w.extend(func(r *Root) { w.give(r, RoleBuilder, 2, "builder", "builder2") })
	a := w.marshal(w.say("builder", "provenance", artifact, true))
	again := w.marshal(w.say("builder", "provenance", artifact, true))
	b := w.marshal(w.say("builder2", "provenance", artifact, true))
	_, err := w.chain.VerifyAll([][]byte{a, again}, want("provenance"), now)
	expect(t, "one key twice", err, TooFew)
	got, err := w.chain.VerifyAll([][]byte{a, again, b}, want("provenance"), now)
	expect(t, "two keys", err, "")
	if len(got) != 2 {
		t.Errorf("%d are believed", len(got))
	}
	_, err = w.chain.VerifyAll(nil, want("provenance"), now)
	expect(t, "none", err, TooFew)
}

// A threshold that is raised counts from where its version does.
func TestRaisedThreshold(t *testing.T) {
	w := newWorld(t)
	before := w.marshal(w.say("builder", "provenance", artifact, true))
	w.extend(func(r *Root) {
		w.give(r, RoleBuilder, 2, "builder", "builder2")
		l := r.Logs[origin]
		l.From = int64(len(w.leaves))
		r.Logs[origin] = l
	})
	_, err := w.chain.VerifyAll([][]byte{before}, want("provenance"), now)
	expect(t, "one key, when one was enough", err, "")
	after := w.marshal(w.say("builder2", "provenance", artifact, true))
	_, err = w.chain.VerifyAll([][]byte{after}, want("provenance"), now)
	expect(t, "one key, when two were needed", err, TooFew)
	again := w.marshal(w.say("builder", "provenance", artifact, true))
	_, err = w.chain.VerifyAll([][]byte{after, again}, want("provenance"), now)
	expect(t, "two", err, "")
	_, err = w.chain.VerifyAll([][]byte{again, before}, want("provenance"), now)
	expect(t, "the same key before and after", err, "")

	// Who has the role no more says nothing by that.
	w.extend(func(r *Root) { delete(r.Roles, RoleBuilder) })
	_, err = w.chain.VerifyAll([][]byte{after}, want("provenance"), now)
	expect(t, "one of two, and the role is gone since", err, WrongRole)
}

func TestTrustRoot(t *testing.T) {
	w := newWorld(t)
	first := w.chain
	next := first.Latest().Clone()
	next.Expires = now.AddDate(2, 0, 0)
	_, err := first.Extend(next, w.signers("root1"), rand.Reader)
	expect(t, "one root key of two", err, BadSignature)
	_, err = first.Extend(next, w.signers("root1", "root1"), rand.Reader)
	expect(t, "one root key twice", err, BadSignature)
	_, err = first.Extend(next, w.signers("root1", "builder"), rand.Reader)
	expect(t, "a key that is no root key", err, BadSignature)
	usurped := next.Clone()
	w.give(&usurped, RoleRoot, 1, "stranger")
	_, err = first.Extend(usurped, w.signers("stranger"), rand.Reader)
	expect(t, "root keys that nobody of before signed", err, BadSignature)
	double := next.Clone()
	w.give(&double, RoleDeployer, 1, "approver")
	_, err = first.Extend(double, w.signers("root1", "root2"), rand.Reader)
	expect(t, "one key with two roles", err, Malformed)
	w.extend(func(r *Root) { r.Expires = next.Expires })
	second := w.chain
	w.extend(func(r *Root) { r.Expires = r.Expires.AddDate(1, 0, 0) })

	expect(t, "newer", w.chain.Follows(second), "")
	expect(t, "the same", second.Follows(second), "")
	expect(t, "older", second.Follows(w.chain), RolledBack)
	next.Expires = next.Expires.AddDate(0, 0, 1)
	expect(t, "another future", w.must(first.Extend(next, w.signers("root1", "root2"), rand.Reader)).Follows(second), OtherRoot)
	expect(t, "another root", newWorld(t).chain.Follows(second), OtherRoot)

	// A version of another past, though the same keys signed it.
	other := w.must((*Chain)(nil).Extend(next, w.signers("root1", "root2"), rand.Reader))
	other = w.must(other.Extend(next, w.signers("root1", "root2"), rand.Reader))
	spliced, err := (&Chain{versions: []signedRoot{first.versions[0], other.versions[1]}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseChain(spliced)
	expect(t, "another past", err, OtherRoot)

	text, err := w.chain.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseChain(text)
	expect(t, "read again", err, "")
	if again.ID() != first.ID() || again.Versions() != 3 {
		t.Errorf("%s with %d versions", again.ID(), again.Versions())
	}
	flipRoot(t, first, 1)
	flipRoot(t, w.chain, 40) // of 3 versions, each of which takes a dozen signatures to check
	for name, bad := range map[string]string{"nothing": "", "an empty object": "{}", "no version": `{"versions":[]}`, "not a version": `{"versions":[{"signed":{},"signatures":[]}]}`} {
		_, err := ParseChain([]byte(bad))
		expect(t, name, err, Malformed)
	}
}

// flipRoot flips bits of a trust root: it is not believed, or says the very same.
func flipRoot(t *testing.T, c *Chain, step int) {
	t.Helper()
	good, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	random := samples(t)
	verdicts := map[Verdict]int{}
	for i := random.IntN(step); i < len(good); i += step {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << random.IntN(8)
		got, err := ParseChain(bad)
		var refusal *Refusal
		if errors.As(err, &refusal) {
			verdicts[refusal.Verdict]++
			continue
		}
		verdicts[""]++
		if err != nil || got.Digest() != c.Digest() {
			t.Errorf("byte %d: believed, and says another thing: %v", i, err)
		}
	}
	flips(t, fmt.Sprintf("a trust root of %d versions", c.Versions()), verdicts)
}

func FuzzBundle(f *testing.F) {
	w := newWorld(f)
	good := w.say("builder", "provenance", artifact, true)
	f.Add(w.marshal(good))
	f.Add(w.marshal(w.say("builder", "provenance", another, false)))
	f.Add([]byte(`{"mediaType":""}`))
	builder := w.id("builder")
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := w.chain.Verify(text, want("provenance"), now)
		if err == nil && v.Key != builder {
			t.Errorf("%s: %+v", text, v)
		}
		if b, err := ParseBundle(text); err == nil {
			again, err := b.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseBundle(again); err != nil {
				t.Errorf("%s becomes %s: %v", text, again, err)
			}
		}
		ParseStatement(text) //nolint:errcheck // it must not panic
		CheckLogEntry(text)  //nolint:errcheck // likewise
	})
}

func FuzzTrustRoot(f *testing.F) {
	w := newWorld(f)
	text, err := w.chain.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"versions":[{"signed":{},"signatures":[]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseChain(text)
		if err != nil {
			return
		}
		again, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := ParseChain(again); err != nil || d.ID() != c.ID() || d.Versions() != c.Versions() {
			t.Errorf("%s becomes %s: %v", text, again, err)
		}
	})
}

func TestLogEntryIsOfItsKey(t *testing.T) {
	w := newWorld(t)
	b := w.say("builder", "provenance", artifact, false)
	body, err := b.LogEntry(w.public("builder"))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := CheckLogEntry(body); err != nil || id != w.id("builder") {
		t.Errorf("%s, %v", id, err)
	}
	other, err := b.LogEntry(w.public("release"))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"another key": other, "white space": append(body, ' '), "nothing": nil, "an object": []byte("{}")} {
		if _, err := CheckLogEntry(bad); err == nil {
			t.Errorf("%s is a log entry", name)
		}
	}
}
