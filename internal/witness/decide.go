package witness

import (
	"fmt"
	"net/http"

	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// refusal is an answer other than a cosignature.
type refusal struct {
	status int
	known  int64 // with StatusConflict because of the old size: entries that were cosigned
	what   string
}

// Error tells why.
func (r *refusal) Error() string { return r.what }

// decide says whether the checkpoint of a request may be cosigned, knowing the last
// of its log that was; the zero value if there was none. It gives the checkpoint, or
// a refusal with the status that the protocol has for it.
func decide(known record.Checkpoint, log note.Verifier, p record.ConsistencyProof) (record.Checkpoint, *refusal) {
	c, err := record.OpenCheckpoint(p.Checkpoint, log)
	if err != nil {
		return c, &refusal{status: http.StatusForbidden, what: err.Error()}
	}
	if p.Old > c.Size {
		return c, &refusal{status: http.StatusBadRequest, what: fmt.Sprintf("the old size is %d, more than the %d entries of the checkpoint", p.Old, c.Size)}
	}
	if p.Old != known.Size {
		return c, &refusal{status: http.StatusConflict, known: known.Size, what: fmt.Sprintf("the last checkpoint that was cosigned has %d entries, not %d", known.Size, p.Old)}
	}
	if p.Old == c.Size && known.Origin != "" && known.Root != c.Root {
		return c, &refusal{status: http.StatusConflict, known: known.Size, what: fmt.Sprintf("another checkpoint of %d entries was cosigned: the log has forked", known.Size)}
	}
	if known.Size == 0 {
		if len(p.Hashes) > 0 {
			return c, &refusal{status: http.StatusUnprocessableEntity, what: "a proof from nothing has no hashes"}
		}
		return c, nil
	}
	if err := record.CheckConsistency(p.Hashes, known.Size, known.Root, c.Size, c.Root); err != nil {
		return c, &refusal{status: http.StatusUnprocessableEntity, what: err.Error()}
	}
	return c, nil
}
