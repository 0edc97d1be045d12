package e2e

import (
	"context"
	"net/http"
	"testing"
)

// TestPreviewAndMatch: a release that has none of the traffic, or little, is met by who asks
// for it: by the preview's host name, or by a header. And a client stays with the release that
// served it first.
func TestPreviewAndMatch(t *testing.T) {
	a := newHost(t).guest()
	preview := "    strategy: {blue-green: {preview: next.example.test, approve: true}}\n"
	a.edit("ashlar.yaml", "    replicas: 2\n", "    replicas: 2\n"+preview)
	a.deploy()
	plain := func(*http.Request) {}
	a.release("0", "1").ok()
	a.asksFor(2)
	for range 5 {
		a.meets("1", func(r *http.Request) { r.Host = "next.example.test" })
		a.meets("0", plain)
	}
	a.ashlar("rollout", "approve", "--watch").ok()
	a.oneRelease("1")

	a.edit("ashlar.yaml", preview, "    strategy: {canary: {steps: [{weight: 50, approve: true}, 100], match: {header: X-Canary, value: always}, sticky: first}}\n")
	a.release("1", "2").ok()
	a.asksFor(3)
	for range 5 {
		a.meets("2", func(r *http.Request) { r.Header.Set("X-Canary", "always") })
	}
	met := map[string]bool{}
	for range 10 {
		mark, cookies := a.meet(plain)
		if len(cookies) != 1 || cookies[0].Name != "first" {
			t.Fatalf("release %s sets the cookies %v", mark, cookies)
		}
		met[mark] = true
		for range 5 {
			a.meets(mark, func(r *http.Request) { r.AddCookie(cookies[0]) })
		}
	}
	if !met["1"] || !met["2"] {
		t.Errorf("at half of the traffic ten clients met %v", met)
	}
	a.ashlar("rollout", "approve", "--watch").ok()
	a.oneRelease("2")
	a.ashlar("log", "verify").ok()
}

// meets expects that a request is answered by the release with the mark.
func (a *app) meets(mark string, change func(*http.Request)) {
	a.t.Helper()
	if got, _ := a.meet(change); got != mark {
		a.t.Errorf("release %s answered, want %s", got, mark)
	}
}

// meet asks once and gives the mark of the release that answered, and the cookies that it set.
func (a *app) meet(change func(*http.Request)) (string, []*http.Cookie) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.address+"/", nil)
	if err != nil {
		a.t.Fatal(err)
	}
	change(req)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.Header.Get("Mark"), resp.Cookies()
}
