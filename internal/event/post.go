package event

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// answerWithin is how long a receiver may take for one event.
const answerWithin = 20 * time.Second

// client follows no redirect: what was signed for one receiver is not for another.
var client = &http.Client{
	Timeout:       answerWithin,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Receiver reads the address of a webhook: https, or http to this machine itself. Anything
// else is a fault of kind Invalid.
func Receiver(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fault.New(fault.Invalid, "the address of a webhook cannot be used").Mend("write  an address such as https://example.org/hook")
	}
	ip := net.ParseIP(u.Hostname())
	here := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && here) {
		return nil, fault.New(fault.Invalid, "the webhook %s would be told in the clear", shown(u)).Mend("write  https://, or http:// to this machine itself")
	}
	return u, nil
}

// shown is an address without its query, which may hold what is not for everybody.
func shown(u *url.URL) string {
	s := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return s.String()
}

// post makes one attempt. Only an answer 2xx is a delivery. after is how long the receiver
// asks to be left alone, if it does. The key is nil for a webhook without a secret.
func post(ctx context.Context, to *url.URL, key []byte, e Event, now time.Time) (after time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(e.Body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", ContentType)
	req.Header.Set("User-Agent", "ashlar")
	req.Header.Set("Webhook-Id", e.ID)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	if key != nil {
		req.Header.Set("Webhook-Signature", Sign(key, e.ID, now, e.Body))
	}
	res, err := client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // url.Error tells the whole address
		}
		return 0, err
	}
	_, drained := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<16)) // so that the connection can be used again
	if err := res.Body.Close(); err != nil && drained == nil {
		drained = err
	}
	if res.StatusCode/100 == 2 {
		return 0, nil // it has the event, whatever became of the rest of its answer
	}
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && seconds > 0 {
		after = time.Duration(min(seconds, 3600)) * time.Second
	}
	return after, fmt.Errorf("it answers %s", res.Status)
}
