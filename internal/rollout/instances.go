package rollout

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// want is how many instances of a component at a spec there should be.
type want struct {
	Component
	target *Target
	alone  bool // may not run beside others of its component
	spare  bool // what is there stays, nothing is ordered in its place
}

// wanted lists what should run now. While a rollout lays the new beside the old
// that is both; instances that both have in common are wanted once.
func (d *decider) wanted() []want {
	r := d.s.Rollout
	var list []want
	switch {
	case r == nil:
		list = wants(list, d.s.Current, nil)
	case r.Step == Retiring:
		list = wants(list, &r.To, nil)
	case r.Step == Reverting:
		list = wants(list, r.From, func(w *want) bool { return d.wantBack(r, w) })
		list = wants(list, &r.To, func(w *want) bool { return d.wantNoMore(r, w) })
	default:
		list = wants(list, r.From, func(w *want) bool { return d.wantOld(r, w) })
		list = wants(list, &r.To, func(w *want) bool { return d.wantNew(r, w) })
	}
	if d.s.Warm != nil {
		list = wants(list, &d.s.Warm.Target, func(w *want) bool { w.spare = true; return true })
	}
	return list
}

// wants adds the components of a target; alter changes what is wanted of one, or
// says that nothing is.
func wants(list []want, t *Target, alter func(*want) bool) []want {
	if t == nil {
		return list
	}
next:
	for _, c := range t.Components {
		if c.Kind == KindJob {
			continue
		}
		w := want{Component: c, target: t, alone: c.alone(t.Strategy)}
		if alter != nil && !alter(&w) {
			continue
		}
		for i := range list {
			if have := &list[i]; have.Name == c.Name && have.Spec == c.Spec {
				have.Replicas = max(have.Replicas, w.Replicas)
				have.spare = have.spare && w.spare
				continue next
			}
		}
		list = append(list, w)
	}
	return list
}

// wantOld is what a rollout that goes forward wants of an old component.
func (d *decider) wantOld(r *Rollout, w *want) bool {
	if d.displaced(r, &w.Component) {
		return false
	}
	method := how(r, w.Name)
	w.alone = method == replaced || w.Component.alone(Strategy{})
	if roll, began := r.Rolls[w.Name]; began && method == rolled {
		w.Replicas = roll.Old
	}
	// Those that have no traffic any more are not replaced while they finish.
	w.spare = method != carried && (r.Step == Switching || r.Step == Draining)
	return true
}

// wantNew is what a rollout that goes forward wants of a new component.
func (d *decider) wantNew(r *Rollout, w *want) bool {
	method := how(r, w.Name)
	w.alone = w.alone || method == replaced
	if method == rolled {
		w.Replicas = r.Rolls[w.Name].New
	}
	return d.reached(r, w.Name)
}

// wantBack is what a rollout that is put back wants of an old component.
func (d *decider) wantBack(r *Rollout, w *want) bool {
	method := how(r, w.Name)
	w.alone = method == replaced || w.Component.alone(Strategy{}) // the new release's strategy holds, also on the way back
	if roll, began := r.Rolls[w.Name]; began && method == rolled {
		w.Replicas = roll.Old
	}
	return true
}

// wantNoMore is what a rollout that is put back still wants of a new component: it
// serves until the old one can.
func (d *decider) wantNoMore(r *Rollout, w *want) bool {
	w.spare = true
	switch how(r, w.Name) {
	case rolled:
		w.Replicas = r.Rolls[w.Name].New
		return true
	case beside:
		return r.From.named(w.Name) != nil && d.share(r, w.Name) > 0
	default:
		return false
	}
}

// orderMissing orders an instance for each one that is wanted and not there.
func (d *decider) orderMissing() {
	for _, w := range d.wanted() {
		have := len(d.of(w.Name, w.Spec))
		if have >= w.Replicas || w.spare || !d.prepared(w) {
			continue
		}
		if after := d.s.Restarts[w.Name].After; d.now.Before(after) && !d.broughtBy(w) {
			d.wakeAt(after)
			d.wait(Cause{What: fmt.Sprintf("%s: the pause after %d failures in a row", w.Name, d.s.Restarts[w.Name].Count), Since: d.now, Till: after})
			continue
		}
		for ; have < w.Replicas; have++ {
			if !d.mayJoin(w) || d.outlived(w) {
				d.wait(Cause{What: w.Name + ": the instance before it to be gone", Since: d.now})
				break
			}
			d.order(w)
		}
	}
}

// prepared says whether everything that precedes a new instance is done: the hooks
// of its component, if the rollout brings it.
func (d *decider) prepared(w want) bool {
	r := d.s.Rollout
	if r == nil || r.Step == Reverting || r.Step == Retiring || w.target.Release != r.To.Release || how(r, w.Name) == carried {
		return true
	}
	for i, h := range w.Hooks {
		if run := r.Hooks[HookKey(w.Name, HookBefore, i)]; h.When == HookBefore && (run.EndedAt.IsZero() || run.Failure != nil) {
			return false
		}
	}
	return true
}

// broughtBy says whether a want is the rollout's own, which no past failure of
// other instances of the component delays.
func (d *decider) broughtBy(w want) bool {
	r := d.s.Rollout
	return r != nil && !r.Proven && r.To.find(w.Name, w.Spec) != nil && r.From.find(w.Name, w.Spec) == nil
}

func (d *decider) order(w want) {
	o := Order{
		Instance:  Instance{ID: d.newID(w.Name), Component: w.Name, Release: w.target.Release, Spec: w.Spec},
		OrderedAt: d.now, Start: w.Start, Drain: w.Drain, Grace: w.Grace, Volumes: w.Volumes,
		Alone: w.Kind == KindWorker || w.Kind == KindSingleton,
	}
	if w.Kind == KindSingleton {
		o.Fence = d.s.Fences[w.Name] + 1
		d.s.Fences = with(d.s.Fences, w.Name, o.Fence)
	}
	d.writes(&w.Component, "")
	d.add(o)
	d.event(Event{Kind: "instance.ordered", Instance: o.ID, Release: o.Release, Data: o.holds(nil)})
}

// holds adds what the order has alone to an entry's data: so the record tells from when until
// when who held a volume or the place of a singleton.
func (o *Order) holds(data map[string]string) map[string]string {
	if o.Fence != 0 {
		data = with(data, "fence", strconv.FormatInt(o.Fence, 10))
	}
	if len(o.Volumes) > 0 {
		data = with(data, "volumes", strings.Join(o.Volumes, " "))
	}
	return data
}

// newID names an instance. A name is passed over that something has which was
// ordered after the backup that this state was restored from.
func (d *decider) newID(component string) string {
	if d.ids == nil {
		d.ids = make(map[string]bool, len(d.s.Instances))
		for i := range d.s.Instances {
			d.ids[d.s.Instances[i].ID] = true
		}
	}
	for {
		d.s.Ordered++
		id := fmt.Sprintf("%s-%s-%s-%d", d.s.App, d.s.Env, component, d.s.Ordered)
		if d.seen[id] == nil && !d.ids[id] {
			return id
		}
	}
}

// start asks for every order that no observation has shown yet, again if need be.
func (d *decider) start() {
	for _, o := range d.s.Instances {
		if o.Leaving || o.Seen || !d.mayStart(&o) {
			continue
		}
		a := d.o.Attempts[o.ID]
		if retry := a.At.Add(time.Duration(a.Count) * startRetry); a.Count > 0 && d.now.Before(retry) {
			d.wakeAt(retry)
			continue
		}
		d.do = append(d.do, StartInstance{o.Instance})
	}
}

// sendOff lets go what is not wanted: too many of a component, what a reverting
// rollout brought, what has to make room. The instances of a rollout's old release
// are let go at the end of its wait for their requests.
func (d *decider) sendOff() {
	keep := map[group]int{}
	for _, w := range d.wanted() {
		keep[group{w.Name, w.Spec}] = w.Replicas
	}
	total := map[group]int{}
	for i := range d.s.Instances {
		if o := &d.s.Instances[i]; !o.Leaving && o.Hook == "" {
			total[group{o.Component, o.Spec}]++
		}
	}
	// Those that cannot serve go first, then the youngest: they have served the least.
	for _, idle := range []bool{true, false} {
		for i := len(d.s.Instances) - 1; i >= 0; i-- {
			o := &d.s.Instances[i]
			g := group{o.Component, o.Spec}
			if o.Leaving || o.Hook != "" || total[g] <= keep[g] || idle && d.routable(o) {
				continue
			}
			total[g]--
			d.leave(o, d.leaveWords(o))
		}
	}
}

func (d *decider) leaveWords(o *Order) string {
	r := d.s.Rollout
	switch {
	case r == nil || r.Step == Retiring:
		return "no longer wanted"
	case r.Step == Reverting && r.From.find(o.Component, o.Spec) == nil:
		return fmt.Sprintf("release %d was put back", r.To.Number)
	case r.Step != Reverting && r.From.find(o.Component, o.Spec) != nil:
		return fmt.Sprintf("it makes room for release %d", r.To.Number)
	}
	return "no longer wanted"
}

// leave sets an order on its way out. It is unrouted in the same decision.
func (d *decider) leave(o *Order, why string) {
	o.Leaving, o.Why = true, why
	d.event(Event{Kind: "instance.leaving", Instance: o.ID, Release: o.Release, Reason: why})
}

// takeAway stops what has left the routes and drained, and removes what has ended.
// Nothing is touched before the router acknowledged a table without it.
func (d *decider) takeAway() {
	kept := d.s.Instances[:0] // a copy already, see clone
	for i := range d.s.Instances {
		o := d.s.Instances[i]
		if o.Leaving && d.gone(&o) {
			d.event(Event{Kind: "instance.removed", Instance: o.ID, Release: o.Release, Reason: o.Why, Data: o.holds(nil)})
			continue
		}
		kept = append(kept, o)
	}
	if d.s.Instances = kept; len(kept) == 0 {
		d.s.Instances = nil
	}
}

// gone moves one leaving order on and says whether nothing of it is left.
func (d *decider) gone(o *Order) bool {
	if !d.acknowledged() || d.inTable(o.ID) {
		return false
	}
	in := d.seen[o.ID]
	there := in != nil
	switch {
	case !there && !o.StopAt.IsZero():
		return true
	case !there:
		// A start whose reply was lost may still be under way: take it away once
		// more before forgetting it.
		d.stopNow(o, RemoveInstance{o.ID})
	case in.Phase == Exited:
		d.stopNow(o, RemoveInstance{o.ID})
	case o.StopAt.IsZero() && d.draining(o):
		d.wakeAt(o.DrainTill)
		d.wakeAt(d.now.Add(drainPoll))
	case !o.StopAt.IsZero() && !d.now.Before(o.StopAt.Add(o.Grace+stopPatience)):
		d.do = append(d.do, RemoveInstance{o.ID})
	case !o.StopAt.IsZero() && in.Phase == Stopping:
		d.wakeAt(o.StopAt.Add(o.Grace + stopPatience)) // it was told; telling it again would only keep the engine busy
	default:
		d.stopNow(o, StopInstance{o.ID})
		d.wakeAt(o.StopAt.Add(o.Grace + stopPatience))
	}
	return false
}

// draining says whether an unrouted order still has requests and time for them.
// Its time begins when the router was first seen without it, not when it was decided.
func (d *decider) draining(o *Order) bool {
	n := d.o.Router.InFlight[o.ID]
	if n == 0 {
		return false
	}
	if o.DrainTill.IsZero() {
		o.DrainTill = d.now.Add(o.Drain)
		d.event(Event{Kind: "instance.draining", Instance: o.ID, Release: o.Release, Reason: fmt.Sprintf("%d requests under way", n)})
	}
	return d.now.Before(o.DrainTill)
}

func (d *decider) stopNow(o *Order, a Action) {
	if o.StopAt.IsZero() {
		d.cut(o)
		o.StopAt = d.now
		d.event(Event{Kind: "instance.stopping", Instance: o.ID, Release: o.Release, Reason: o.Why})
	}
	d.do = append(d.do, a)
}

// cut records what an instance still had under way when its drain time was over,
// by kind: it is cut, here or by the router.
func (d *decider) cut(o *Order) {
	n := d.o.Router.Cut[o.ID]
	if n == (Flight{}) && d.o.Router.InFlight[o.ID] > 0 {
		n = d.o.Router.Kinds[o.ID]
		if n == (Flight{}) {
			n.Requests = d.o.Router.InFlight[o.ID]
		}
	}
	data := map[string]string{}
	for kind, count := range map[string]int{"requests": n.Requests, "websockets": n.WebSockets, "streams": n.Streams, "grpc": n.GRPC, "tcp": n.TCP} {
		if count > 0 {
			data[kind] = strconv.Itoa(count)
		}
	}
	if len(data) > 0 {
		d.event(Event{Kind: "instance.cut", Instance: o.ID, Release: o.Release, Reason: "its drain time is over", Data: data})
	}
}
