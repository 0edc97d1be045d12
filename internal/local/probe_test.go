package local

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestHealth reads as a story: y is a probe that succeeds, n one that fails, and
// the phase after each follows.
func TestHealth(t *testing.T) {
	once := release.Health{IntervalMS: 1000, Successes: 1, Failures: 3}
	twice := release.Health{IntervalMS: 1000, Successes: 2, Failures: 2}
	settled := release.Health{IntervalMS: 1000, Successes: 1, Failures: 2, SettleMS: 2000}
	tests := []struct {
		name              string
		cfg               release.Health
		adopted, wasReady bool
		want              string
	}{
		{"ready at the first success", once, false, false, "n starting, n starting, y ready"},
		{"one failure is not enough", once, false, false, "y ready, n ready, n ready, y ready, n ready, n ready, n unready, y ready"},
		{"two in a row", twice, false, false, "y starting, n starting, y starting, y ready, n ready, n unready, y unready, y ready"},
		{"ready once it has been so for a while", settled, false, false, "y starting, y starting, n starting, y starting, y starting, y ready, n ready, n unready, y ready"},
		{"adopted, was ready, is", twice, true, true, "y ready"},
		{"adopted, was ready, is not", twice, true, true, "n unknown, n unready, y unready, y ready"},
		{"adopted, was never ready", twice, true, false, "n starting, y starting, y ready"},
		{"adopted, was never ready, is half", twice, true, false, "y starting, y ready"},
	}
	for _, test := range tests {
		h := newHealth(test.cfg, test.adopted, test.wasReady)
		var got []string
		now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
		for step := range strings.SplitSeq(test.want, ", ") {
			now = now.Add(time.Second)
			var err error
			if step[0] == 'n' {
				err = errors.New("down")
			}
			before, _ := h.now()
			changed, _ := h.saw(now, err)
			phase, text := h.now()
			if changed != (phase != before) || (text == "down") != (err != nil) {
				t.Errorf("%s: %s: changed %v, text %q", test.name, step, changed, text)
			}
			got = append(got, step[:2]+string(phase))
		}
		if diff := cmp.Diff(test.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s:\n%s", test.name, diff)
		}
	}
}

func TestProbingIsFastUntilReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		check := func(context.Context) error {
			at = append(at, time.Since(begin))
			if time.Since(begin) < 300*time.Millisecond {
				return errors.New("not yet")
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		h := newHealth(release.Health{IntervalMS: 1000, TimeoutMS: 1000, Successes: 1, Failures: 3}, false, false)
		ready := time.Duration(0)
		h.run(ctx, check, func(rollout.Phase) { ready = time.Since(begin) })
		if ready < 300*time.Millisecond || ready > 400*time.Millisecond {
			t.Errorf("ready after %v", ready)
		}
		if at[0] != 0 || at[1] != firstWait || len(at) > 15 {
			t.Errorf("probes at %v", at)
		}
		if n := len(at); at[n-1]-at[n-2] != time.Second {
			t.Errorf("probes at %v", at)
		}
	})
}

// TestProbingByCommandIsGentle: each probe is a container, and a program that takes ten
// seconds to start is not asked a hundred times.
func TestProbingByCommandIsGentle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		check := func(context.Context) error {
			at = append(at, time.Since(begin))
			return errors.New("not yet")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		newHealth(release.Health{Exec: []string{"/ready"}, IntervalMS: 5000, TimeoutMS: 1000, Successes: 1, Failures: 3}, false, false).run(ctx, check, func(rollout.Phase) {})
		if at[0] != 0 || at[1] != firstExec || len(at) > 20 || at[len(at)-1]-at[len(at)-2] != lastExec {
			t.Errorf("probes at %v", at)
		}
	})
}

func TestProbeThatHangsIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		h := newHealth(release.Health{IntervalMS: 1000, TimeoutMS: 500, Successes: 1, Failures: 3}, false, false)
		probes := 0
		h.run(ctx, func(ctx context.Context) error { probes++; <-ctx.Done(); return ctx.Err() }, func(rollout.Phase) {})
		if probes < 10 {
			t.Errorf("%d probes in 10 s", probes)
		}
	})
}

func TestCheckHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(time.Millisecond):
				}
			}
		case "/huge":
			block := make([]byte, 1<<20)
			for r.Context().Err() == nil {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		case "/silent":
			<-r.Context().Done()
		case "/away":
			http.Redirect(w, r, "/500", http.StatusFound)
		case "/500":
			http.Error(w, "the disk is full\nsecond line", http.StatusInternalServerError)
		case "/cut":
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	free := httptest.NewServer(nil)
	free.Close()
	tests := []struct{ address, path, want string }{
		{address, "/", ""},
		{address, "/huge", ""},
		{address, "/away", ""},
		{address, "/500", "answered 500 Internal Server Error: the disk is full"},
		{address, "/endless", "answered 200 OK, but its body did not end: no answer in time"},
		{address, "/silent", "no answer in time"},
		{address, "/cut", "the connection was closed without an answer"},
		{strings.TrimPrefix(free.URL, "http://"), "/", "connection refused"},
	}
	for _, test := range tests {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := newCheck(release.Health{HTTP: test.path}, test.address)(ctx)
		cancel()
		got := ""
		if err != nil {
			got = strings.TrimPrefix(err.Error(), "GET http://"+test.address+test.path+": ")
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.path, got, test.want)
		}
	}
	if err := newCheck(release.Health{}, address)(t.Context()); err != nil {
		t.Errorf("connect: %v", err)
	}
}
