package router

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	Table rollout.Table `json:"table"`
}

func statePath(runDir string) string  { return filepath.Join(runDir, "router.json") }
func socketPath(runDir string) string { return filepath.Join(runDir, "router.sock") }

// persist writes the tables as they will be with this one.
func (r *router) persist(key rollout.Key, table rollout.Table) error {
	s := saved{Environments: []savedTable{{Key: key, Table: table}}}
	for k, env := range r.envs {
		if k != key {
			s.Environments = append(s.Environments, savedTable{Key: k, Table: env.table})
		}
	}
	slices.SortFunc(s.Environments, func(a, b savedTable) int { return strings.Compare(a.String(), b.String()) })
	data, err := json.Marshal(s)
	if err == nil {
		err = replaceFile(statePath(r.runDir), data)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "cannot save the routing tables: %w", err).At(statePath(r.runDir)).
			Mend("make room or mend the directory, then try again; nothing was changed")
	}
	return nil
}

// replaceFile puts data in place of a file in one durable step: a crash leaves
// either the old content or the new one (temp, fsync, rename, fsync directory).
func replaceFile(path string, data []byte) (err error) {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
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
		table, err := normal(t.Key, t.Table)
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
