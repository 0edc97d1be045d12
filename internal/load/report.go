package load

import (
	"maps"
	"slices"
	"time"
)

// Report is what a run measured.
type Report struct {
	Started     time.Time       `json:"started"`
	Took        time.Duration   `json:"took"`
	Requests    int64           `json:"requests"`
	Failed      int64           `json:"failed"`
	Replayed    int64           `json:"replayed"` // sent again by the client on another connection because the first was closed on it
	FirstErrors []string        `json:"firstErrors,omitempty"`
	P50         time.Duration   `json:"p50"` // of all requests, within 2 %
	P99         time.Duration   `json:"p99"` // of all requests, within 2 %
	Max         time.Duration   `json:"max"`
	Markers     map[string]Seen `json:"markers,omitempty"`
}

// Seen is when answers with one marker came.
type Seen struct {
	Count      int64     `json:"count"`
	FirstSent  time.Time `json:"firstSent"`  // earliest sending of a request that got one
	FirstBegan time.Time `json:"firstBegan"` // earliest beginning of such an answer
	LastSent   time.Time `json:"lastSent"`   // latest sending of a request that got one
	LastBegan  time.Time `json:"lastBegan"`  // latest beginning of such an answer
}

// AllOn tells when all traffic was with the version of this marker: when the last
// answer of another version began, or, if that came earlier, when the first one of
// this version did. It is zero if no answer of this version was seen. Meaningful
// for one change: the other versions must have been there before.
func (r Report) AllOn(marker string) time.Time {
	at := r.Markers[marker].FirstBegan
	if at.IsZero() {
		return at
	}
	for m, seen := range r.Markers {
		if m != marker && seen.LastBegan.After(at) {
			at = seen.LastBegan
		}
	}
	return at
}

// answer is one request as it went.
type answer struct {
	sent, began time.Time // began: its header was there; zero if there was no answer
	took        time.Duration
	marker      string
	replayed    bool
	err         error
}

// tally is what one worker, or all of them, counted.
type tally struct {
	requests, failed, replayed int64
	errors                     []failure
	latency                    histogram
	markers                    map[string]Seen
}

type failure struct {
	at   time.Time
	text string
}

func (t *tally) count(a answer) {
	t.requests++
	t.latency.add(a.took)
	if a.replayed {
		t.replayed++
	}
	if a.err != nil {
		t.failed++
		if len(t.errors) < maxErrors {
			t.errors = append(t.errors, failure{a.sent, a.err.Error()})
		}
	}
	if a.began.IsZero() || a.marker == "" {
		return
	}
	t.see(a.marker, Seen{Count: 1, FirstSent: a.sent, FirstBegan: a.began, LastSent: a.sent, LastBegan: a.began})
}

// see merges sightings of a marker. A server that makes up ever new ones is not followed.
func (t *tally) see(marker string, s Seen) {
	if t.markers == nil {
		t.markers = map[string]Seen{}
	}
	was, ok := t.markers[marker]
	if !ok {
		if len(t.markers) < maxMarkers {
			t.markers[marker] = s
		}
		return
	}
	t.markers[marker] = Seen{
		Count:     was.Count + s.Count,
		FirstSent: earlier(was.FirstSent, s.FirstSent), FirstBegan: earlier(was.FirstBegan, s.FirstBegan),
		LastSent: later(was.LastSent, s.LastSent), LastBegan: later(was.LastBegan, s.LastBegan),
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (t *tally) clone() tally {
	c := *t
	c.errors = slices.Clone(t.errors)
	c.markers = maps.Clone(t.markers)
	return c
}

func (t *tally) add(o tally) {
	t.requests += o.requests
	t.failed += o.failed
	t.replayed += o.replayed
	t.errors = append(t.errors, o.errors...)
	t.latency.merge(&o.latency)
	for m, s := range o.markers {
		t.see(m, s)
	}
}

func (t *tally) report(started, ended time.Time) Report {
	r := Report{
		Started: started, Took: ended.Sub(started), Requests: t.requests, Failed: t.failed, Replayed: t.replayed,
		P50: t.latency.quantile(0.50), P99: t.latency.quantile(0.99), Max: t.latency.max, Markers: t.markers,
	}
	slices.SortFunc(t.errors, func(a, b failure) int { return a.at.Compare(b.at) })
	for _, e := range t.errors[:min(len(t.errors), maxErrors)] {
		r.FirstErrors = append(r.FirstErrors, e.text)
	}
	return r
}
