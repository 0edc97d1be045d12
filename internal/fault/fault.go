// Package fault holds the one error shape that a user of Ashlar meets: what
// happened, where, and how to put it right. Libraries make them, the command
// line renders them, and the HTTP API carries them; nothing else in the program
// decides exit or status codes.
//
// Start at [Error]. [Kind] is the closed list that maps to exit and HTTP codes.
package fault

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Kind classifies a fault. The list is short and closed; Kind.ExitCode and
// Kind.HTTPStatus are the one table of codes.
type Kind string

// The kinds, from the user's point of view.
const (
	Invalid     Kind = "invalid"     // the input is wrong: mend it and try again
	NotFound    Kind = "not-found"   // the named thing does not exist
	Conflict    Kind = "conflict"    // the state does not allow it now (a rollout is in flight)
	Refused     Kind = "refused"     // a check said no: signature, digest, policy, health
	Unavailable Kind = "unavailable" // something needed is not there: server, network, kernel feature, disk space
	Internal    Kind = "internal"    // a bug of ours or an unforeseen failure
)

// ExitCode is the process exit status of a command that ends with this kind.
func (k Kind) ExitCode() int {
	switch k {
	case Invalid:
		return 2
	case NotFound:
		return 3
	case Conflict:
		return 4
	case Refused:
		return 5
	case Unavailable:
		return 6
	default:
		return 1
	}
}

// HTTPStatus is the status code of an API answer that carries this kind.
func (k Kind) HTTPStatus() int {
	switch k {
	case Invalid:
		return http.StatusBadRequest
	case NotFound:
		return http.StatusNotFound
	case Conflict:
		return http.StatusConflict
	case Refused:
		return http.StatusUnprocessableEntity
	case Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// Error is one fault. It is a value that also travels as JSON over the API.
type Error struct {
	Kind    Kind     `json:"kind"`
	What    string   `json:"what"`              // what happened, one sentence without a final dot
	Where   string   `json:"where,omitempty"`   // file:line:column, or the resource
	Details []string `json:"details,omitempty"` // further lines: underlined text, last log lines, known values
	Fix     string   `json:"fix,omitempty"`     // what to do, naming the exact command or text
	Err     error    `json:"-"`                 // the cause, for errors.Is and As
}

// New makes a fault of a kind with a formatted What. A %w verb sets the cause.
func New(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, What: err.Error(), Err: errors.Unwrap(err)}
}

// At returns e with its place set.
func (e *Error) At(where string) *Error { e.Where = where; return e }

// Mend returns e with its remedy set.
func (e *Error) Mend(format string, args ...any) *Error {
	e.Fix = fmt.Sprintf(format, args...)
	return e
}

// Detail returns e with further lines appended.
func (e *Error) Detail(lines ...string) *Error { e.Details = append(e.Details, lines...); return e }

// Error renders the fault as the user sees it, several lines long:
//
//	ashlar.yaml:14:9: strategy "cannary" is not known
//	  known: blue-green
//	  fix:   write  strategy: blue-green
func (e *Error) Error() string {
	var b strings.Builder
	if e.Where != "" {
		b.WriteString(e.Where + ": ")
	}
	b.WriteString(e.What)
	for _, d := range e.Details {
		b.WriteString("\n  " + d)
	}
	if e.Fix != "" {
		b.WriteString("\n  fix:   " + e.Fix)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// List is several faults of one input, all reported at once.
type List []*Error

// Error renders every fault, one after another.
func (l List) Error() string {
	parts := make([]string, len(l))
	for i, e := range l {
		parts[i] = e.Error()
	}
	return strings.Join(parts, "\n")
}

// Unwrap gives the faults to errors.Is and errors.As.
func (l List) Unwrap() []error {
	out := make([]error, len(l))
	for i, e := range l {
		out[i] = e
	}
	return out
}

// Of returns the first fault in err's tree, or err wrapped as Internal.
// It returns nil for nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		if e.Error() != err.Error() && !isList(err) {
			// Somebody wrapped the fault with context: keep the context, the kind and the remedy.
			return &Error{Kind: e.Kind, What: strings.SplitN(err.Error(), "\n", 2)[0], Details: e.Details, Fix: e.Fix, Err: err}
		}
		return e
	}
	return &Error{Kind: Internal, What: err.Error(), Err: err}
}

func isList(err error) bool {
	var l List
	return errors.As(err, &l)
}
