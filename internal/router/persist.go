package router

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// saved is the content of router.json: the tables in force, sorted by
// environment. Unknown keys, from a newer router, are ignored.
type saved struct {
	Environments []savedTable `json:"environments"`
}

type savedTable struct {
	rollout.Key
	Text  json.RawMessage `json:"table"` // as it came
	Table rollout.Table   `json:"-"`     // the same, read and checked
}

func statePath(runDir string) string  { return filepath.Join(runDir, "router.json") }
func socketPath(runDir string) string { return filepath.Join(runDir, "router.sock") }

// persist writes the tables as they will be with this one, each as it came: a switch
// waits for it, and has read the text already.
func (r *router) persist(key rollout.Key, text []byte) error {
	texts := maps.Clone(r.saved)
	texts[key] = text
	var b bytes.Buffer
	b.WriteString(`{"environments":[`)
	for i, k := range slices.SortedFunc(maps.Keys(texts), func(a, b rollout.Key) int { return strings.Compare(a.String(), b.String()) }) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"app":%q,"env":%q,"table":`, k.App, k.Env) // names, see validName: quoted as JSON does
		b.Write(texts[k])
		b.WriteByte('}')
	}
	b.WriteString("]}\n")
	if err := durable.Replace(statePath(r.runDir), b.Bytes(), 0o600); err != nil {
		return fault.New(fault.Unavailable, "cannot save the routing tables: %w", err).At(statePath(r.runDir)).
			Mend("make room or mend the directory, then try again; nothing was changed")
	}
	r.saved = texts
	return nil
}

// restore puts the saved tables in force, without opening their addresses. A
// damaged file is set aside.
func (r *router) restore() error {
	data, err := os.ReadFile(statePath(r.runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New(fault.Unavailable, "cannot read the saved routing tables: %w", err).At(statePath(r.runDir))
	}
	tables, err := decodeSaved(data)
	if err != nil {
		aside := statePath(r.runDir) + ".damaged"
		r.log.Error("saved routing tables are damaged, starting without", "kept", aside, "err", err)
		return os.Rename(statePath(r.runDir), aside)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range tables {
		r.saved[t.Key] = t.Text
		r.install(t.Key, t.Table)
	}
	return nil
}

// decodeSaved reads router.json and checks every table in it, also against the others.
func decodeSaved(data []byte) ([]savedTable, error) {
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	seen := map[rollout.Key]*environment{}
	for i, t := range s.Environments {
		table, err := decodeTable(t.Text)
		if err == nil {
			table, err = normal(t.Key, table)
		}
		if err != nil {
			return nil, err
		}
		if seen[t.Key] != nil {
			return nil, fault.New(fault.Invalid, "environment %s is there twice", t.Key)
		}
		if err := errors.Join(collisions(t.Key, table, seen), onlyOne(t.Key, table, seen)); err != nil {
			return nil, err
		}
		s.Environments[i].Table = table
		seen[t.Key] = &environment{table: table}
	}
	return s.Environments, nil
}
