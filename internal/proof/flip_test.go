package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// samples draws offsets, of a seed that it prints.
func samples(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("the samples are of the seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// all are the checks that the worlds of these tests pass.
func all() []string { return append(Usual(), Ledger, Provenance, SPDX, CycloneDX) }

// told tells how often what was refused by which check.
func told(t *testing.T, found map[string]int) {
	t.Helper()
	for what, n := range found {
		t.Attr("refused", fmt.Sprintf("%s, %d times", what, n))
	}
}

// Any flipped bit of the file is refused, or changes nothing that was proven.
func TestFlippedBits(t *testing.T) {
	w := newWorld(t, 1, 3, 1)
	good := w.file()
	random := samples(t)
	found, same := map[string]int{}, 0
	for range 1000 {
		i := random.IntN(len(good))
		bad := bytes.Clone(good)
		bad[i] ^= 1 << random.IntN(8)
		p, err := Parse(bad)
		if err != nil {
			found["file <- one bit of a proof file"]++
			continue
		}
		if lacking := w.verify(p).Lacking(all()); len(lacking) > 0 {
			found[lacking[0].Name+" <- one bit of a proof file"]++
			continue
		}
		same++
		// What is left are words that nobody vouches for.
		p.Host, p.Taken, p.TrustRoot = w.proof.Host, w.proof.Taken, w.proof.TrustRoot
		for j := range p.Instances {
			p.Instances[j].Phase, p.Instances[j].StartedAt = w.proof.Instances[j].Phase, w.proof.Instances[j].StartedAt
		}
		again, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, good) && !equivalent(again, good) {
			t.Errorf("byte %d: accepted with another meaning: …%s…", i, bad[max(0, i-40):min(len(bad), i+40)])
		}
	}
	t.Logf("of %d bytes %d of 1000 samples say the same, or what is not proven", len(good), same)
	told(t, found)
}

// equivalent says whether two files say the same apart from signatures that were
// added to the checkpoint by others.
func equivalent(a, b []byte) bool {
	var x, y map[string]any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && len(x) == len(y) && strings.EqualFold(string(a), string(b))
}

// One bit of a document in the file is another, and whoever did it gave the document
// its new name wherever the file itself says it.
func TestFlippedBitsRenamed(t *testing.T) {
	w := newWorld(t, 1, 3, 1)
	random := samples(t)
	found := map[string]int{}
	for was, what := range w.documents() {
		good := w.proof.Blobs[was]
		offsets := random.Perm(len(good))
		for _, i := range offsets[:min(len(offsets), 50)] {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << random.IntN(8)
			lacking := w.verify(w.renamed(was, bad)).Lacking(all())
			if len(lacking) > 0 {
				found[lacking[0].Name+" <- one bit of "+what]++
				continue
			}
			x, err := trust.ParseBundle(good)
			y, err2 := trust.ParseBundle(bad)
			if err != nil || err2 != nil || !reflect.DeepEqual(x, y) {
				t.Errorf("%s, byte %d: accepted with another meaning: …%s…", what, i, bad[max(0, i-40):min(len(bad), i+40)])
			}
		}
	}
	told(t, found)
}

// documents says what the blobs of the file are.
func (w *world) documents() map[digest.Digest]string {
	w.t.Helper()
	p := w.proof
	out := map[digest.Digest]string{p.Current: "the release", w.spec(p).Artifact: "a manifest"}
	m, err := image.ParseManifest(p.Blobs[w.spec(p).Artifact])
	w.must(err)
	out[m.Config] = "a configuration"
	for _, l := range m.Layers {
		out[l.Tree] = "a layer's tree"
	}
	for _, d := range p.Settings {
		out[d] = "a settings tree"
	}
	for _, c := range w.rel.Environments["production"].Components {
		out[c.Ledger] = "a ledger"
		l, err := ledger.Parse(p.Blobs[c.Ledger])
		w.must(err)
		for _, y := range l.Layers {
			out[y.Chapter] = "a chapter of a ledger"
		}
	}
	for _, about := range p.Statements {
		for _, d := range about {
			b, err := trust.ParseBundle(p.Blobs[d])
			w.must(err)
			s, err := trust.ParseStatement(b.Payload)
			w.must(err)
			out[d] = "a bundle: " + s.PredicateType
		}
	}
	for d := range p.Blobs {
		if out[d] == "" {
			w.t.Fatalf("%s is a document of no known kind: %.80s", d, p.Blobs[d])
		}
	}
	return out
}

// renamed is the proof with another document in the place of one.
func (w *world) renamed(was digest.Digest, content []byte) *Proof {
	p := *w.proof
	p.Blobs, p.Settings, p.Statements = maps.Clone(p.Blobs), maps.Clone(p.Settings), maps.Clone(p.Statements)
	p.Instances = slices.Clone(p.Instances)
	delete(p.Blobs, was)
	is := p.Put(content)
	if p.Current == was {
		p.Current = is
	}
	for i := range p.Instances {
		if p.Instances[i].Release == was {
			p.Instances[i].Release = is
		}
	}
	for seal, d := range p.Settings {
		if d == was {
			p.Settings[seal] = is
		}
	}
	for about, list := range p.Statements {
		list = slices.Clone(list)
		for i, d := range list {
			if d == was {
				list[i] = is
			}
		}
		if about == was {
			delete(p.Statements, about)
			about = is
		}
		p.Statements[about] = list
	}
	return &p
}
