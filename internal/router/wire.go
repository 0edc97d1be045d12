package router

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	fast "github.com/goccy/go-json"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// readTable reads the table that a server sends, and gives its text too.
func readTable(w http.ResponseWriter, req *http.Request) (rollout.Table, []byte, error) {
	body := http.MaxBytesReader(w, req.Body, maxTableBytes)
	text := bytes.NewBuffer(make([]byte, 0, min(max(req.ContentLength, 0), maxTableBytes)+bytes.MinRead)) // read in one go
	if _, err := io.Copy(text, body); err != nil {
		return rollout.Table{}, nil, unreadable(err)
	}
	table, err := decodeTable(text.Bytes())
	return table, text.Bytes(), err
}

// decodeTable reads one table as JSON. Unknown keys, from a newer server, are
// ignored; anything after the table is refused. A switch waits for it, and package json
// would take ten times as long for a thousand backends; that it is valid is still for
// package json to say, which reads it again after a restart.
func decodeTable(text []byte) (rollout.Table, error) {
	if !json.Valid(text) {
		return rollout.Table{}, unreadable(errors.New("it is not one JSON value"))
	}
	var table rollout.Table
	if err := fast.Unmarshal(text, &table); err != nil {
		return rollout.Table{}, unreadable(err)
	}
	return table, nil
}

func unreadable(err error) error {
	return fault.New(fault.Invalid, "the routing table is not readable: %w", err)
}
