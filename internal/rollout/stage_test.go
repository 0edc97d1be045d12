package rollout_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// stage is what a transcript plays on: one environment, shop/prod, and an outside
// in which nothing happens unless the transcript says so. What Decide asks for is
// printed and not done.
type stage struct {
	now   time.Time
	state rollout.State
	seen  rollout.Observation
	known map[digest.Digest]rollout.Target // every release that was deployed
	names map[digest.Digest]string         // of releases, for printing

	policy []string // what it says: its name, admits, refuses or errs, and why
}

// judge is what an engine with an Admitter observes.
func (st *stage) judge(p *rollout.Plea) *rollout.Admission {
	if st.policy == nil {
		return nil
	}
	a := &rollout.Admission{}
	if p == nil {
		return a
	}
	a.Release, a.Policy, a.Admitted = p.Release, digest.FromString(st.policy[0]), st.policy[1] == "admits"
	a.Data = map[string]string{"policy": st.policy[0]}
	switch st.policy[1] {
	case "refuses":
		a.Why = st.policy[2]
	case "errs":
		a.Error = st.policy[2]
	}
	return a
}

var midnight = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func newStage() *stage {
	return &stage{
		now: midnight, state: rollout.State{App: "shop", Env: "prod"},
		seen:  rollout.Observation{Router: rollout.RouterStatus{InFlight: map[string]int{}}, Attempts: map[string]rollout.Attempt{}},
		known: map[digest.Digest]rollout.Target{}, names: map[digest.Digest]string{},
	}
}

// run obeys one command:
//
//	begin deploy release 2: web=specB x2 route / drain 5s; db=specC   (x1, start 10s, drain 5s, grace 5s, not routed)
//	begin deploy release 2 canary stage 10 pause 1m stage 50 approve: web=specB   by a strategy, see strategy; also queue or supersede
//	control approve "words"              what a person says: approve, pause, resume, abort
//	traffic web 2 requests 100 errors 5 each 20ms   what the router has counted so far of a release
//	begin rollback release 1             to a release that was described before
//	begin down                           to nothing
//	rollback to                          which release a rollback without an argument would lead to
//	observe web-1 web-2 ready            starting, ready, unready, unknown, stopping, exited [STATUS|SIGNAL|oom], gone;
//	                                     then: probe "words", output "last line"
//	start fails web-1 "words"            the platform refused to start it
//	inflight web-1 3                     requests under way
//	router ack                           it serves the table that was asked for last
//	router refuses "words"               it will never take that table
//	router forgets                       a new one, without any table
//	server restarts                      what it knew beyond the state is lost, nothing is probed yet
//	advance 200ms                        time passes
//	decide                               one decision; the state is kept
//	decide, killed before the commit     one decision; the state is not kept
//	policy NAME refuses "why"            what it says from now on: admits, refuses, errs
//	state                                what is remembered
func (st *stage) run(line string) ([]string, error) {
	words, err := split(line)
	if err != nil {
		return nil, err
	}
	command, rest := words[0], words[1:]
	switch command {
	case "begin":
		return st.begin(line, rest)
	case "observe":
		return nil, st.observe(rest)
	case "start": // fails ID "words"
		id := longID(rest[1])
		st.seen.Attempts[id] = rollout.Attempt{Count: st.seen.Attempts[id].Count + 1, Last: rest[2], At: st.now}
		return nil, nil
	case "inflight":
		st.seen.Router.InFlight[longID(rest[0])], err = strconv.Atoi(rest[1])
		return nil, err
	case "router":
		return nil, st.router(rest)
	case "server":
		st.seen.Refused, st.seen.Attempts = nil, map[string]rollout.Attempt{}
		for i := range st.seen.Instances {
			if in := &st.seen.Instances[i]; in.Phase != rollout.Exited && in.Phase != rollout.Stopping {
				in.Phase, in.Probe = rollout.Unknown, ""
			}
		}
		return nil, nil
	case "policy": // NAME admits, NAME refuses "why", NAME errs "why"
		st.policy = rest
		return nil, nil
	case "control":
		return st.control(rest)
	case "traffic":
		return nil, st.traffic(rest)
	case "advance":
		d, err := time.ParseDuration(rest[0])
		st.now = st.now.Add(d)
		return []string{"it is " + st.now.Format("15:04:05.000")}, err
	case "rollback":
		if d := st.state.RollbackTo(); d != "" {
			return []string{st.names[d]}, nil
		}
		return []string{"nothing to go back to"}, nil
	case "decide", "decide,":
		return st.decide(len(rest) == 0), nil
	case "state":
		return st.remembered(), nil
	}
	return nil, errors.New("no such command")
}

// begin is what the engine does when somebody asks for a rollout.
func (st *stage) begin(line string, words []string) ([]string, error) {
	q := rollout.Request{Kind: words[0], Actor: "dana"}
	switch {
	case q.Kind == rollout.KindDown:
		if c := st.state.Current; c != nil {
			q.To = rollout.Target{Release: c.Release, Number: c.Number, Platform: c.Platform, Strategy: c.Strategy}
		}
	case strings.Contains(line, ":"):
		head, components, _ := strings.Cut(line, ": ")
		words = strings.Fields(head)[1:]
		number, err := strconv.Atoi(words[2])
		if err != nil {
			return nil, err
		}
		if q.To, err = target(number, components); err != nil {
			return nil, err
		}
		if err := strategy(&q, words[3:]); err != nil {
			return nil, err
		}
		st.known[q.To.Release], st.names[q.To.Release] = q.To, "release "+words[2]
	default:
		q.To = st.known[digest.FromString("release "+words[2])]
	}
	if q.Kind != rollout.KindDown {
		q.Admission = st.judge(q.Plea(rollout.Key{App: "shop", Env: "prod"}))
	}
	next, events, err := rollout.Begin(st.now, st.state, q)
	if err != nil {
		return strings.Split("refused: "+err.Error(), "\n"), nil
	}
	st.state = clone(next)
	return st.tell(rollout.Decision{Events: events}), nil
}

// target reads "web=specB x2 route / drain 5s; db=specC".
func target(number int, components string) (rollout.Target, error) {
	t := rollout.Target{
		Release: digest.FromString(fmt.Sprint("release ", number)), Number: number,
		Platform: "local", Listen: "127.0.0.1:80", Strategy: rollout.Strategy{Kind: "blue-green"},
	}
	for text := range strings.SplitSeq(components, ";") {
		words := strings.Fields(text)
		name, spec, ok := strings.Cut(words[0], "=")
		if !ok {
			return t, fmt.Errorf("%q is not component=spec", words[0])
		}
		c := rollout.Component{Name: name, Spec: digest.FromString(spec), Replicas: 1, Start: 10 * time.Second, Drain: 5 * time.Second, Grace: 5 * time.Second}
		for i := 1; i < len(words); i++ {
			var err error
			switch words[i] {
			case "route":
				i++
				c.Route = &rollout.Route{Path: words[i], Hold: time.Second}
			case "start":
				i++
				c.Start, err = time.ParseDuration(words[i])
			case "drain":
				i++
				c.Drain, err = time.ParseDuration(words[i])
			case "grace":
				i++
				c.Grace, err = time.ParseDuration(words[i])
			case "tcp":
				i++
				c.Route = &rollout.Route{Hold: time.Second}
				c.Route.TCP, err = strconv.Atoi(words[i])
			case "volume":
				i++
				c.Volumes = append(c.Volumes, words[i])
			case "needs":
				i++
				c.Needs = append(c.Needs, words[i])
			case "hook": // before 30s
				h := rollout.Hook{When: words[i+1], Spec: digest.FromString(spec + " " + words[i+1])}
				h.Timeout, err = time.ParseDuration(words[i+2])
				c.Hooks = append(c.Hooks, h)
				i += 2
			case "schema": // NAME reads MIN to MAX writes N leaves N
				x := rollout.Schema{Name: words[i+1]}
				_, err = fmt.Sscanf(strings.Join(words[i+2:i+10], " "), "reads %d to %d writes %d leaves %d", &x.Min, &x.Max, &x.Writes, &x.Leaves)
				c.Schemas = append(c.Schemas, x)
				i += 9
			case rollout.KindWorker, rollout.KindSingleton:
				c.Kind = words[i]
			case "every": // minute
				i++
				c.Kind, c.Schedule = rollout.KindJob, "* * * * *"
			default:
				c.Replicas, err = strconv.Atoi(strings.TrimPrefix(words[i], "x"))
			}
			if err != nil {
				return t, err
			}
		}
		t.Components = append(t.Components, c)
	}
	return t, nil
}

// strategy reads "canary stage 10 pause 1m stage 50 approve bake 1m".
func strategy(q *rollout.Request, words []string) error {
	s := &q.To.Strategy
	for i := 0; i < len(words); i++ {
		var err error
		number := func(n *int) { i++; *n, err = strconv.Atoi(words[i]) }
		duration := func(d *time.Duration) { i++; *d, err = time.ParseDuration(words[i]) }
		analysis := func() *rollout.Analysis {
			if s.Analysis == nil {
				s.Analysis = &rollout.Analysis{Window: time.Minute}
			}
			return s.Analysis
		}
		last := func() *rollout.Stage {
			if len(s.Stages) == 0 {
				s.Stages = []rollout.Stage{{}}
			}
			return &s.Stages[len(s.Stages)-1]
		}
		switch words[i] {
		case "stage":
			s.Stages = append(s.Stages, rollout.Stage{})
			number(&last().Weight)
		case "pause":
			duration(&last().Pause)
		case "approve":
			last().Approve = true
		case "preview":
			i++
			last()
			s.Preview = words[i]
		case "warm":
			duration(&s.Warm)
		case "bake":
			duration(&s.Bake)
		case "deadline":
			duration(&s.Deadline)
		case "surge":
			number(&s.Surge)
		case "unavailable":
			number(&s.Unavailable)
		case "batch":
			number(&s.Batch)
		case "requests":
			number(&analysis().Requests)
		case "errors":
			i++
			analysis().Errors = words[i]
		case "slower": // FACTOR at PER-MILLE
			analysis().Slower = words[i+1]
			i += 2
			number(&analysis().Quantile)
		case "window":
			duration(&analysis().Window)
		case "cookie", "header":
			s.Match = &rollout.Match{Value: words[i+2]}
			if words[i] == "cookie" {
				s.Match.Cookie = words[i+1]
			} else {
				s.Match.Header = words[i+1]
			}
			i += 2
		case "sticky":
			i++
			s.Sticky = words[i]
		case "queue":
			q.Queue = true
		case "supersede":
			q.Supersede = true
		case "force":
			q.Force = true
		case "coalesce", "serialise", "verify":
			s.Queue = words[i]
		default:
			s.Kind = words[i]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// control is what the engine does when a person says something.
func (st *stage) control(words []string) ([]string, error) {
	c := rollout.Command{Verb: words[0]}
	if len(words) > 1 {
		c.Reason = words[1]
	}
	next, events, err := rollout.Control(st.now, st.state, "dana", c)
	if err != nil {
		return strings.Split("refused: "+err.Error(), "\n"), nil
	}
	st.state = clone(next)
	return st.tell(rollout.Decision{Events: events}), nil
}

// traffic sets what the router has counted for a service's backends of a release.
func (st *stage) traffic(words []string) error {
	t := rollout.Traffic{Latency: make([]int64, len(rollout.LatencyBounds)+1)}
	var each string
	if _, err := fmt.Sscanf(strings.Join(words[2:], " "), "requests %d errors %d each %s", &t.Requests, &t.Errors, &each); err != nil {
		return err
	}
	took, err := time.ParseDuration(each)
	class, _ := slices.BinarySearch(rollout.LatencyBounds, took)
	t.Latency[class] = t.Requests
	if st.seen.Router.Traffic == nil {
		st.seen.Router.Traffic = map[string]rollout.Traffic{}
	}
	st.seen.Router.Traffic[rollout.TrafficKey(words[0], rollout.Short(digest.FromString("release "+words[1])))] = t
	return err
}

// observe changes what the platform reports: instances, then a phase, then details.
func (st *stage) observe(words []string) error {
	var ids []string
	for len(words) > 0 && strings.Contains(words[0], "-") {
		ids, words = append(ids, longID(words[0])), words[1:]
	}
	if len(words) == 0 || len(ids) == 0 {
		return errors.New("observe INSTANCE... PHASE")
	}
	for _, id := range ids {
		at := slices.IndexFunc(st.seen.Instances, func(in rollout.Observed) bool { return in.ID == id })
		if words[0] == "gone" {
			if at < 0 {
				return fmt.Errorf("%s is not there", id)
			}
			st.seen.Instances = slices.Delete(st.seen.Instances, at, at+1)
			delete(st.seen.Router.InFlight, id)
			continue
		}
		if at < 0 {
			at = len(st.seen.Instances)
			st.seen.Instances = append(st.seen.Instances, st.newborn(id))
		}
		in := &st.seen.Instances[at]
		in.Phase, in.Probe, in.Exit, in.Tail = rollout.Phase(words[0]), "", nil, nil
		for i := 1; i < len(words); i++ {
			switch words[i] {
			case "probe":
				i++
				in.Probe = words[i]
			case "output":
				i++
				in.Tail = []string{words[i]}
			default:
				in.Exit = exit(words[i], st.now)
			}
		}
	}
	return nil
}

// newborn is what a platform reports of an instance that it just started.
func (st *stage) newborn(id string) rollout.Observed {
	in := rollout.Observed{ID: id, StartedAt: st.now, Address: strings.TrimPrefix(id, "shop-prod-") + ":8080"}
	for _, o := range st.state.Instances {
		if o.ID == id {
			in.Component, in.Release, in.Spec = o.Component, o.Release, o.Spec
		}
	}
	return in
}

func exit(how string, at time.Time) *rollout.Exit {
	code, err := strconv.Atoi(how)
	switch {
	case err == nil:
		return &rollout.Exit{Code: code, At: at}
	case how == "oom":
		return &rollout.Exit{Code: 137, Signal: "SIGKILL", OOM: true, At: at}
	default:
		return &rollout.Exit{Code: 137, Signal: how, At: at}
	}
}

func (st *stage) router(words []string) error {
	switch words[0] {
	case "ack":
		st.seen.Router.Generation, st.seen.Refused = st.state.Table.Generation, nil
	case "refuses":
		st.seen.Refused = &rollout.Refused{Generation: st.state.Table.Generation, What: words[1]}
	case "forgets":
		st.seen.Router = rollout.RouterStatus{InFlight: map[string]int{}}
	default:
		return errors.New("router ack, refuses or forgets")
	}
	return nil
}

func (st *stage) decide(keep bool) []string {
	st.seen.Admission = st.judge(st.state.Plea())
	d := rollout.Decide(st.now, st.state, st.seen)
	if keep {
		st.state = clone(d.Next)
	}
	return st.tell(d)
}

// tell puts a decision into words.
func (st *stage) tell(d rollout.Decision) []string {
	var out []string
	say := func(what, format string, args ...any) {
		out = append(out, strings.ReplaceAll(fmt.Sprintf("%-7s ", what)+fmt.Sprintf(format, args...), "shop-prod-", ""))
	}
	for _, e := range d.Events {
		say("record", "%s", st.eventWords(e))
	}
	for _, a := range d.Do {
		say("do", "%s", a)
	}
	for _, w := range d.Waiting {
		say("wait", "for %s", w)
	}
	if !d.Wake.IsZero() {
		say("wake", "in %s", d.Wake.Sub(st.now))
	}
	if len(out) == 0 {
		return []string{"nothing to do"}
	}
	return out
}

func (st *stage) eventWords(e rollout.Event) string {
	words := e.Kind
	if e.Instance != "" {
		words += " " + e.Instance
	} else if e.Release != "" {
		words += " " + st.names[e.Release]
	}
	if e.Reason != "" {
		words += ": " + e.Reason
	}
	if len(e.Data) > 0 {
		var data []string
		for _, k := range slices.Sorted(maps.Keys(e.Data)) {
			data = append(data, k+"="+e.Data[k])
		}
		words += "  (" + strings.Join(data, ", ") + ")"
	}
	return words
}

// remembered puts the state into words.
func (st *stage) remembered() []string {
	s, name := st.state, func(d digest.Digest) string { return st.names[d] }
	out := []string{"current: nothing"}
	if s.Current != nil {
		out[0] = "current: " + name(s.Current.Release)
		if len(s.Current.Components) == 0 {
			out[0] += ", down"
		}
	}
	switch r := s.Rollout; {
	case r != nil:
		out = append(out, fmt.Sprintf("rollout: %d, %s of %s, %s", r.Number, r.Kind, name(r.To.Release), r.Step))
	case s.LastResult != nil:
		out = append(out, fmt.Sprintf("rollout: none; %d, %s of %s, ended %s", s.LastResult.Number, s.LastResult.Kind, name(s.LastResult.Release), s.LastResult.Outcome))
	}
	out = append(out, "routes: "+s.Table.String())
	for _, o := range s.Instances {
		words := "instance: " + o.ID + " of " + name(o.Release)
		if o.Served {
			words += ", was ready"
		}
		if o.Leaving {
			words += ", leaving"
		}
		out = append(out, words)
	}
	if s.Warm != nil {
		out = append(out, fmt.Sprintf("warm: release %d until %s", s.Warm.Target.Number, s.Warm.Till.Format(time.TimeOnly)))
	}
	for _, q := range s.Queue {
		out = append(out, fmt.Sprintf("waits: %s of release %d", q.Kind, q.To.Number))
	}
	for _, d := range slices.Sorted(maps.Keys(s.Quarantine)) {
		out = append(out, "quarantine: "+name(d))
	}
	for _, n := range slices.Sorted(maps.Keys(s.Data)) {
		out = append(out, fmt.Sprintf("data: %s may have version %d", n, s.Data[n]))
	}
	if len(s.KnownGood) > 0 {
		var good []string
		for _, d := range s.KnownGood {
			good = append(good, name(d))
		}
		out = append(out, "known good: "+strings.Join(good, ", "))
	}
	if s.LastResult != nil && s.LastResult.Failure != nil && s.Rollout == nil {
		f := s.LastResult.Failure
		words := "failure: " + strings.TrimSpace(f.Instance+" "+f.What)
		if f.Probe != "" {
			words += "; probe: " + f.Probe
		}
		if len(f.Tail) > 0 {
			words += "; output: " + strings.Join(f.Tail, " / ")
		}
		out = append(out, words)
	}
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], "shop-prod-", "")
	}
	return out
}

func longID(short string) string { return "shop-prod-" + short }

// split cuts a line into words; quotes keep several together.
func split(line string) ([]string, error) {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] == '"' {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, err
			}
			word, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, err
			}
			words, line = append(words, word), line[len(quoted):]
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		words, line = append(words, word), rest
	}
	return words, nil
}
