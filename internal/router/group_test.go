package router

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// of gives a backend its release and weight.
func of(b rollout.Backend, release string, weight int) rollout.Backend {
	b.Release, b.Weight = release, weight
	return b
}

// canary puts one service at /app in force.
func (g *rig) canary(generation int64, svc rollout.Service, backends ...rollout.Backend) {
	g.t.Helper()
	svc.Name, svc.Path, svc.Hold, svc.Drain, svc.Backends = "web", "/app", time.Second, time.Second, backends
	g.apply(shop, rollout.Table{Generation: generation, Listen: g.addr, Services: []rollout.Service{svc}})
}

// with asks once with a header line and gives the body.
func (g *rig) with(name, value string) string {
	g.t.Helper()
	req, err := http.NewRequest("GET", g.url("/app"), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if name != "" {
		req.Header.Add(name, "other")
		req.Header.Add(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		g.t.Fatal(err)
	}
	return read(g.t, resp)
}

func TestMatchSendsToOneRelease(t *testing.T) {
	g := newRig(t)
	old, canary := named(t, "old"), named(t, "canary")
	for generation, c := range []struct {
		match       rollout.Match
		name, value string
	}{
		{rollout.Match{Header: "x-canary", Value: "always", Release: "r2"}, "X-Canary", "always"},
		{rollout.Match{Cookie: "canary", Value: "yes", Release: "r2"}, "Cookie", `a=b; canary="yes" ;c`},
	} {
		g.canary(int64(2*generation+1), rollout.Service{Match: &c.match}, of(old, "r1", 100), of(canary, "r2", 0))
		for range 20 {
			if body := g.with(c.name, c.value); body != "canary" {
				t.Fatalf("%s: %s was answered by %q", c.name, c.value, body)
			}
			for _, other := range []string{"", "Always", "always ", "canary=yesyes", "canary", "=yes", ";;canary=;=", strings.Repeat("canary=no;", 1000)} {
				if other = strings.TrimSpace(other); other == c.value {
					continue
				}
				if body := g.with(c.name, other); body != "old" {
					t.Fatalf("%s: %s was answered by %q", c.name, other, body)
				}
			}
		}
		// Weight 0 and a match that names another release: nothing gets there.
		none := c.match
		none.Release = "r3"
		g.canary(int64(2*generation+2), rollout.Service{Match: &none}, of(old, "r1", 100), of(canary, "r2", 0))
		if body := g.with(c.name, c.value); body != "old" {
			t.Errorf("a match of a release that is not there was answered by %q", body)
		}
	}
}

func TestMatchFallsBackWhenItsReleaseCannotBeReached(t *testing.T) {
	g := newRig(t)
	g.canary(1, rollout.Service{Match: &rollout.Match{Header: "X-Canary", Value: "1", Release: "r2"}},
		of(named(t, "old"), "r1", 1), of(rollout.Backend{ID: "canary", Address: freeAddr(t)}, "r2", 0))
	if body := g.with("X-Canary", "1"); body != "old" {
		t.Errorf("%q answered", body)
	}
}

// Nothing but a match sends to a release of weight 0, also when the others fail.
func TestWeightZeroIsNoWayOut(t *testing.T) {
	g := newRig(t)
	g.canary(1, rollout.Service{Match: &rollout.Match{Header: "X-Canary", Value: "1", Release: "r2"}},
		of(rollout.Backend{ID: "old", Address: freeAddr(t)}, "r1", 1), of(named(t, "canary"), "r2", 0))
	if body := g.with("X-Canary", "2"); body == "canary" {
		t.Error("the canary answered a request without the match")
	}
}

func TestStickyClientStaysWhileItsReleaseHasWeight(t *testing.T) {
	g := newRig(t)
	old, canary := named(t, "old"), named(t, "canary")
	sticky := rollout.Service{Sticky: "shop-release"}
	g.canary(1, sticky, of(old, "r1", 50), of(canary, "r2", 50))
	var clients []*http.Client
	var first []string
	ask := func(c *http.Client) (string, []*http.Cookie) {
		t.Helper()
		resp, err := c.Get(g.url("/app/x"))
		if err != nil {
			t.Fatal(err)
		}
		return read(t, resp), resp.Cookies()
	}
	count := map[string]int{}
	for range 10 {
		jar, _ := cookiejar.New(nil)
		c := &http.Client{Jar: jar}
		body, set := ask(c)
		if len(set) != 1 || set[0].Name != "shop-release" || !set[0].HttpOnly || set[0].SameSite != http.SameSiteLaxMode || set[0].Path != "/app" || set[0].Secure {
			t.Fatalf("first answer set %v", set)
		}
		clients, first = append(clients, c), append(first, body)
		count[body]++
	}
	if count["old"] != 5 || count["canary"] != 5 {
		t.Errorf("10 new clients at 50 to 50: %v", count)
	}
	g.canary(2, sticky, of(old, "r1", 1), of(canary, "r2", 99))
	for i, c := range clients {
		for range 3 {
			if body, set := ask(c); body != first[i] || len(set) != 0 {
				t.Errorf("client %d was with %s and is answered by %s, cookies %v", i, first[i], body, set)
			}
		}
	}
	g.canary(3, sticky, of(old, "r1", 100), of(canary, "r2", 0))
	for i, c := range clients {
		if body, set := ask(c); body != "old" || (first[i] == "canary") != (len(set) == 1) {
			t.Errorf("weight 0: client %d of %s is answered by %s, cookies %v", i, first[i], body, set)
		}
	}
}

func TestStickyIgnoresWhatNobodySet(t *testing.T) {
	g := newRig(t)
	g.canary(1, rollout.Service{Sticky: "s", Match: &rollout.Match{Header: "X-Canary", Value: "1", Release: "r2"}},
		of(named(t, "old"), "r1", 1), of(named(t, "canary"), "r2", 0))
	for _, v := range []string{"s=r2", "s=r9", "s=", "s", "s=r1\x00", "s=" + strings.Repeat("a", 4000), "S=r2"} {
		if body := g.with("Cookie", strings.ReplaceAll(v, "\x00", "")); body != "old" {
			t.Errorf("cookie %q is answered by %q", v, body)
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(&http.Request{Method: "GET", URL: mustURL(t, g.url("/app")), Header: http.Header{"X-Canary": {"1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); body != "canary" || len(resp.Cookies()) != 0 {
		t.Errorf("a look at the canary: %q, cookies %v", body, resp.Cookies())
	}
}

func TestStickyDoesNotPinToAFailure(t *testing.T) {
	g := newRig(t)
	b, _ := instance(t, "a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); io.WriteString(w, "a") })
	g.canary(1, rollout.Service{Sticky: "s"}, of(b, "r1", 1))
	resp, err := http.Get(g.url("/app"))
	if err != nil {
		t.Fatal(err)
	}
	if read(t, resp); len(resp.Cookies()) != 0 {
		t.Errorf("an answer %d set %v", resp.StatusCode, resp.Cookies())
	}
}

// 0 means none and 100 all, over as many requests as one likes, also while many ask.
func TestCanaryShareOverRequests(t *testing.T) {
	g := newRig(t)
	old, canary := named(t, "old"), named(t, "canary")
	for generation, share := range []int{0, 5, 50, 100} {
		g.canary(int64(generation+1), rollout.Service{}, of(old, "r1", 100-share), of(canary, "r2", share))
		const n = 200
		got := make(chan string, n)
		for range 8 {
			go func() {
				for range n / 8 {
					resp, err := http.Get(g.url("/app"))
					if err != nil {
						got <- err.Error()
						continue
					}
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					got <- string(body)
				}
			}()
		}
		count := map[string]int{}
		for range n {
			count[<-got]++
		}
		if want := n * share / 100; count["canary"] != want || count["old"] != n-want {
			t.Errorf("share %d %%: %v of %d", share, fmt.Sprint(count), n)
		}
	}
}
