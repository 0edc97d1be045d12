package engine

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Key names one environment of one application.
type Key = rollout.Key

// Platform runs instances. All methods are safe for concurrent use and
// idempotent: after a lost reply the engine calls them again.
type Platform interface {
	// Start creates and starts the instance. It returns nil when the instance is
	// known to run or has run; an instance that already exists is left as it is.
	// After an error nothing of the instance is left behind, or List reports it.
	//
	// Two things are refused with a fault of kind Conflict, whoever asks, as a start may
	// come late or from a server with an old state. An exclusive volume has one holder:
	// another instance of the environment that runs has to be gone first. And a fencing token
	// (Instance.Fence) grows: one that is not greater than the last that was started of
	// its component is too old, also when that one is long gone.
	Start(ctx context.Context, env Key, in rollout.Instance, spec release.Spec) error
	// Stop asks the instance to end: its stop signal, then SIGKILL after its grace.
	// It returns once asked; the end is seen by List. Stopping what is stopping,
	// has ended or does not exist is not an error.
	Stop(ctx context.Context, id string) error
	// Remove takes away everything of the instance, killing it if it still runs.
	// Removing what does not exist is not an error.
	Remove(ctx context.Context, id string) error
	// List reports every instance of the environment, in any order.
	List(ctx context.Context, env Key) ([]rollout.Observed, error)
	// Changes is signalled (capacity 1, never closed) after any instance changed phase.
	Changes() <-chan struct{}
}

// Router is the data plane.
type Router interface {
	// Apply replaces the environment's table in one step. When it returns nil, no
	// new request reaches a backend that is not in the table. A table of an older
	// generation than the one in force is refused; the same one again is accepted.
	Apply(ctx context.Context, env Key, table rollout.Table) error
	// Status reports the table in force and the requests under way.
	Status(ctx context.Context, env Key) (rollout.RouterStatus, error)
}

// Stored is a release with what the store knows of it.
type Stored struct {
	App       string
	Number    int           // within the application, from 1
	Digest    digest.Digest // of Doc
	Doc       []byte        // canonical JSON
	Created   time.Time     // when it was added
	Collected bool          // gc removed its objects: it stays in the history and cannot be laid again from what is on hand
}

// Store keeps releases, environments and the record. Every change and its
// entries are one transaction.
type Store interface {
	// AddRelease stores the document under its digest and numbers it, appending
	// entry (its Release set, "number" added to Data). A digest already there keeps its number,
	// and nothing is appended; only a collected one is on hand again, which appends entry.
	AddRelease(ctx context.Context, rel Stored, entry record.Entry) (Stored, error)
	// Release finds a release by digest; errors.Is(err, fs.ErrNotExist) if there is none.
	Release(ctx context.Context, d digest.Digest) (Stored, error)
	// Releases lists an application's releases by number.
	Releases(ctx context.Context, app string) ([]Stored, error)
	// Environments lists the environments that have a state, sorted.
	Environments(ctx context.Context) ([]Key, error)
	// State gives an environment's state and its version; the zero State and 0 if there is none.
	State(ctx context.Context, env Key) (rollout.State, int64, error)
	// Commit replaces the state if its version is still the given one
	// (rollout.ErrStale otherwise) and appends the entries, in one transaction. It returns the new version.
	// The entries get their Index; the caller's are not changed. After any error nothing was changed,
	// unless the reply was lost: State tells.
	Commit(ctx context.Context, env Key, version int64, next rollout.State, entries []record.Entry) (int64, error)
	// Append appends entries that go with no change of an environment's state.
	Append(ctx context.Context, entries []record.Entry) error
	// Entries gives the record's entries with from <= Index < to that belong to env
	// (the zero Key: all), in order. to < 0 means up to the end.
	Entries(ctx context.Context, env Key, from, to int64) ([]record.Entry, error)
}

// Metrics is where the values of an analysis' queries come from.
type Metrics interface {
	// Query evaluates an expression now at the server that the question names, with the
	// environment's secret that it names. found is false if there is no value. A server that does
	// not answer is an error, and so is a secret that is not there; no error holds its value.
	Query(ctx context.Context, env Key, q rollout.Question) (value float64, found bool, err error)
}

// Admitter judges releases by the policies of environments.
type Admitter interface {
	// Admit says whether a release may go to an environment in the way that is asked
	// for. Where there is no policy everything may. An error keeps it out.
	Admit(ctx context.Context, now time.Time, p rollout.Plea) (rollout.Admission, error)
	// Keep keeps what a release was judged by (Admission.Facts), durably. It is called
	// before the record tells of the verdict; doing it again is no error.
	Keep(ctx context.Context, release digest.Digest, facts []byte) error
}

// Rehearser is what a platform may be able to do beside Platform: try out whether an
// instance of a spec could be started now, short of starting it.
type Rehearser interface {
	// Rehearse says why an instance of the spec could not be started: a root that does
	// not mount, a secret's version that is not there. nil: it could. It leaves nothing behind.
	Rehearse(ctx context.Context, env Key, spec release.Spec) error
	// Room says why so many instances more of each component, by name, would not find
	// room beside what runs. nil: they would, as far as can be told.
	Room(ctx context.Context, env Key, more map[string]int) error
}

// Artifacts is where the bytes of releases are.
type Artifacts interface {
	// Check says whether every byte that an instance of the spec needs is on hand:
	// nil, or a fault that names what is missing. It does not re-hash.
	Check(ctx context.Context, spec release.Spec) error
}
