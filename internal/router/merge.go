package router

import (
	"maps"
	"slices"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// merge adds another router's part of the same environment.
func (s *Status) merge(o Status) {
	for id, n := range o.InFlight {
		if n > 0 || s.InFlight[id] > 0 {
			s.InFlight[id] += n
		}
	}
	s.Kinds = sum(s.Kinds, o.Kinds, plus)
	s.Cut = sum(s.Cut, o.Cut, plus)
	s.CutTotal = plus(s.CutTotal, o.CutTotal)
	s.Traffic = sum(s.Traffic, o.Traffic, addTraffic)
	for i, svc := range s.Services {
		if j := slices.IndexFunc(o.Services, func(x ServiceStatus) bool { return x.Name == svc.Name }); j >= 0 {
			s.Services[i] = svc.plus(o.Services[j])
		}
	}
	for i, rel := range s.Releases {
		j := slices.IndexFunc(o.Releases, func(x ReleaseStatus) bool { return x.Service == rel.Service && x.Release == rel.Release })
		if j < 0 {
			continue
		}
		s.Releases[i].Took += o.Releases[j].Took
		for class, n := range o.Releases[j].Status {
			s.Releases[i].Status[class] += n
		}
	}
}

func sum[V any](a, b map[string]V, add func(V, V) V) map[string]V {
	if len(b) == 0 {
		return a
	}
	out := maps.Clone(b)
	for k, v := range a {
		if w, ok := out[k]; ok {
			v = add(v, w)
		}
		out[k] = v
	}
	return out
}

// addTraffic adds counts whose classes are the same, as they are but for another version.
func addTraffic(a, b rollout.Traffic) rollout.Traffic {
	a.Requests, a.Errors = a.Requests+b.Requests, a.Errors+b.Errors
	if len(a.Latency) == len(b.Latency) {
		a.Latency = slices.Clone(a.Latency)
		for i, n := range b.Latency {
			a.Latency[i] += n
		}
	}
	return a
}
