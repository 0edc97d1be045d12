package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// request is what a handler sees of a request.
type request struct {
	actor string // who asks
	query url.Values
	body  []byte
}

// into decodes the body. Unknown keys, from a newer client, are refused: what
// they ask for would be ignored.
func (r request) into(v any) error {
	dec := json.NewDecoder(bytes.NewReader(r.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fault.New(fault.Invalid, "the request is not readable: %w", err)
	}
	return nil
}

// answer makes a handler of a function from a request to a value.
func answer[T any](f func(context.Context, request) (T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := read(w, r)
		if err != nil {
			writeFault(w, err)
			return
		}
		v, err := f(r.Context(), req)
		if err != nil {
			writeFault(w, err)
			return
		}
		writeJSON(w, http.StatusOK, v)
	})
}

// stream makes a handler of a function that emits values, one JSON line each. A
// fault after the first line is the last line, {"fault": {...}}.
func stream[T any](f func(context.Context, request, func(T) error) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := read(w, r)
		if err != nil {
			writeFault(w, err)
			return
		}
		out := &lines{w: w, enc: json.NewEncoder(w), control: http.NewResponseController(w)}
		err = f(r.Context(), req, func(v T) error { return out.send(line[T]{Value: &v}) })
		switch {
		case err == nil || r.Context().Err() != nil:
			out.begin()
		case !out.begun:
			writeFault(w, err)
		default:
			out.send(line[T]{Fault: fault.Of(err)}) //nolint:errcheck // the client went away
		}
	})
}

// line is one line of a stream.
type line[T any] struct {
	Value *T           `json:"value,omitempty"`
	Fault *fault.Error `json:"fault,omitempty"`
}

type lines struct {
	w       http.ResponseWriter
	enc     *json.Encoder
	control *http.ResponseController
	begun   bool
}

func (l *lines) begin() {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/jsonl")
		l.w.WriteHeader(http.StatusOK)
	}
}

func (l *lines) send(v any) error {
	l.begin()
	if err := l.enc.Encode(v); err != nil {
		return err
	}
	return l.control.Flush()
}

func read(w http.ResponseWriter, r *http.Request) (request, error) {
	limit := int64(maxRequest)
	if r.URL.Path == "/v1/releases" {
		limit = maxDocument
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return request{}, fault.New(fault.Invalid, "the request has more than %d bytes", large.Limit)
	}
	if err != nil {
		return request{}, fault.New(fault.Unavailable, "the request broke off: %w", err)
	}
	return request{actor: actor(r.Context()), query: r.URL.Query(), body: body}, nil
}

func writeFault(w http.ResponseWriter, err error) {
	var list fault.List
	if errors.As(err, &list) && len(list) > 1 {
		writeJSON(w, list[0].Kind.HTTPStatus(), faults{Faults: list})
		return
	}
	f := fault.Of(err)
	writeJSON(w, f.Kind.HTTPStatus(), faults{Faults: fault.List{f}})
}

// faults is the body of every answer that is an error.
type faults struct {
	Faults fault.List `json:"faults"`
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client went away
}
