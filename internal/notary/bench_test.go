package notary

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/store"
)

const benchEntries = 100_000

// BenchmarkAudit is what an auditor outside needs for a whole record: every entry and
// tile over HTTP from a real database, recomputed and compared.
func BenchmarkAudit(b *testing.B) {
	n, s := benchNotary(b)
	defer s.Close() //nolint:errcheck // it is thrown away
	server := httptest.NewServer(n.Handler())
	defer server.Close()
	for b.Loop() {
		a := record.Auditor{Source: benchSource(server.URL), Log: n.verifier}
		now, finding, err := a.Latest()
		if err != nil || finding != nil {
			b.Fatal(finding, err)
		}
		if report, err := a.Audit(now.Checkpoint); err != nil || !report.OK() || report.Entries != benchEntries {
			b.Fatal(report, err)
		}
	}
	b.ReportMetric(float64(benchEntries*b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkProve is one proof of inclusion of one entry.
func BenchmarkProve(b *testing.B) {
	n, s := benchNotary(b)
	defer s.Close() //nolint:errcheck // it is thrown away
	for i := int64(0); b.Loop(); i++ {
		if _, err := n.Prove(b.Context(), i*7919%benchEntries); err != nil {
			b.Fatal(err)
		}
	}
}

func benchNotary(b *testing.B) (*Notary, *store.Store) {
	b.Helper()
	dir := b.TempDir()
	s, err := store.Open(b.Context(), filepath.Join(dir, "ashlar.db"))
	if err != nil {
		b.Fatal(err)
	}
	const batch = 1000
	for i := range benchEntries / batch {
		var entries []record.Entry
		for j := range batch {
			entries = append(entries, record.Entry{Time: epoch, Actor: "root@host", Kind: "instance.ready", App: "shop", Env: "production", Rollout: i, Instance: fmt.Sprintf("shop-production-web-%d", j), Reason: "the health check succeeded"})
		}
		if err := s.Append(b.Context(), entries); err != nil {
			b.Fatal(err)
		}
	}
	n, err := Open(b.Context(), Config{Dir: dir, Host: "host", Record: s, Now: time.Now, Log: slog.New(slog.DiscardHandler), Every: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	return n, s
}

type benchSource string

func (s benchSource) Read(path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, string(s)+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	if resp.StatusCode == http.StatusNotFound {
		return nil, fs.ErrNotExist
	}
	return io.ReadAll(resp.Body)
}
