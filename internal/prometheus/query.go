// Package prometheus asks a Prometheus server, or what speaks its HTTP API, for one
// number: https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
//
// It judges nothing: whether a number is good is for package gate to say.
//
// Start at [Query]. real_test.go asks a real Prometheus.
package prometheus

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Limits of one query.
const (
	timeout = 10 * time.Second // for the whole exchange, if ctx does not end before
	maxBody = 1 << 20          // bytes of the answer
)

// client follows no redirect: the number would be another server's.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// Query evaluates a PromQL expression now, at the server whose API is below base, such
// "http://localhost:9090". found is false if the result is empty. The value may be
// NaN or infinite. Credentials with a colon are user:password (RFC 7617), others a bearer
// token (RFC 6750), and nil are none; they are in no error, and go nowhere in the clear but to this machine.
//
// A fault is of kind Unavailable if the server does not answer, fails or warns that
// the result is not to be relied on, and of kind Invalid if the expression is wrong or is
// not one number: several series, a range, a text, a histogram.
func Query(ctx context.Context, base, expr string, credentials []byte) (value float64, found bool, err error) {
	where, err := endpoint(base, credentials != nil)
	if err != nil {
		return 0, false, err
	}
	login, err := authorization(credentials)
	if err != nil {
		return 0, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := ask(ctx, where, expr, login)
	if err != nil {
		return 0, false, err
	}
	switch {
	case answer.Status == "error" && answer.Type == "bad_data":
		return 0, false, wrong(expr, answer.Error)
	case answer.Status != "success":
		return 0, false, unavailable(base, "%s: %s", answer.Type, answer.Error)
	case len(answer.Warnings) > 0:
		return 0, false, unavailable(base, "it warns: %s", strings.Join(answer.Warnings, "; "))
	}
	return answer.Data.number(base, expr)
}

func endpoint(base string, secret bool) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fault.New(fault.Invalid, "the address of Prometheus cannot be used").
			Mend("write  an address such as http://localhost:9090, without credentials")
	}
	ip := net.ParseIP(u.Hostname())
	if secret && u.Scheme != "https" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", fault.New(fault.Invalid, "Prometheus would be told its secret in the clear").At(base).Mend("write  https://")
	}
	return u.JoinPath("api/v1/query").String(), nil
}

// authorization is the header of credentials; empty: none.
func authorization(credentials []byte) (string, error) {
	text := strings.TrimSpace(string(credentials))
	switch {
	case credentials == nil:
		return "", nil
	case text == "" || strings.ContainsFunc(text, unicode.IsControl):
		return "", fault.New(fault.Invalid, "the secret for Prometheus is neither a token nor user:password")
	case strings.Contains(text, ":"):
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)), nil
	}
	return "Bearer " + text, nil
}

// answer is the envelope of every answer of the API.
type answer struct {
	Status   string   `json:"status"`
	Type     string   `json:"errorType"`
	Error    string   `json:"error"`
	Warnings []string `json:"warnings"`
	Data     data     `json:"data"`
}

type data struct {
	Type   string          `json:"resultType"`
	Result json.RawMessage `json:"result"`
}

type series struct {
	Metric    map[string]string `json:"metric"`
	Value     *sample           `json:"value"`
	Histogram json.RawMessage   `json:"histogram"`
}

// sample is [time, "value"].
type sample float64

func (s *sample) UnmarshalJSON(text []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(text, &parts); err != nil {
		return err
	}
	if len(parts) != 2 {
		return fmt.Errorf("a sample of %d parts", len(parts))
	}
	var value string
	if err := json.Unmarshal(parts[1], &value); err != nil {
		return err
	}
	number, err := strconv.ParseFloat(value, 64)
	*s = sample(number)
	return err
}

func ask(ctx context.Context, where, expr, login string) (a answer, err error) {
	form := url.Values{"query": {expr}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, strings.NewReader(form))
	if err != nil {
		return a, fault.New(fault.Internal, "ask Prometheus: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if login != "" {
		req.Header.Set("Authorization", login)
	}
	res, err := client.Do(req)
	if err != nil {
		return a, unavailable(where, "%w", err)
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	switch {
	case err != nil:
		return a, unavailable(where, "its answer broke off: %w", err)
	case len(body) > maxBody:
		return a, wrong(expr, fmt.Sprintf("the answer is larger than %d bytes", maxBody))
	}
	// Errors of the API are JSON too; anything else is of something in between.
	if err := json.Unmarshal(body, &a); err != nil || a.Status == "" || res.StatusCode >= 300 && res.StatusCode < 400 {
		return a, unavailable(where, "it answers %s, which is not of its API", res.Status)
	}
	return a, nil
}

// number is the one number of a result.
func (d data) number(base, expr string) (float64, bool, error) {
	unreadable := func(err error) (float64, bool, error) {
		return 0, false, unavailable(base, "its answer cannot be read: %w", err)
	}
	switch d.Type {
	case "scalar":
		var s sample
		if err := json.Unmarshal(d.Result, &s); err != nil {
			return unreadable(err)
		}
		return float64(s), true, nil
	case "vector":
		var all []series
		if err := json.Unmarshal(d.Result, &all); err != nil {
			return unreadable(err)
		}
		switch {
		case len(all) == 0:
			return 0, false, nil
		case len(all) > 1:
			return 0, false, wrong(expr, fmt.Sprintf("the result has %d series, such as %s and %s", len(all), all[0].name(), all[1].name()))
		case all[0].Value == nil:
			return 0, false, wrong(expr, "the result is a histogram")
		}
		return float64(*all[0].Value), true, nil
	default:
		return 0, false, wrong(expr, fmt.Sprintf("the result is a %.40s", d.Type))
	}
}

func (s series) name() string {
	text, err := json.Marshal(s.Metric)
	if err != nil {
		return "?"
	}
	return fmt.Sprintf("%.120s", text)
}

func wrong(expr, what string) error {
	return fault.New(fault.Invalid, "the query is not one number: %.400s", what).Detail(fmt.Sprintf("query: %.400s", expr)).
		Mend("write  a query whose result is one number, such as  sum(rate(…[1m]))  or  scalar(…)")
}

func unavailable(where, format string, args ...any) error {
	return fault.New(fault.Unavailable, "Prometheus cannot be asked: "+format, args...).At(where).
		Mend("see that it runs and that its address is the one in ashlar.yaml")
}
