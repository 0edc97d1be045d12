package rollout_test

import (
	"errors"
	"fmt"
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
//	inflight web-1 3 websockets 1        requests under way, and of which kind those are that are no plain ones
//	cut web-1 streams 2 tcp 1            what the router has cut at the end of its drain time
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
		return nil, st.inflight(rest)
	case "cut":
		f, err := flight(rest[1:])
		st.seen.Router.Cut = map[string]rollout.Flight{longID(rest[0]): f}
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
			q.To = c.Emptied()
		} else if r := st.state.Rollout; r != nil {
			q.To = r.To.Emptied()
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

// inflight sets what the router has under way on an instance.
func (st *stage) inflight(words []string) error {
	id := longID(words[0])
	n, err := strconv.Atoi(words[1])
	if err != nil {
		return err
	}
	st.seen.Router.InFlight[id] = n
	f, err := flight(words[2:])
	f.Requests = n - f.WebSockets - f.Streams - f.GRPC - f.TCP
	if st.seen.Router.Kinds == nil {
		st.seen.Router.Kinds = map[string]rollout.Flight{}
	}
	st.seen.Router.Kinds[id] = f
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
