package image

import (
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Limits of what a tree may hold, all from the formats it is written to: EROFS,
// overlayfs, tar and OCI layers.
const (
	maxName   = 255          // bytes of one path component
	maxPath   = 4095         // bytes of a path or a link's target
	maxID     = 1<<32 - 2    // of a user or group; the last one means "none" to the kernel
	maxMTime  = 253402300799 // 9999-12-31T23:59:59Z
	maxXattr  = 1<<16 - 1    // bytes of one value
	maxXattrs = 128 << 10    // bytes of all names and values of an entry
)

const emptyDigest digest.Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Validate says what keeps t from being a complete tree that every format can
// express: see [Tree] and the limits in this file. Sealing and packing a tree
// that is valid loses nothing of it, except times finer than a second.
func (t Tree) Validate() error {
	if len(t.Entries) == 0 || t.Entries[0].Path != "." || t.Entries[0].Type != Dir {
		return fault.New(fault.Invalid, `the tree does not begin with its root directory "."`)
	}
	dirs := make(map[string]bool, len(t.Entries)/4)
	for i, e := range t.Entries {
		if err := e.Validate(); err != nil {
			return err
		}
		if i > 0 {
			if before := t.Entries[i-1].Path; ComparePaths(before, e.Path) >= 0 {
				return fault.New(fault.Invalid, "the tree is not sorted: %q comes after %q", e.Path, before)
			}
			if !dirs[path.Dir(e.Path)] {
				return fault.New(fault.Invalid, "%q has no parent directory in the tree", e.Path)
			}
		}
		if e.Type == Dir {
			dirs[e.Path] = true
		}
	}
	return nil
}

// Validate says what keeps e from being an entry of a valid tree; see [Tree.Validate].
func (e Entry) Validate() error {
	if err := e.validate(); err != nil {
		return err.At(fmt.Sprintf("%q", e.Path))
	}
	return nil
}

func (e Entry) validate() *fault.Error {
	if err := checkPath(e.Path); err != nil {
		return err
	}
	switch {
	case e.Mode&^0o7777 != 0:
		return fault.New(fault.Invalid, "mode %#o has more than permission, set-id and sticky bits", e.Mode)
	case e.UID < 0 || e.UID > maxID || e.GID < 0 || e.GID > maxID:
		return fault.New(fault.Invalid, "owner %d:%d is out of range", e.UID, e.GID)
	case e.MTime < 0 || e.MTime > maxMTime:
		return fault.New(fault.Invalid, "modification time %d is not between the years 1970 and 9999", e.MTime)
	case e.Type != File && (e.Size != 0 || e.Digest != ""):
		return fault.New(fault.Invalid, "a %s has no content of its own", e.Type)
	case e.Type != Symlink && e.Link != "":
		return fault.New(fault.Invalid, "a %s has no link target", e.Type)
	}
	if err := e.checkXattrs(); err != nil {
		return err
	}
	switch e.Type {
	case Dir:
		return nil
	case File:
		return e.checkFile()
	case Symlink:
		return e.checkSymlink()
	default:
		return fault.New(fault.Invalid, "type %q is not one of dir, file, symlink", e.Type)
	}
}

func checkPath(p string) *fault.Error {
	if p == "." {
		return nil
	}
	if len(p) > maxPath || !utf8.ValidString(p) || strings.ContainsRune(p, 0) {
		return fault.New(fault.Invalid, "a path is UTF-8 without NUL and at most %d bytes", maxPath)
	}
	for name := range strings.SplitSeq(p, "/") {
		switch {
		case name == "" || name == "." || name == "..":
			return fault.New(fault.Invalid, "the path is not clean and relative to the root")
		case len(name) > maxName:
			return fault.New(fault.Invalid, "the name %q is longer than %d bytes", name, maxName)
		case strings.HasPrefix(name, ".wh."):
			return fault.New(fault.Invalid, "the name %q would delete a file in an OCI layer", name)
		}
	}
	return nil
}

// FromSum gives the digest whose SHA-256 is sum. It is what digest.NewDigestFromBytes
// does, without formatting.
func FromSum(sum [32]byte) digest.Digest {
	const prefix = "sha256:"
	var text [len(prefix) + 2*len(sum)]byte
	copy(text[:], prefix)
	hex.Encode(text[len(prefix):], sum[:])
	return digest.Digest(text[:])
}

// Hex gives the 64 hexadecimal digits of a SHA-256 digest, and false for anything
// else. Every digest in Ashlar is one. It is what Digest.Validate does, without a
// regular expression: that took a tenth of the time to seal a tree.
func Hex(d digest.Digest) (string, bool) {
	digits, ok := strings.CutPrefix(string(d), "sha256:")
	if !ok || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", false
	}
	return digits, true
}

func (e Entry) checkFile() *fault.Error {
	if _, ok := Hex(e.Digest); !ok {
		return fault.New(fault.Invalid, "%q is not the SHA-256 digest of a file", e.Digest)
	}
	if e.Size < 0 || (e.Size == 0) != (e.Digest == emptyDigest) {
		return fault.New(fault.Invalid, "size %d and digest %s contradict each other", e.Size, e.Digest)
	}
	return nil
}

func (e Entry) checkSymlink() *fault.Error {
	if e.Mode != 0o777 {
		return fault.New(fault.Invalid, "the mode of a symbolic link is 0777, not %#o", e.Mode)
	}
	if e.Link == "" || len(e.Link) > maxPath || !utf8.ValidString(e.Link) || strings.ContainsRune(e.Link, 0) {
		return fault.New(fault.Invalid, "a link target is UTF-8 without NUL and 1 to %d bytes, not %.60q", maxPath, e.Link)
	}
	return nil
}

// checkXattrs refuses trusted.overlay.*: that is how a sealed tree says where its
// bytes are, and an input that could say so would choose what other files hold.
func (e Entry) checkXattrs() *fault.Error {
	total := 0
	for name, value := range e.Xattrs {
		class, rest, _ := strings.Cut(name, ".")
		switch {
		case strings.HasPrefix(name, "trusted.overlay."):
			return fault.New(fault.Invalid, "the extended attribute %q is reserved for sealed trees", name)
		case class != "user" && class != "trusted" && class != "security":
			return fault.New(fault.Invalid, "the extended attribute %q is not of the class user, trusted or security", name)
		case rest == "" || len(rest) > maxName || !utf8.ValidString(name) || strings.ContainsAny(name, "=\x00"):
			return fault.New(fault.Invalid, "%q is not a name for an extended attribute", name)
		case class == "user" && e.Type == Symlink:
			return fault.New(fault.Invalid, "a symbolic link cannot have the extended attribute %q", name)
		case len(value) > maxXattr:
			return fault.New(fault.Invalid, "the extended attribute %q is larger than %d bytes", name, maxXattr)
		}
		total += len(name) + len(value)
	}
	if total > maxXattrs {
		return fault.New(fault.Invalid, "the extended attributes are larger than %d bytes together", maxXattrs)
	}
	return nil
}
