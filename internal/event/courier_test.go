package event_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/event"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/store"
)

var production = rollout.Key{App: "shop", Env: "production"}

// delivery is one request that a receiver got.
type delivery struct {
	id, kind, at, signature string
	body                    []byte
}

// receiver is a real http server that answers as told.
type receiver struct {
	*httptest.Server
	got chan delivery

	mu     sync.Mutex
	answer func(n int, d delivery, w http.ResponseWriter) // n counts requests from 1
	n      int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{got: make(chan delivery, 1000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil || q.Method != http.MethodPost || q.Header.Get("Content-Type") != event.ContentType {
			t.Errorf("%s %s: %v", q.Method, q.Header.Get("Content-Type"), err)
		}
		h := q.Header
		d := delivery{h.Get("webhook-id"), kind(string(body)), h.Get("webhook-timestamp"), h.Get("webhook-signature"), body}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.n++
		if r.answer != nil {
			r.answer(r.n, d, w)
		}
		r.got <- d
	}))
	t.Cleanup(r.Close)
	return r
}

func kind(body string) string {
	_, rest, _ := strings.Cut(body, `"type":"`)
	typ, _, _ := strings.Cut(rest, `"`)
	typ = strings.TrimPrefix(strings.TrimPrefix(typ, "dev.cdevents."), "dev.cdeventsx.ashlar-")
	return typ[:max(len(typ)-len(".0.0.0"), 0)]
}

// next waits for n requests and gives what they told, in order.
func (r *receiver) next(t *testing.T, n int) []delivery {
	t.Helper()
	var out []delivery
	late := time.After(20 * time.Second)
	for range n {
		select {
		case d := <-r.got:
			out = append(out, d)
		case <-late:
			t.Fatalf("got %d of %d: %v", len(out), n, kinds(out))
		}
	}
	return out
}

func kinds(all []delivery) string {
	var out []string
	for _, d := range all {
		out = append(out, d.kind)
	}
	return strings.Join(out, " ")
}

// world is a store, a clock that pauses move, and a courier.
type world struct {
	t      *testing.T
	store  *store.Store
	mu     sync.Mutex
	now    time.Time
	pauses []time.Duration
	hooks  []release.Webhook
	secret func(name string) ([]byte, error)
	wrap   func(event.Store) event.Store
}

func newWorld(t *testing.T) *world {
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "ashlar.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t: t, store: s, now: began}
}

func (w *world) declare(hooks ...release.Webhook) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooks = hooks
}

// clock gives the time.
func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// courier runs one until the test, or the function that it gives, ends it.
func (w *world) courier() (*event.Courier, func()) {
	var s event.Store = w.store
	if w.wrap != nil {
		s = w.wrap(s)
	}
	c := event.New(event.Config{
		Store: s, Source: "/ashlar/here", Log: slog.New(slog.DiscardHandler), Now: w.clock,
		Pause: func(ctx context.Context, d time.Duration) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.now, w.pauses = w.now.Add(d), append(w.pauses, d)
			return ctx.Err()
		},
		Hooks: func(context.Context, rollout.Key) ([]release.Webhook, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.hooks), nil
		},
		Secret: func(_ context.Context, _ rollout.Key, name string) ([]byte, error) { return w.secret(name) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			w.t.Errorf("the courier ended with %v", err)
		}
	})
	w.t.Cleanup(end)
	return c, end
}

// happens appends entries of the kinds, all of one rollout.
func (w *world) happens(number int, kinds ...string) {
	w.t.Helper()
	if err := commit(context.Background(), w.store, w.clock(), number, kinds...); err != nil {
		w.t.Fatal(err)
	}
}

func commit(ctx context.Context, s *store.Store, at time.Time, number int, kinds ...string) error {
	_, version, err := s.State(ctx, production)
	if err != nil {
		return err
	}
	var entries []record.Entry
	for _, k := range kinds {
		entries = append(entries, record.Entry{Time: at, Actor: "ashlar", Kind: k, App: production.App, Env: production.Env, Rollout: number,
			Release: "sha256:2a7fe6f099fb2232f2a62f990b72bba36e707f4ed17b5725e03867ae8d0af1ed", Data: map[string]string{"kind": "deploy"}})
	}
	_, err = s.Commit(ctx, production, version, rollout.State{App: production.App, Env: production.Env, Rollouts: number}, entries)
	return err
}

func TestDelivery(t *testing.T) {
	w, r, other := newWorld(t), newReceiver(t), newReceiver(t)
	w.secret = func(name string) ([]byte, error) { return []byte("key of " + name), nil }
	w.courier()
	w.happens(1, "rollout.begun", "instance.ordered", "routes.ordered")
	w.declare(release.Webhook{URL: r.URL, Secret: "hook"}, release.Webhook{URL: other.URL + "/x?y=z"})
	w.happens(1, "release.live", "rollout.live")
	got := r.next(t, 4)
	if kinds(got) != "environment.created rollout.begun service.deployed rollout.live" {
		t.Errorf("told %s", kinds(got))
	}
	for _, d := range got {
		at, err := strconv.ParseInt(d.at, 10, 64)
		if err != nil || !time.Unix(at, 0).Equal(began.Truncate(time.Second)) {
			t.Errorf("attempted at %q", d.at)
		}
		if want := event.Sign([]byte("key of hook"), d.id, time.Unix(at, 0), d.body); d.signature != want {
			t.Errorf("signed %q, want %q", d.signature, want)
		}
	}
	same := other.next(t, 4)
	for i := range same {
		if same[i].id != got[i].id || same[i].signature != "" {
			t.Errorf("the other got %s, signed %q; want %s and nothing", same[i].id, same[i].signature, got[i].id)
		}
	}
	w.happens(2, "rollout.begun", "release.live")
	if got := r.next(t, 2); kinds(got) != "rollout.begun service.upgraded" {
		t.Errorf("told %s", kinds(got))
	}
}

// TestRetries: whatever is no 2xx is asked again after growing pauses, in order, and
// with the same ID.
func TestRetries(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	elsewhere := newReceiver(t)
	r.answer = func(n int, _ delivery, w http.ResponseWriter) {
		switch n {
		case 1, 2:
			w.WriteHeader(http.StatusInternalServerError)
		case 3:
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		case 4:
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
		case 5:
			panic(http.ErrAbortHandler)
		}
	}
	w.declare(release.Webhook{URL: r.URL})
	c, _ := w.courier()
	w.happens(2, "rollout.begun", "rollout.live")
	got := r.next(t, 6) // the fifth is broken off before it is told of
	if kinds(got) != "rollout.begun rollout.begun rollout.begun rollout.begun rollout.begun rollout.live" {
		t.Errorf("told %s", kinds(got))
	}
	if got[0].id != got[4].id || got[4].id == got[5].id {
		t.Errorf("IDs %v", got)
	}
	w.mu.Lock()
	if want := []time.Duration{1, 2, 4, 120, 16}; !slices.EqualFunc(w.pauses, want, func(a, b time.Duration) bool { return a == b*time.Second }) {
		t.Errorf("pauses %v", w.pauses)
	}
	w.mu.Unlock()
	if len(elsewhere.got) > 0 {
		t.Error("a redirect was followed")
	}
	if trouble := c.Troubles(production); len(trouble) > 0 {
		t.Errorf("in trouble after all: %v", trouble)
	}
}

// TestGiveUp: what a receiver cannot be told within a day is skipped, once, with an
// entry, and what is younger is told when it is back.
func TestGiveUp(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	taken := make(chan delivery, 100)
	r.answer = func(_ int, d delivery, a http.ResponseWriter) {
		if w.clock().Sub(began) < 25*time.Hour {
			a.WriteHeader(http.StatusBadGateway)
			return
		}
		taken <- d
	}
	w.declare(release.Webhook{URL: r.URL + "/hook?token=hidden"})
	w.happens(2, "rollout.begun", "release.live", "rollout.live")
	w.mu.Lock()
	w.now = w.now.Add(2 * time.Hour)
	w.mu.Unlock()
	w.happens(3, "rollout.begun")
	if err := w.store.Tell(t.Context(), production, r.URL+"/hook?token=hidden", 0, nil); err != nil {
		t.Fatal(err)
	}
	w.courier()
	var last []delivery
	for late := time.After(20 * time.Second); len(last) < 2; {
		select {
		case d := <-taken:
			last = append(last, d)
		case <-late:
			t.Fatalf("back again, it is told %s", kinds(last))
		}
	}
	if kinds(last) != "rollout.begun webhook.skipped" {
		t.Errorf("back again, it is told %s", kinds(last))
	}
	entries, err := w.store.Entries(t.Context(), production, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	var skipped []record.Entry
	for _, e := range entries {
		if e.Kind == "webhook.skipped" {
			skipped = append(skipped, e)
		}
	}
	if len(skipped) != 1 || fmt.Sprint(skipped[0].Data) != "map[events:3 first:0 last:2]" || strings.Contains(skipped[0].Reason, "hidden") ||
		!strings.Contains(skipped[0].Reason, "502 Bad Gateway") {
		t.Errorf("recorded %+v", skipped)
	}
}

// TestSkippingIsNotToldOfSkipping: that something was skipped is told if it can be, and
// is nothing to record again if not.
func TestSkippingIsNotToldOfSkipping(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	r.answer = func(_ int, d delivery, a http.ResponseWriter) {
		if d.kind == "webhook.skipped" {
			a.WriteHeader(http.StatusGone)
		}
	}
	w.happens(2, "webhook.skipped")
	w.mu.Lock()
	w.now = w.now.Add(25 * time.Hour)
	w.mu.Unlock()
	w.happens(3, "rollout.begun")
	w.declare(release.Webhook{URL: r.URL})
	if err := w.store.Tell(t.Context(), production, r.URL, 0, nil); err != nil {
		t.Fatal(err)
	}
	w.courier()
	if got := r.next(t, 2); kinds(got) != "webhook.skipped rollout.begun" {
		t.Errorf("told %s", kinds(got))
	}
	entries, err := w.store.Entries(t.Context(), production, 0, -1)
	if err != nil || len(entries) != 2 {
		t.Errorf("recorded %+v (%v)", entries, err)
	}
}

// TestSecretThatCannotBeHad: nothing is sent unsigned that was to be signed.
func TestSecretThatCannotBeHad(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	tries := 0
	w.secret = func(string) ([]byte, error) {
		if tries++; tries < 4 {
			return nil, errors.New("there is no such secret")
		}
		return []byte("key"), nil
	}
	w.declare(release.Webhook{URL: r.URL, Secret: "hook"})
	w.courier()
	w.happens(2, "rollout.begun")
	if got := r.next(t, 1); got[0].signature == "" || tries != 4 {
		t.Errorf("signed %q at try %d", got[0].signature, tries)
	}
}

// TestWebhooksComeAndGo: a new one hears of the rollout that brings it, one that was taken
// away hears nothing, and one that comes again does not hear what it missed.
func TestWebhooksComeAndGo(t *testing.T) {
	w, a, b := newWorld(t), newReceiver(t), newReceiver(t)
	w.declare(release.Webhook{URL: a.URL})
	w.courier()
	w.happens(2, "rollout.begun", "release.live")
	a.next(t, 2)
	w.happens(3, "rollout.begun")
	a.next(t, 1)
	w.declare(release.Webhook{URL: b.URL})
	w.happens(3, "release.live")
	if got := b.next(t, 2); kinds(got) != "rollout.begun service.upgraded" {
		t.Errorf("the new one is told %s", kinds(got))
	}
	for len(a.got) > 0 { // the move that took it away may have reached it
		if d := <-a.got; d.kind != "service.upgraded" {
			t.Errorf("the old one is told %s", d.kind)
		}
	}
	w.happens(4, "rollout.begun")
	b.next(t, 1)
	w.declare(release.Webhook{URL: a.URL}, release.Webhook{URL: b.URL})
	w.happens(4, "release.live")
	b.next(t, 1)
	if got := a.next(t, 2); kinds(got) != "rollout.begun service.upgraded" {
		t.Errorf("the one that is back is told %s", kinds(got))
	}
	if len(a.got)+len(b.got) > 0 {
		t.Errorf("%d and %d more", len(a.got), len(b.got))
	}
}

// failing fails every other call that changes something.
type failing struct {
	event.Store
	mu sync.Mutex
	n  int
}

func (f *failing) Tell(ctx context.Context, env rollout.Key, url string, next int64, entries []record.Entry) error {
	f.mu.Lock()
	f.n++
	fail := f.n%2 == 1
	f.mu.Unlock()
	if fail {
		return errors.New("the disk is full")
	}
	return f.Store.Tell(ctx, env, url, next, entries)
}

// TestStoreThatFails: what cannot be noted is told again, with the same IDs.
func TestStoreThatFails(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	w.wrap = func(s event.Store) event.Store { return &failing{Store: s} }
	w.declare(release.Webhook{URL: r.URL})
	w.courier()
	w.happens(2, "rollout.begun", "rollout.live")
	got := r.next(t, 4)
	if kinds(got) != "rollout.begun rollout.begun rollout.live rollout.live" || got[0].id != got[1].id || got[2].id != got[3].id {
		t.Errorf("told %v", got)
	}
}

// courierDir tells the test binary to be the courier that is killed.
const courierDir = "ASHLAR_TEST_COURIER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(courierDir); dir != "" {
		fmt.Fprintln(os.Stderr, courierForEver(dir, os.Getenv("ASHLAR_TEST_COURIER_URL")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func courierForEver(dir, url string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, filepath.Join(dir, "ashlar.db"))
	if err != nil {
		return err
	}
	if err := commit(ctx, s, began, 2, "rollout.begun", "rollout.live"); err != nil {
		return err
	}
	return event.New(event.Config{
		Store: s, Source: "/ashlar/here", Log: slog.Default(), Now: func() time.Time { return began },
		Pause: func(context.Context, time.Duration) error { return errors.New("it never pauses") },
		Hooks: func(context.Context, rollout.Key) ([]release.Webhook, error) {
			return []release.Webhook{{URL: url}}, nil
		},
	}).Run(ctx)
}

// TestKilledBetweenDeliveryAndCursor: the receiver kills the courier with SIGKILL when it has
// taken the event. Another courier tells it again, with the same ID.
func TestKilledBetweenDeliveryAndCursor(t *testing.T) {
	r, dir := newReceiver(t), t.TempDir()
	child := exec.Command(os.Args[0])
	r.answer = func(n int, _ delivery, _ http.ResponseWriter) {
		if n == 1 {
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
			_ = child.Wait() // killed
		}
	}
	child.Env = append(os.Environ(), courierDir+"="+dir, "ASHLAR_TEST_COURIER_URL="+r.URL)
	child.Stderr = os.Stderr
	r.mu.Lock() // the first request waits until the process is known
	err := child.Start()
	r.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	first := r.next(t, 1)[0]
	s, err := store.Open(t.Context(), filepath.Join(dir, "ashlar.db"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: s, now: began}
	w.declare(release.Webhook{URL: r.URL})
	_, end := w.courier()
	again := r.next(t, 2)
	if again[0].id != first.id || string(again[0].body) != string(first.body) || kinds(again) != "rollout.begun rollout.live" {
		t.Errorf("told %v, then %v", first, again)
	}
	end()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
