package shim

import (
	"encoding/json"
	"io/fs"
	"os"

	"github.com/ashlar-infra/ashlar/internal/durable"
)

// WriteJSON replaces the file at path by v's JSON in one step: a reader sees the old
// or the new value, whoever is killed meanwhile. After a power cut it may be
// neither; no instance is there then either.
func WriteJSON(path string, v any) error { return write(path, v, durable.Swap) }

// WriteDurableJSON is WriteJSON that survives a power cut.
func WriteDurableJSON(path string, v any) error { return write(path, v, durable.Replace) }

func write(path string, v any, to func(string, []byte, fs.FileMode) error) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return to(path, append(b, '\n'), 0o600)
}

// ReadJSON reads what was written so.
func ReadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}
