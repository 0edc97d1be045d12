package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Fetcher gets the bytes at a URL. The error for what is not there satisfies
// errors.Is(err, fs.ErrNotExist); every other error may pass and is tried again.
// It is called from several goroutines.
type Fetcher interface {
	Get(ctx context.Context, url string) (io.ReadCloser, error)
}

// HTTP fetches with an http.Client.
type HTTP struct{ Client *http.Client }

// NewHTTP makes a Fetcher that gives up on a server which is silent for 30 s
// before it answers; ctx bounds the whole.
func NewHTTP() HTTP {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 30 * time.Second
	t.MaxIdleConnsPerHost = parallel
	return HTTP{&http.Client{Transport: t}}
}

// Get asks for url.
func (h HTTP) Get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := h.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	err = fmt.Errorf("%s: the server answered %s", url, res.Status)
	if res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone {
		err = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	return nil, errors.Join(err, res.Body.Close())
}

// pauses are the waits before a further try.
var pauses = [...]time.Duration{100 * time.Millisecond, time.Second}

// errAgain marks a failure that may pass.
type errAgain struct{ err error }

func (e errAgain) Error() string { return e.err.Error() }
func (e errAgain) Unwrap() error { return e.err }

// persist calls try until it does not fail with errAgain, at most three times.
func persist(ctx context.Context, try func() error) error {
	for i := 0; ; i++ {
		err := try()
		var again errAgain
		if err == nil || !errors.As(err, &again) || i == len(pauses) || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(pauses[i])
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// download stores what is at url under its digest, unless it is there already.
// what names it in errors. It returns the bytes that were read from the network.
func download(ctx context.Context, store *object.Store, f Fetcher, url, what string, want digest.Digest, size int64) (read int64, err error) {
	if store.Has(want) {
		return 0, nil
	}
	err = persist(ctx, func() error {
		body, err := f.Get(ctx, url)
		if err != nil {
			return again(err)
		}
		w := &watched{r: io.LimitReader(body, size+1), hash: digest.SHA256.Digester()}
		_, err = store.PutVerified(w, want, size)
		read = w.n
		return errors.Join(w.judge(err, url, what, want, size), body.Close())
	})
	if err == nil || errors.As(err, new(*fault.Error)) {
		return read, err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return read, fault.New(fault.Unavailable, "the archive no longer has %s: %w", what, err).At(url).
			Mend("it was replaced by a newer version: resolve anew with  ashlar build --update")
	}
	return read, fault.New(fault.Unavailable, "%s cannot be fetched: %w", what, err).At(url).
		Mend("check the network and the mirror, then run the command again: what was fetched is kept")
}

func again(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, context.Canceled) {
		return err
	}
	return errAgain{err}
}

// watched hashes and counts what passes, and remembers a failure of the source,
// to tell it from a failure of the store.
type watched struct {
	r    io.Reader
	hash digest.Digester
	n    int64
	err  error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.n += int64(n)
	w.hash.Hash().Write(p[:n]) //nolint:errcheck // a hash never fails
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// judge turns the store's verdict into what the user should hear.
func (w *watched) judge(err error, url, what string, want digest.Digest, size int64) error {
	if err == nil {
		return nil
	}
	if w.err == nil {
		// The store stops early at a byte too many; read on to name what came.
		if _, copyErr := io.Copy(io.Discard, w); copyErr != nil {
			return again(copyErr)
		}
	}
	switch got := w.hash.Digest(); {
	case w.err != nil:
		return again(w.err)
	case w.n < size:
		return errAgain{fmt.Errorf("it ended after %d of %d bytes", w.n, size)}
	case got != want:
		return mismatch(what, want, got).At(url)
	default:
		return err
	}
}

func mismatch(what string, want, got digest.Digest) *fault.Error {
	return fault.New(fault.Refused, "%s has other bytes than the lock says", what).
		Detail("want: "+want.String(), "got:  "+got.String()).
		Mend("do not use this mirror; if the archive really replaced it, resolve anew with  ashlar build --update")
}
