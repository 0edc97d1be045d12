package notary

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// Renew ends the log of a state directory and begins a new one over the record as
// it is: the way on after a database was lost or restored. The old log's public
// key and last checkpoint are put aside as evidence. What it returns belongs into
// an entry of the record. Nobody may serve the state directory meanwhile.
func Renew(ctx context.Context, c Config) (data map[string]string, err error) {
	data = map[string]string{}
	signed, err := os.ReadFile(filepath.Join(c.Dir, checkpointFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if notes, err := record.SplitCheckpoints(signed); err == nil && len(notes) == 1 {
		text, _, _ := cutNote(notes[0])
		if was, err := record.ParseCheckpoint(text); err == nil {
			data["oldLog"], data["oldSize"], data["oldRoot"] = was.Origin, strconv.FormatInt(was.Size, 10), was.Root.String()
		}
	}
	size, root, err := c.Record.Head(ctx)
	if err != nil {
		return nil, err
	}
	data["size"], data["root"] = strconv.FormatInt(size, 10), root.String()
	if err := retire(c.Dir); err != nil {
		return nil, fault.New(fault.Unavailable, "the old log cannot be put aside: %w", err).At(filepath.Join(c.Dir, retiredDir))
	}
	signer, _, err := newKey(c.Dir, c.Host)
	if err != nil {
		return nil, err
	}
	data["log"] = signer.Name()
	return data, nil
}

func cutNote(signed []byte) (text, signatures string, ok bool) {
	for i := 0; i+1 < len(signed); i++ {
		if signed[i] == '\n' && signed[i+1] == '\n' {
			return string(signed[:i+1]), string(signed[i+2:]), true
		}
	}
	return "", "", false
}
