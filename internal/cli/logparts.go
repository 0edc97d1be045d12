package cli

import (
	"context"
	"time"
)

// LogParts is what of the record's log is on disk, beside the server.
type LogParts struct {
	// Key reads the log's public key from a state directory.
	Key func(dir string) (string, error)
	// Remember appends a signed checkpoint to a file of them.
	Remember func(path string, signed []byte) error
	// Renew ends the log of a state directory and begins a new one, while no server runs.
	Renew func(ctx context.Context, dir, reason string) (map[string]string, error)
}

// NotaryOptions say how the server speaks for the record to the outside.
type NotaryOptions struct {
	Listen      string        // address of the loopback where the record is served; empty: only on the socket
	Witnesses   []string      // "KEY URL" each
	Anchor      string        // file, or work tree of a Git repository; empty: none
	AnchorEvery time.Duration // at most so often
}
