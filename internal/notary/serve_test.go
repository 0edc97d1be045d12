package notary

import (
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// overHTTP reads a log as an auditor does.
type overHTTP struct {
	t   *testing.T
	url string
}

func (s overHTTP) Read(path string) ([]byte, error) {
	resp, err := http.Get(s.url + "/" + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	if resp.StatusCode == http.StatusNotFound {
		return nil, fs.ErrNotExist
	}
	return io.ReadAll(resp.Body)
}

// A log of several tiles is served whole: an auditor recomputes it from the files
// alone, and finds what was seen before in it.
func TestServedLogIsTheRecord(t *testing.T) {
	p := newPlace(t)
	p.append(t, "x", 300)
	n := p.notary(t, p.config())
	seen := n.Latest()
	p.append(t, "y", 300)
	publish(t, n)
	server := httptest.NewServer(n.Handler())
	defer server.Close()
	a := record.Auditor{Source: overHTTP{t, server.URL}, Log: n.verifier}
	now, finding, err := a.Latest()
	if err != nil || finding != nil || now.Size != 600 {
		t.Fatalf("%+v, %+v, %v", now, finding, err)
	}
	report, err := a.Audit(now.Checkpoint)
	if err != nil || !report.OK() || report.Entries != 600 {
		t.Errorf("%+v, %v", report, err)
	}
	if finding, err := a.Compare(now.Checkpoint, seen.Checkpoint); finding != nil || err != nil {
		t.Errorf("%+v, %v", finding, err)
	}
	for path, want := range map[string]int{
		"/tile/0/002.p/88": 200, "/tile/0/002.p/89": 404, "/tile/0/002": 404, "/tile/0/001.p/3": 200, "/tile/1/000.p/2": 200, "/tile/1/000.p/3": 404,
		"/tile/entries/002.p/88": 200, "/tile/entries/002.p/89": 404, "/tile/0/0": 404, "/tile/data/000": 404, "/checkpoint": 200, "/": 404, "/tile/../checkpoint": 301,
	} {
		req := httptest.NewRequest(http.MethodGet, path, nil)
		w := httptest.NewRecorder()
		n.Handler().ServeHTTP(w, req)
		if w.Code != want && !(want == 301 && w.Code/100 == 3) {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/checkpoint", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}
