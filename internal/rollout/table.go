package rollout

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// route asks for a new table when the one that should be served differs from the
// one last asked for, and repeats the last one until it is acknowledged.
func (d *decider) route() {
	desired := d.table(d.serving())
	desired.Generation = d.s.Table.Generation
	ahead := d.o.Router.Generation > d.s.Table.Generation // the state is older than the router: it was restored from a backup
	if ahead || !sameRoutes(desired, d.s.Table) {
		desired.Generation = max(d.s.Table.Generation, d.o.Router.Generation) + 1
		d.s.Table = desired
		d.keepDrains(desired)
		d.event(Event{Kind: "routes.ordered", Data: map[string]string{
			"generation": strconv.FormatInt(desired.Generation, 10), "backends": backendWords(desired),
		}})
	}
	if d.o.Router.Generation != d.s.Table.Generation {
		d.do = append([]Action{ApplyTable{d.s.Table}}, d.do...)
		d.wakeAt(d.now.Add(routePoll))
	}
}

// keepDrains gives each routed order the drain time of the table it is in: that is
// what its requests are promised when it leaves, whichever release ordered it.
func (d *decider) keepDrains(t Table) {
	drains := map[string]time.Duration{}
	for _, s := range t.Services {
		for _, b := range s.Backends {
			drains[b.ID] = s.Drain
		}
	}
	for i := range d.s.Instances {
		if drain, routed := drains[d.s.Instances[i].ID]; routed {
			d.s.Instances[i].Drain = drain
		}
	}
}

// serving is the target whose instances receive the traffic. During the very
// first rollout that is the new release, without backends until it is switched
// to: requests wait, and an address that is in use is found out early.
func (d *decider) serving() *Target {
	r := d.s.Rollout
	if r != nil && r.From == nil && r.Step == Laying {
		return &r.To
	}
	if r != nil && (r.Step == Switching || r.Step == Reverting && !d.canTakeBack(r)) {
		return &r.To
	}
	return d.s.Current
}

// canTakeBack says whether the old instances of a reverting rollout can carry what
// is routed now: they may have lost some since the switch, and what is left of the
// new serves until those are replaced. That is not waited for without end.
func (d *decider) canTakeBack(r *Rollout) bool {
	if r.From == nil {
		return true
	}
	patience := revertPatience
	for _, c := range r.From.Components {
		patience = max(patience, c.Start)
	}
	end := r.StepAt.Add(patience)
	if !d.now.Before(end) {
		return true
	}
	for _, c := range r.From.Components {
		if c.Route != nil && d.canServe(c) < min(c.Replicas, d.serves(c.Name)) {
			d.waitFor("%s: the previous instances to be ready before the traffic goes back", c.Name)
			d.wakeAt(end)
			return false
		}
	}
	return true
}

// canServe counts the instances of a component that may be routed.
func (d *decider) canServe(c Component) int {
	n := 0
	for _, o := range d.of(c.Name, c.Spec) {
		if d.routable(o) {
			n++
		}
	}
	return n
}

// serves counts the instances behind a service of the table last asked for that
// can still serve.
func (d *decider) serves(service string) int {
	n := 0
	for i := range d.s.Instances {
		o := &d.s.Instances[i]
		if o.Component == service && !o.Leaving && d.routable(o) && inTable(d.s.Table, o.ID) {
			n++
		}
	}
	return n
}

// table computes the routes to a target's instances that are ready.
func (d *decider) table(t *Target) Table {
	var table Table
	if t == nil {
		return table
	}
	table.Listen = t.Listen
	held := d.s.Rollout != nil && d.s.Rollout.From == nil && d.s.Rollout.Step == Laying
	for _, c := range t.Components {
		if c.Route == nil {
			continue
		}
		svc := Service{Name: c.Name, Host: c.Route.Host, Path: c.Route.Path, Hold: c.Route.Hold, Drain: c.Drain}
		for _, o := range d.of(c.Name, c.Spec) {
			if !held && d.routable(o) {
				svc.Backends = append(svc.Backends, Backend{ID: o.ID, Address: d.seen[o.ID].Address, Weight: 1})
			}
		}
		slices.SortFunc(svc.Backends, func(a, b Backend) int { return strings.Compare(a.ID, b.ID) })
		table.Services = append(table.Services, svc)
	}
	return table
}

// routable says whether an instance may receive requests: it is ready, or it was
// and nobody has looked again yet since the server came back.
func (d *decider) routable(o *Order) bool {
	phase := d.phase(o.ID)
	return phase == Ready || phase == Unknown && o.Served && o.Unready.IsZero()
}

func sameRoutes(a, b Table) bool {
	return a.Listen == b.Listen && slices.EqualFunc(a.Services, b.Services, func(x, y Service) bool {
		return x.Name == y.Name && x.Host == y.Host && x.Path == y.Path && x.Hold == y.Hold && x.Drain == y.Drain &&
			slices.Equal(x.Backends, y.Backends)
	})
}

func inTable(t Table, id string) bool {
	for _, s := range t.Services {
		for _, b := range s.Backends {
			if b.ID == id {
				return true
			}
		}
	}
	return false
}

func backendWords(t Table) string {
	var ids []string
	for _, s := range t.Services {
		for _, b := range s.Backends {
			ids = append(ids, b.ID)
		}
	}
	return strings.Join(ids, " ")
}
