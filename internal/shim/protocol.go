package shim

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// The files of an instance's directory that the shim reads or writes.
const (
	SocketFile = "sock"       // the control socket, mode 0600
	LockFile   = "lock"       // locked as long as the shim lives; holds its process ID
	StateFile  = "state.json" // the last Message of a shim whose program was started
	ExitFile   = "exit.json"  // Exit, durable
	ErrorFile  = "shim.log"   // the shim's own standard error
)

// The descriptors that a shim is born with.
const (
	FirstFD   = 3 // one end of a socket pair that speaks the protocol
	LockFD    = 4 // LockFile, locked
	RuntimeFD = 5 // the program of the OCI runtime
)

// Config is what a shim is told with OpCreate. It is never written to a file.
type Config struct {
	Dir      string          `json:"dir"`     // the instance's directory, with the files the shim was born with
	Spec     json.RawMessage `json:"spec"`    // the OCI runtime specification; its root is Root
	Hosts    []byte          `json:"hosts"`   // what HostsFile is to hold
	Objects  string          `json:"objects"` // the object store's data layer
	Seals    []digest.Digest `json:"seals"`   // top layer first
	Secrets  []Secret        `json:"secrets,omitempty"`
	Volumes  []Volume        `json:"volumes,omitempty"`
	Log      string          `json:"log"`      // output file; rotated to .1, .2, …
	LogSize  int64           `json:"logSize"`  // bytes of one file
	LogFiles int             `json:"logFiles"` // how many files, the current one included
	Signal   int             `json:"signal"`   // that asks the program to end
	Grace    time.Duration   `json:"grace"`    // from Signal to SIGKILL
}

// Names within a shim's private directory that a specification may speak of.
const (
	Root      = "root"  // where the sealed root is mounted
	HostsFile = "hosts" // to be mounted as /etc/hosts
)

// State is how far an instance has come.
type State string

// The states, see the package comment.
const (
	Blank    State = "blank"
	Creating State = "creating"
	Created  State = "created"
	Running  State = "running"
	Stopping State = "stopping"
	Exited   State = "exited"
	Failed   State = "failed"
)

// The orders that a shim takes.
const (
	OpCreate = "create" // blank -> created; answered when the container is there
	OpStart  = "start"  // created -> running; the answer comes when the program was started
	OpStop   = "stop"   // running -> stopping; answered at once, the shim does the waiting
	OpKill   = "kill"   // SIGKILL now
	OpProbe  = "probe"  // answered when the probe has ended
)

// Request is one order, one JSON value on the socket.
type Request struct {
	Seq    uint64  `json:"seq"` // from 1; comes back in the answer
	Op     string  `json:"op"`
	Create *Config `json:"create,omitempty"` // with OpCreate
	Probe  *Probe  `json:"probe,omitempty"`  // with OpProbe
}

// Message is what a shim says: on connecting, on every change of state, and in
// answer to each Request.
type Message struct {
	Re      uint64    `json:"re,omitempty"` // Request.Seq that this answers; 0: nobody asked
	State   State     `json:"state"`
	Started time.Time `json:"started,omitzero"`
	Error   *Failure  `json:"error,omitempty"` // with Failed, or in answer to an order that failed
	Exit    *Exit     `json:"exit,omitempty"`  // with Exited
}

// Failure is what went wrong, in the words of who refused.
type Failure struct {
	Step  string       `json:"step"` // mount, volume, create, start, probe, log, order
	Text  string       `json:"text"`
	Fault *fault.Error `json:"fault,omitempty"` // what the failure is to a person, where that is known already
}

// Error renders the failure.
func (f *Failure) Error() string { return f.Step + ": " + f.Text }

// Exit is how the program ended.
type Exit struct {
	Code   int       `json:"code"`             // 128+signal when a signal ended it
	Signal string    `json:"signal,omitempty"` // e.g. SIGKILL
	OOM    bool      `json:"oom,omitempty"`    // its memory limit killed one of its processes
	At     time.Time `json:"at"`
	Tail   []string  `json:"tail,omitempty"` // last output lines
}
