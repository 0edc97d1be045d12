package router

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// counters are those of one service since the router started.
type counters struct {
	requests atomic.Int64
	classes  [6]atomic.Int64 // answers by status class; [0] is unused
	failed   atomic.Int64
	retried  atomic.Int64
	held     atomic.Int64
	gone     atomic.Int64
	warnedAt atomic.Int64 // Unix nanoseconds
}

// mayWarn reports whether to log a failure: at most one a second for a service.
func (c *counters) mayWarn(now time.Time) bool {
	last := c.warnedAt.Load()
	return now.UnixNano()-last >= int64(time.Second) && c.warnedAt.CompareAndSwap(last, now.UnixNano())
}

func (c *counters) answered(status int) {
	if class := status / 100; class >= 1 && class <= 5 {
		c.classes[class].Add(1)
	}
}

// Status is everything that the data plane tells of one environment.
type Status struct {
	rollout.Key
	rollout.RouterStatus
	Listen    string          `json:"listen,omitempty"`
	Listening bool            `json:"listening"` // whether the address is open
	CutTotal  rollout.Flight  `json:"cutTotal"`  // what was cut at the end of a drain since the router started
	Services  []ServiceStatus `json:"services"`
	Releases  []ReleaseStatus `json:"releases"` // of Traffic, in the order of its keys
}

// ServiceStatus counts what a service did since the router started.
type ServiceStatus struct {
	Name     string `json:"name"`
	Requests int64  `json:"requests"`
	Status1  int64  `json:"status1xx"` // upgraded connections
	Status2  int64  `json:"status2xx"`
	Status3  int64  `json:"status3xx"`
	Status4  int64  `json:"status4xx"`
	Status5  int64  `json:"status5xx"`
	Failed   int64  `json:"failed"`  // answered 502 or 503 by the router, or broken off by the backend
	Retried  int64  `json:"retried"` // sent to another backend after a failure
	Held     int64  `json:"held"`    // had to wait for a backend
	Gone     int64  `json:"gone"`    // given up by the client
}

// ReleaseStatus counts what the backends of one release answered, beyond Traffic.
type ReleaseStatus struct {
	Service string        `json:"service"`
	Release string        `json:"release"`
	Status  [5]int64      `json:"status"` // answers 1xx to 5xx
	Took    time.Duration `json:"took"`   // until the headers of all of them
}

// status reports one environment; ok is false if the router knows none.
func (r *router) status(key rollout.Key) (s Status, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	env := r.envs[key]
	if env == nil {
		return Status{Key: key, RouterStatus: rollout.RouterStatus{InFlight: map[string]int{}}, Services: []ServiceStatus{}}, false
	}
	r.before.refresh()
	s = r.describe(key, env)
	r.before.add(&s)
	return s, true
}

// plus adds the counts of two routers.
func (s ServiceStatus) plus(o ServiceStatus) ServiceStatus {
	return ServiceStatus{
		Name: s.Name, Requests: s.Requests + o.Requests, Failed: s.Failed + o.Failed, Retried: s.Retried + o.Retried, Held: s.Held + o.Held, Gone: s.Gone + o.Gone,
		Status1: s.Status1 + o.Status1, Status2: s.Status2 + o.Status2, Status3: s.Status3 + o.Status3, Status4: s.Status4 + o.Status4, Status5: s.Status5 + o.Status5,
	}
}

func (r *router) describe(key rollout.Key, env *environment) Status {
	env.prune()
	s := Status{
		Key: key, Listen: env.table.Listen, Listening: r.listeners[env.table.Listen] != nil, CutTotal: env.cutTotal,
		RouterStatus: rollout.RouterStatus{Generation: env.table.Generation, InFlight: map[string]int{}},
		Services:     []ServiceStatus{},
	}
	for id, b := range env.backends {
		s.add(id, b.flights())
	}
	for _, b := range env.leaving {
		s.add(b.id, b.flights())
	}
	env.describeCuts(&s, time.Now())
	env.describeTraffic(&s)
	for _, svc := range env.table.Services {
		s.Services = append(s.Services, env.counters[svc.Name].describe(svc.Name))
	}
	return s
}

// add counts what a backend has under way.
func (s *Status) add(id string, f flights) {
	s.InFlight[id] += f.sum()
	if f.sum() == 0 {
		return
	}
	if s.Kinds == nil {
		s.Kinds = map[string]rollout.Flight{}
	}
	s.Kinds[id] = plus(s.Kinds[id], f.flight())
}

func (e *environment) describeCuts(s *Status, now time.Time) {
	for id, c := range e.cuts {
		if now.Sub(c.at) >= cutsKept {
			continue
		}
		if s.Cut == nil {
			s.Cut = map[string]rollout.Flight{}
		}
		s.Cut[id] = c.Flight
	}
}

func (e *environment) describeTraffic(s *Status) {
	s.Traffic = map[string]rollout.Traffic{}
	for _, key := range slices.Sorted(maps.Keys(e.traffic)) {
		t := e.traffic[key]
		s.Traffic[key] = t.count()
		rel := ReleaseStatus{Service: t.service, Release: t.release, Took: time.Duration(t.nanos.Load())}
		for i := range rel.Status {
			rel.Status[i] = t.classes[i+1].Load()
		}
		s.Releases = append(s.Releases, rel)
	}
}

func (c *counters) describe(name string) ServiceStatus {
	return ServiceStatus{
		Name: name, Requests: c.requests.Load(), Failed: c.failed.Load(), Retried: c.retried.Load(), Held: c.held.Load(), Gone: c.gone.Load(),
		Status1: c.classes[1].Load(), Status2: c.classes[2].Load(), Status3: c.classes[3].Load(), Status4: c.classes[4].Load(), Status5: c.classes[5].Load(),
	}
}
