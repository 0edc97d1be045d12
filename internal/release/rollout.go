package release

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of lists of an environment.
const (
	maxSteps   = 100
	maxHooks   = 16
	maxWindows = 64
)

// The strategies and queues that are known.
var (
	strategies = []string{"blue-green", "canary", "recreate", "rolling"}
	queues     = []string{"", QueueRefuse, QueueSerialise, QueueCoalesce, QueueVerify}
	weekdays   = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
)

func (r Rollout) check(c *checker, where string) {
	c.oneOf(where+".strategy", r.Strategy, strategies)
	c.text(where+".preview", r.Preview)
	c.between(where+".warmMs", r.WarmMS, 0, maxMilliseconds)
	c.between(where+".surge", int64(r.Surge), 0, maxReplicas)
	c.between(where+".unavailable", int64(r.Unavailable), 0, maxReplicas)
	c.between(where+".batch", int64(r.Batch), 0, maxReplicas)
	if r.Strategy == "rolling" && r.Surge == 0 && r.Unavailable == 0 {
		c.fail(where, "is rolling with surge 0 and unavailable 0; nothing could be replaced")
	}
	r.checkSteps(c, where+".steps")
	if m := r.Match; m != nil {
		c.text(where+".match", m.Header+m.Cookie+m.Value)
		if (m.Header == "") == (m.Cookie == "") {
			c.fail(where+".match", "must have exactly one of header and cookie")
		}
	}
	c.text(where+".sticky", r.Sticky)
	if r.Analysis != nil {
		r.Analysis.check(c, where+".analysis")
	}
	c.between(where+".bakeMs", r.BakeMS, 0, maxMilliseconds)
	c.between(where+".deadlineMs", r.DeadlineMS, 0, maxMilliseconds)
	c.oneOf(where+".queue", r.Queue, queues)
	c.count(where+".freeze", len(r.Freeze), 0, maxWindows)
	for i, w := range r.Freeze {
		w.check(c, fmt.Sprintf("%s.freeze[%d]", where, i))
	}
}

// checkSteps checks that the weights grow and end at 100.
func (r Rollout) checkSteps(c *checker, where string) {
	if r.Strategy != "canary" {
		c.count(where, len(r.Steps), 0, 0)
		return
	}
	c.count(where, len(r.Steps), 1, maxSteps)
	last := 0
	for i, s := range r.Steps {
		at := fmt.Sprintf("%s[%d]", where, i)
		c.between(at+".weight", int64(s.Weight), int64(last+1), 100)
		c.between(at+".pauseMs", s.PauseMS, 0, maxMilliseconds)
		last = s.Weight
	}
	if last != 100 {
		c.fail(where, "end at %d; the last weight must be 100", last)
	}
}

func (a Analysis) check(c *checker, where string) {
	c.between(where+".requests", int64(a.Requests), 1, maxInteger)
	c.decimal(where+".errors", a.Errors)
	c.decimal(where+".slower", a.Slower)
	c.between(where+".windowMs", a.WindowMS, 1, maxMilliseconds)
	if a.Slower != "" {
		c.between(where+".quantile", int64(a.Quantile), 1, 999)
	} else {
		c.between(where+".quantile", int64(a.Quantile), 0, 0)
	}
	c.text(where+".prometheus", a.Prometheus)
	if a.Secret != "" {
		c.name(where+".secret", a.Secret)
	}
	c.count(where+".queries", len(a.Queries), 0, maxList)
	if len(a.Queries) > 0 && a.Prometheus == "" {
		c.fail(where+".prometheus", "is missing; there are queries")
	}
	for i, q := range a.Queries {
		at := fmt.Sprintf("%s.queries[%d]", where, i)
		c.name(at, q.Name)
		c.required(at+".expr", q.Expr)
		c.decimal(at+".min", q.Min)
		c.decimal(at+".max", q.Max)
		if q.Min == "" && q.Max == "" {
			c.fail(at, "has neither min nor max")
		}
	}
}

func (w Window) check(c *checker, where string) {
	c.count(where+".days", len(w.Days), 0, len(weekdays))
	for _, day := range w.Days {
		c.oneOf(where+".days", day, weekdays)
	}
	for key, v := range map[string]string{"from": w.From, "to": w.To} {
		if _, err := time.Parse("15:04", v); err != nil || len(v) != len("15:04") {
			c.fail(where+"."+key, "is %q; it must be a time such as 09:30", v)
		}
	}
	c.required(where+".zone", w.Zone)
	if w.Until != "" {
		if _, err := time.Parse(time.DateOnly, w.Until); err != nil {
			c.fail(where+".until", "is %q; it must be a date such as 2030-01-06", w.Until)
		}
	}
}

func (t TLS) check(c *checker, where string) {
	if t.ACME != "" {
		c.text(where+".acme", t.ACME)
		c.count(where+".domains", len(t.Domains), 1, maxList)
		for _, d := range t.Domains {
			c.required(where+".domains", d)
		}
		if t.Certificate != "" || t.Key != "" {
			c.fail(where, "has both files and acme")
		}
		return
	}
	c.path(where+".certificate", t.Certificate)
	c.path(where+".key", t.Key)
	c.count(where+".domains", len(t.Domains), 0, 0)
}

func (w Webhook) check(c *checker, where string) {
	c.text(where+".url", w.URL)
	if !strings.HasPrefix(w.URL, "http://") && !strings.HasPrefix(w.URL, "https://") {
		c.fail(where+".url", "is %q; it must be an http or https URL", w.URL)
	}
	if w.Secret != "" {
		c.name(where+".secret", w.Secret)
	}
}

func (c *checker) oneOf(where, s string, known []string) {
	if !slices.Contains(known, s) {
		c.fail(where, "is %q; it must be one of %s", s, strings.Join(known, ", "))
	}
}

// decimals is compiled when it is first needed: most releases have no decimals.
var decimals = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$`) })

// decimal checks a number in its shortest form; empty is none.
func (c *checker) decimal(where, s string) {
	if s != "" && (!decimals().MatchString(s) || s == "-0" || len(s) > 32) {
		c.fail(where, "is %q; it must be a decimal number in its shortest form", s)
	}
}
