package object

import (
	"errors"
	"hash"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// storing turns the failure of writing into a fault the user can act on.
func storing(dir, what string, err error) error {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.New(fault.Unavailable, "cannot %s: the disk is full: %w", what, err).At(dir).
			Mend("free space on the file system of %s (ashlar gc removes what no kept release needs), then run it again", dir)
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fault.New(fault.Unavailable, "cannot %s: the directory is not writable: %w", what, err).At(dir).
			Mend("run as the owner of %s, or choose another directory with --dir", dir)
	default:
		return fault.New(fault.Internal, "cannot %s: %w", what, err).At(dir)
	}
}

func tooLarge(limit int64) *fault.Error {
	return fault.New(fault.Invalid, "the content is larger than the %d bytes allowed", limit)
}

func differs(want, got digest.Digest) error {
	return fault.New(fault.Refused, "the content is not what its digest says").
		Detail("expected: "+want.String(), "got:      "+got.String())
}

func damaged(path string, want, got digest.Digest) error {
	return fault.New(fault.Refused, "object %s is damaged: its bytes are those of %s", want, got).At(path).
		Mend("remove the file and run  ashlar build  again, which stores it anew; find out what wrote to %s", path)
}

func sum(h hash.Hash) digest.Digest { return digest.NewDigest(digest.SHA256, h) }
