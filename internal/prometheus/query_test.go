package prometheus_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/prometheus"
)

func TestAnswers(t *testing.T) {
	vector := func(result string) string {
		return `{"status":"success","data":{"resultType":"vector","result":[` + result + `]}}`
	}
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"a number":          {200, vector(`{"metric":{},"value":[1764000000.1,"0.25"]}`), "0.25 true"},
		"nothing":           {200, vector(``), "0 false"},
		"not a number":      {200, vector(`{"metric":{},"value":[1,"NaN"]}`), "NaN true"},
		"infinite":          {200, vector(`{"metric":{},"value":[1,"-Inf"]}`), "-Inf true"},
		"a scalar":          {200, `{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}`, "3 true"},
		"an info":           {200, `{"status":"success","infos":["i"],"data":{"resultType":"scalar","result":[1,"3"]}}`, "3 true"},
		"two series":        {200, vector(`{"metric":{"a":"b"},"value":[1,"1"]},{"metric":{"a":"c"},"value":[1,"2"]}`), `invalid: the query is not one number: the result has 2 series, such as {"a":"b"} and {"a":"c"}`},
		"a histogram":       {200, vector(`{"metric":{},"histogram":[1,{"count":"1"}]}`), "invalid: the query is not one number: the result is a histogram"},
		"a text":            {200, `{"status":"success","data":{"resultType":"string","result":[1,"x"]}}`, "invalid: the query is not one number: the result is a string"},
		"a warning":         {200, `{"status":"success","warnings":["half of the stores did not answer"],"data":{"resultType":"scalar","result":[1,"3"]}}`, "unavailable: Prometheus cannot be asked: it warns: half of the stores did not answer"},
		"a wrong query":     {400, `{"status":"error","errorType":"bad_data","error":"parse error"}`, "invalid: the query is not one number: parse error"},
		"too slow a query":  {503, `{"status":"error","errorType":"timeout","error":"query timed out"}`, "unavailable: Prometheus cannot be asked: timeout: query timed out"},
		"another server":    {200, `<html>`, "unavailable: Prometheus cannot be asked: it answers 200 OK, which is not of its API"},
		"another's JSON":    {200, `{}`, "unavailable: Prometheus cannot be asked: it answers 200 OK, which is not of its API"},
		"no entry":          {401, `no`, "unavailable: Prometheus cannot be asked: it answers 401 Unauthorized, which is not of its API"},
		"a redirect":        {307, vector(`{"metric":{},"value":[1,"1"]}`), "unavailable: Prometheus cannot be asked: it answers 307 Temporary Redirect, which is not of its API"},
		"half a sample":     {200, vector(`{"metric":{},"value":[1]}`), "unavailable: Prometheus cannot be asked: its answer cannot be read: "},
		"a sample of words": {200, vector(`{"metric":{},"value":[1,"x"]}`), "unavailable: Prometheus cannot be asked: its answer cannot be read: "},
		"a huge answer":     {200, vector(strings.Repeat(`{"metric":{},"value":[1,"1"]},`, 60000) + `{"metric":{},"value":[1,"1"]}`), "invalid: the query is not one number: the answer is larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/below/api/v1/query" || r.PostFormValue("query") != `up{a="b"}` {
					t.Errorf("asked %s %q", r.URL, r.PostForm)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			defer server.Close()
			value, found, err := prometheus.Query(t.Context(), server.URL+"/below/", `up{a="b"}`, nil)
			got := fmt.Sprint(value, found)
			if err != nil {
				got = string(fault.Of(err).Kind) + ": " + fault.Of(err).What
			}
			if got != c.want && !(strings.HasPrefix(got, c.want) && err != nil) {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			if err != nil && (value != 0 || found || math.IsNaN(value)) {
				t.Errorf("an error with %v, %v", value, found)
			}
		})
	}
}

func TestServersThatDoNotAnswer(t *testing.T) {
	ended := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ended }))
	defer silent.Close()
	defer close(ended)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, base := range []string{silent.URL, gone.URL} {
		if _, _, err := prometheus.Query(ctx, base, "up", nil); fault.Of(err) == nil || fault.Of(err).Kind != fault.Unavailable {
			t.Errorf("%s: %v", base, err)
		}
	}
	for _, base := range []string{"", "localhost:9090", "ftp://localhost", "http://a:secret@localhost", "http://", "http://localhost?x=y", "http://%zz"} {
		_, _, err := prometheus.Query(t.Context(), base, "up", nil)
		if fault.Of(err) == nil || fault.Of(err).Kind != fault.Invalid || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", base, err)
		}
	}
}

// TestCredentials: a token or a user with a password is sent as its scheme says, to this
// machine or by TLS, and is in no error.
func TestCredentials(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, "no such user")
	}))
	defer server.Close()
	for secret, want := range map[string]string{"marker\n": "Bearer marker", "dana:marker": "Basic ZGFuYTptYXJrZXI="} {
		_, _, err := prometheus.Query(t.Context(), server.URL, "up", []byte(secret))
		if f := fault.Of(err); got != want || f == nil || f.Kind != fault.Unavailable || strings.Contains(f.Error(), "marker") {
			t.Errorf("%q was sent, %v", got, err)
		}
	}
	for base, secret := range map[string]string{server.URL: "mar\nker", "http://10.0.0.1:9090": "marker", "http://prometheus.test": "marker", server.URL + "/x": " "} {
		got = ""
		_, _, err := prometheus.Query(t.Context(), base, "up", []byte(secret))
		if f := fault.Of(err); f == nil || f.Kind != fault.Invalid || got != "" || strings.Contains(f.Error(), "marker") {
			t.Errorf("%s: %v, sent %q", base, err, got)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}`)
	f.Add(`{"status":"success","data":{"resultType":"scalar","result":[1,"NaN"]}}`)
	f.Add(`{"status":"success","data":{"resultType":"vector","result":[null]}}`)
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }))
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, text string) {
		body = text
		value, found, err := prometheus.Query(t.Context(), server.URL, "up", nil)
		if (err != nil || !found) && value != 0 {
			t.Fatalf("%v, %v, %v", value, found, err)
		}
	})
}
