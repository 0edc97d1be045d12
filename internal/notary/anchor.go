package notary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// Anchor keeps checkpoints in a place that whoever can change the database should
// not be able to change: another disk, a share, a repository that is pushed.
type Anchor interface {
	Keep(ctx context.Context, c record.Seen) error
}

// anchor keeps the checkpoint if it grew and it is time, or now.
func (n *Notary) anchor(ctx context.Context, c record.Seen, now bool) error {
	if n.Anchor == nil || c.Size == n.anchored || !now && n.anchored >= 0 && n.Now().Sub(n.anchoredAt) < n.Every {
		return nil
	}
	if err := n.Anchor.Keep(ctx, c); err != nil {
		return err
	}
	n.anchored, n.anchoredAt = c.Size, n.Now()
	n.Log.Debug("checkpoint anchored", "size", c.Size)
	return nil
}

// NewAnchor makes an anchor of a path: a directory is the work tree of a Git
// repository, anything else a file that checkpoints are appended to.
func NewAnchor(path string) (Anchor, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return nil, fault.New(fault.Invalid, "checkpoints cannot be anchored there: %w", err).At(path)
		}
		return fileAnchor(path), nil
	}
	if _, err := os.Stat(filepath.Join(path, ".git")); err != nil {
		return nil, fault.New(fault.Invalid, "the anchor is a directory and not a Git repository: %w", err).At(path).
			Mend("make one:  git init %s  or name a file", path)
	}
	if _, err := exec.LookPath("git"); err != nil {
		return nil, fault.New(fault.Unavailable, "an anchor in a Git repository needs git: %w", err).Mend("install it:  apt-get install git")
	}
	return gitAnchor(path), nil
}

// fileAnchor appends checkpoints, with an empty line between them: the file is
// what `ashlar log verify --checkpoint` reads.
type fileAnchor string

// Keep is Anchor.
func (a fileAnchor) Keep(_ context.Context, c record.Seen) error {
	if err := Remember(string(a), c.Signed); err != nil {
		return fault.New(fault.Unavailable, "the checkpoint cannot be anchored: %w", err).At(string(a))
	}
	return nil
}

// Remember appends a signed checkpoint to a file of them.
func Remember(path string, signed []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		text := bytes.Clone(signed)
		if info.Size() > 0 {
			text = append([]byte("\n"), text...)
		}
		_, err = f.Write(text)
	}
	return errors.Join(err, f.Sync(), f.Close(), durable.SyncDir(filepath.Dir(path)))
}

// gitAnchor commits the checkpoint as a file of a repository that is named after
// the log. Pushing is left to whoever runs the repository.
type gitAnchor string

// Keep is Anchor.
func (a gitAnchor) Keep(ctx context.Context, c record.Seen) error {
	name := strings.ReplaceAll(c.Origin, "/", "_") + ".checkpoint"
	if err := durable.Replace(filepath.Join(string(a), name), c.Signed, 0o644); err != nil {
		return fault.New(fault.Unavailable, "the checkpoint cannot be anchored: %w", err).At(string(a))
	}
	message := fmt.Sprintf("%s: %d entries, root %s", c.Origin, c.Size, c.Root)
	for _, args := range [][]string{
		{"add", "--", name},
		{"-c", "user.name=Ashlar", "-c", "user.email=ashlar@localhost", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null",
			"commit", "--quiet", "--allow-empty", "-m", message, "--", name},
	} {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", string(a)}, args...)...).CombinedOutput()
		if err != nil {
			return fault.New(fault.Unavailable, "the checkpoint cannot be committed: %w", err).At(string(a)).Detail(strings.TrimSpace(string(out)))
		}
	}
	return nil
}
