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
		number, err := strconv.Atoi(strings.TrimSuffix(words[2], ":"))
		if err != nil {
			return nil, err
		}
		_, components, _ := strings.Cut(line, ":")
		if q.To, err = target(number, components); err != nil {
			return nil, err
		}
		st.known[q.To.Release], st.names[q.To.Release] = q.To, "release "+words[2][:len(words[2])-1]
	default:
		q.To = st.known[digest.FromString("release "+words[2])]
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
