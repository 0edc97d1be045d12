package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// maxProbeBody is how much of an answer is read, in bytes. What comes after is not waited for.
const maxProbeBody = 64 << 10

// check makes the probe of an instance: a command in its twin, an HTTP GET of the path,
// or a TCP connect. It ends with its context. Its error is what a person reads.
func (i *instance) check() func(context.Context) error {
	if len(i.meta.Spec.Health.Exec) > 0 {
		return i.checkExec
	}
	return newCheck(*i.meta.Spec.Health, i.meta.hostPort())
}

// checkExec runs the command of the health check in a sealed twin of the instance.
func (i *instance) checkExec(ctx context.Context) error {
	values, err := i.platform.secretValues(ctx, i.meta)
	if err != nil {
		return err
	}
	spec, err := i.platform.twinSpec(i.meta, values)
	if err != nil {
		return err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	timeout := time.Duration(i.meta.Spec.Health.TimeoutMS) * time.Millisecond
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout+twinPatience)
	defer cancel()
	stop := context.AfterFunc(i.platform.ctx, cancel)
	defer stop()
	var f *shim.Failure
	switch err := i.client().Probe(patient, shim.Probe{Spec: text, Timeout: timeout}); {
	case errors.As(err, &f):
		return fmt.Errorf("%s: %s", strings.Join(i.meta.Spec.Health.Exec, " "), f.Text)
	default:
		return err
	}
}

// twinPatience is how much longer than its timeout a probe's twin may take: to be
// made, and to be taken away.
const twinPatience = 10 * time.Second

// newCheck makes a probe of an address.
func newCheck(h release.Health, address string) func(context.Context) error {
	if h.HTTP == "" {
		return func(ctx context.Context) error { return checkTCP(ctx, address) }
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	url := "http://" + address + "/" + strings.TrimPrefix(h.HTTP, "/")
	return func(ctx context.Context) error {
		if err := checkHTTP(ctx, client, url); err != nil {
			return fmt.Errorf("GET %s: %w", url, err)
		}
		return nil
	}
}

func checkTCP(ctx context.Context, address string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address, inWords(err))
	}
	return conn.Close()
}

func checkHTTP(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "ashlar-probe")
	res, err := client.Do(req)
	if err != nil {
		return inWords(err)
	}
	defer res.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProbeBody))
	if err != nil {
		return fmt.Errorf("answered %s, but its body did not end: %w", res.Status, inWords(err))
	}
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return fmt.Errorf("answered %s%s", res.Status, firstLine(body))
	}
	return nil
}

// inWords replaces the errors of net that repeat the address by what happened.
func inWords(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("no answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return errors.New("the connection was closed without an answer")
	}
	return err
}

// firstLine is ": " and the beginning of body's first line, if it is text.
func firstLine(body []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	line = strings.ToValidUTF8(strings.TrimSpace(line), "")
	if line == "" || strings.HasPrefix(line, "<") {
		return ""
	}
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "") + "…"
	}
	return ": " + line
}
