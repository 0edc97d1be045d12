package record

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxCheckpoint is the largest signed checkpoint that is read, in bytes.
const MaxCheckpoint = 64 << 10

// Checkpoint is what a log says of itself: who it is, how many entries it has and
// the root over them. As the text of a signed note it is a promise: the log never
// has another tree of that size. The format is https://c2sp.org/tlog-checkpoint.
type Checkpoint struct {
	Origin string    `json:"origin"` // names the log, and its key
	Size   int64     `json:"size"`   // entries
	Root   tlog.Hash `json:"root"`
}

// Text is the text that is signed.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// ParseCheckpoint reads the text of a checkpoint. Lines after the third are
// extensions: they may be there and mean nothing here.
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return Checkpoint{}, errors.New("record: a checkpoint has three lines or more: origin, size, root")
	}
	for _, line := range lines[:len(lines)-1] {
		if line == "" {
			return Checkpoint{}, errors.New("record: a checkpoint has an empty line")
		}
	}
	size, err := parseSize(lines[1])
	if err != nil {
		return Checkpoint{}, err
	}
	root, err := parseHash(lines[2])
	if err != nil {
		return Checkpoint{}, err
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: root}, nil
}

// parseSize reads a size or index: decimal, without leading zeroes.
func parseSize(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("record: %q is not a size", clipped(text))
	}
	return n, nil
}

// parseHash reads a hash in its one form: base64 with padding.
func parseHash(text string) (tlog.Hash, error) {
	var h tlog.Hash
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != tlog.HashSize || base64.StdEncoding.EncodeToString(raw) != text {
		return h, fmt.Errorf("record: %q is not a hash", clipped(text))
	}
	copy(h[:], raw)
	return h, nil
}

func clipped(text string) string {
	if len(text) > 60 {
		return text[:60] + "…"
	}
	return text
}

// ValidOrigin says whether a text can name a log or a witness: it is not empty and
// has neither spaces nor a plus, https://c2sp.org/signed-note.
func ValidOrigin(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '+' })
}

// Sign gives the checkpoint as a signed note.
func (c Checkpoint) Sign(signers ...note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.Text()}, signers...)
}

// OpenCheckpoint reads a signed checkpoint. An error says that it is not one of
// the log whose key is given: unreadable, of another log, or not signed by it.
// Signatures of others (witnesses) are neither needed nor looked at.
func OpenCheckpoint(signed []byte, log note.Verifier) (Checkpoint, error) {
	if len(signed) > MaxCheckpoint {
		return Checkpoint{}, fmt.Errorf("record: a checkpoint has %d bytes; the limit is %d", len(signed), MaxCheckpoint)
	}
	n, err := note.Open(signed, note.VerifierList(log))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("record: the checkpoint is not signed by %s: %w", log.Name(), err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != log.Name() {
		return Checkpoint{}, fmt.Errorf("record: the checkpoint is of the log %q, not of %q", clipped(c.Origin), log.Name())
	}
	return c, nil
}

// SplitCheckpoints reads a file of checkpoints: signed notes, one after another,
// with an empty line between them. It checks no signature.
func SplitCheckpoints(file []byte) ([][]byte, error) {
	blocks := strings.Split(strings.Trim(string(file), "\n"), "\n\n")
	if len(blocks) == 1 && blocks[0] == "" {
		return nil, nil
	}
	if len(blocks)%2 != 0 {
		return nil, errors.New("record: not a file of checkpoints: each is a text, an empty line and signatures")
	}
	var out [][]byte
	for i := 0; i < len(blocks); i += 2 {
		if _, err := ParseCheckpoint(blocks[i] + "\n"); err != nil {
			return nil, fmt.Errorf("checkpoint %d of the file: %w", i/2+1, err)
		}
		out = append(out, []byte(blocks[i]+"\n\n"+blocks[i+1]+"\n"))
	}
	return out, nil
}
