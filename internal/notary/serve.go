package notary

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// Handler serves the log's files, for reading alone.
func (n *Notary) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /checkpoint", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		w.Write(n.Latest().Signed) //nolint:errcheck // the client went away
	})
	mux.HandleFunc("GET /tile/", n.serveTile)
	return mux
}

// serveTile serves tiles and bundles of what was published, of any width that a
// published log has had.
func (n *Notary) serveTile(w http.ResponseWriter, r *http.Request) {
	t, err := record.ParseTilePath(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil || !record.HasTile(t, n.Latest().Size) {
		http.Error(w, "the log has no such file", http.StatusNotFound)
		return
	}
	var data []byte
	if t.L == record.EntriesLevel {
		from := t.N << t.H
		leaves, readErr := n.Record.Leaves(r.Context(), from, from+int64(t.W))
		data, err = record.Bundle(leaves)
		if readErr == nil && len(leaves) != t.W {
			readErr = fmt.Errorf("%d of %d entries are there", len(leaves), t.W)
		}
		if readErr != nil {
			err = readErr
		}
	} else {
		data, err = record.TileHashes(t, n.Record.Hashes(r.Context()))
	}
	if err != nil {
		n.Log.Error("cannot serve the record", "path", r.URL.Path, "err", err)
		http.Error(w, "the record cannot be read", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Write(data) //nolint:errcheck // the client went away
}
