package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/record"
)

const (
	warmUp   = 300 * time.Millisecond // load before a change
	coolDown = 200 * time.Millisecond // load after it
	rest     = 500 * time.Millisecond // between changes, before memory is read
	patience = 30 * time.Second       // for the load to see what it waits for
)

var line = regexp.MustCompile(`version [a-z]?\d+`)

// contest is the two ways to change a site, side by side.
type contest struct {
	o       options
	site    *site
	inPlace *inPlace
	r       *report
	version int    // of the last line written
	plain   string // line that the in-place site serves

	ashlar, previous string // lines that Ashlar serves, and served before the last deploy
}

// changes measures one-line changes both ways, rollbacks, bytes and memory.
func changes(ctx context.Context, o options, dir string, r *report, say func(string, ...any)) (err error) {
	say("building the example (Debian's packages are fetched once) and deploying it")
	s, err := newSite(ctx, o, dir)
	if s != nil && s.server != nil {
		defer func() { err = errors.Join(err, s.down()) }()
	}
	if err != nil {
		return err
	}
	c := &contest{o: o, site: s, r: r}
	if c.ashlar, err = c.write(s.page()); err != nil {
		return err
	}
	if _, err := s.deploy(ctx); err != nil {
		return err
	}
	if o.only == "signing" {
		return c.signing(ctx, dir, say)
	}
	sealed, err := s.seal(ctx)
	if err != nil {
		return err
	}
	if c.inPlace, err = newInPlace(ctx, s, sealed, dir); c.inPlace != nil {
		defer func() { err = errors.Join(err, c.inPlace.stop(syscall.SIGTERM)) }()
	}
	if err != nil {
		return err
	}
	c.plain = c.ashlar
	for i := range o.n {
		say("round %d of %d", i+1, o.n)
		if err := c.round(ctx, i%2 == 0); err != nil {
			return err
		}
	}
	if err := c.signing(ctx, dir, say); err != nil {
		return err
	}
	return c.warm(ctx, say)
}

// round makes each change once under load and once without. Who is first
// alternates.
func (c *contest) round(ctx context.Context, plainFirst bool) error {
	steps := []func(context.Context) error{c.inPlaceUnderLoad, c.ashlarUnderLoad, c.rollbackUnderLoad, c.inPlaceQuiet, c.ashlarQuiet, c.memory}
	if !plainFirst {
		steps[0], steps[1], steps[2] = steps[1], steps[2], steps[0]
		steps[3], steps[4] = steps[4], steps[3]
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
		if err := pause(ctx, rest); err != nil {
			return err
		}
	}
	return nil
}

// write puts a new line of the same length into a page and gives it.
func (c *contest) write(path string) (string, error) {
	c.version++
	text := fmt.Sprintf("version r%05d", c.version)
	if err := edit(path, line, text); err != nil {
		return "", err
	}
	// rsync compares whole seconds: each change gets a second of its own.
	at := time.Now().Add(time.Duration(c.version) * 2 * time.Second)
	return text, os.Chtimes(path, at, at)
}

// underLoad runs a change while clients ask for the page, and gives what they saw.
func (c *contest) underLoad(ctx context.Context, url, from, to string, change func() error) (load.Report, error) {
	run, err := load.Start(ctx, load.Config{
		URL: url, KeepAlive: 4, NewConn: 4, Rate: c.o.rate, Timeout: 5 * time.Second, Markers: []string{from, to},
	})
	if err != nil {
		return load.Report{}, err
	}
	defer run.Stop()
	if err := pause(ctx, warmUp); err != nil {
		return load.Report{}, err
	}
	if err := sees(ctx, run, from); err != nil {
		return load.Report{}, err
	}
	if err := change(); err != nil {
		return load.Report{}, err
	}
	if err := sees(ctx, run, to); err != nil {
		return load.Report{}, err
	}
	if err := pause(ctx, coolDown); err != nil {
		return load.Report{}, err
	}
	return run.Stop(), nil
}

// sees waits until an answer had the marker.
func sees(ctx context.Context, run *load.Run, marker string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		report := run.Report()
		if report.Markers[marker].Count > 0 {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("no answer had %q: %w; first errors: %q", marker, err, report.FirstErrors)
		}
	}
}

func (c *contest) inPlaceUnderLoad(ctx context.Context) error {
	from := c.plain
	to, err := c.write(c.inPlace.src + "/index.html")
	if err != nil {
		return err
	}
	var done command
	var live time.Time
	seen, err := c.underLoad(ctx, c.inPlace.url, from, to, func() (err error) {
		done, live, err = c.inPlace.change(ctx, to)
		return err
	})
	if err != nil {
		return err
	}
	c.plain = to
	c.r.add(inPlaceLive, ms(live.Sub(done.began)))
	c.r.add(inPlaceFirst, ms(seen.Markers[to].FirstBegan.Sub(done.began)))
	c.r.add(inPlaceFailed, float64(seen.Failed))
	c.r.add(inPlaceP99, ms(seen.P99))
	c.r.asked(seen)
	return nil
}

func (c *contest) ashlarUnderLoad(ctx context.Context) error {
	from := c.ashlar
	to, err := c.write(c.site.page())
	if err != nil {
		return err
	}
	done, seen, err := c.rollout(ctx, from, to, c.site.deploy)
	if err != nil {
		return err
	}
	c.r.add(deployLive, ms(seen.AllOn(to).Sub(done.began)))
	c.r.add(deployTook, ms(done.took))
	c.r.add(deployFailed, float64(seen.Failed))
	c.r.add(deployP99, ms(seen.P99))
	return c.steps(ctx, done, "deploy")
}

// rollbackUnderLoad puts back what was there before the last deploy.
func (c *contest) rollbackUnderLoad(ctx context.Context) error {
	from, to := c.ashlar, c.previous
	done, seen, err := c.rollout(ctx, from, to, c.site.rollback)
	if err != nil {
		return err
	}
	c.r.add(rollbackLive, ms(seen.AllOn(to).Sub(done.began)))
	c.r.add(rollbackTook, ms(done.took))
	c.r.add(rollbackFailed, float64(seen.Failed))
	return c.steps(ctx, done, "rollback")
}

// rollout runs a deploy or a rollback under load.
func (c *contest) rollout(ctx context.Context, from, to string, run func(context.Context) (command, error)) (command, load.Report, error) {
	var done command
	seen, err := c.underLoad(ctx, c.site.url, from, to, func() (err error) {
		done, err = run(ctx)
		return err
	})
	if err != nil {
		return done, seen, err
	}
	c.previous, c.ashlar = from, to
	c.r.asked(seen)
	return done, seen, nil
}

// steps takes from the record where the time of a command went.
func (c *contest) steps(ctx context.Context, done command, kind string) error {
	entries, err := c.site.entries(ctx, done.began)
	if err != nil {
		return err
	}
	ordered, last := map[string]time.Time{}, map[string]record.Entry{}
	for _, e := range entries {
		last[e.Kind] = e
		switch e.Kind {
		case "instance.ordered":
			ordered[e.Instance] = e.Time
		case "instance.ready":
			c.r.add(startReady, ms(e.Time.Sub(ordered[e.Instance])))
		}
	}
	for _, step := range stepsOfRollout {
		if e, ok := last[step]; ok {
			c.r.step(kind, step, ms(e.Time.Sub(done.began)))
		}
	}
	c.r.step(kind, commandEnds, ms(done.took))
	return nil
}

// inPlaceQuiet counts the bytes of an update in place: rsync's own. Nothing else
// writes but the access log, and nobody asks.
func (c *contest) inPlaceQuiet(ctx context.Context) error {
	to, err := c.write(c.inPlace.src + "/index.html")
	if err != nil {
		return err
	}
	done, live, err := c.inPlace.change(ctx, to)
	if err != nil {
		return err
	}
	c.plain = to
	c.r.add(inPlaceQuietLive, ms(live.Sub(done.began)))
	c.r.add(inPlaceBytes, kb(done.written))
	return nil
}

// ashlarQuiet counts the bytes of a deploy: those of the command, and those of
// server, router, shims and everything below them.
func (c *contest) ashlarQuiet(ctx context.Context) error {
	to, err := c.write(c.site.page())
	if err != nil {
		return err
	}
	before, err := c.serverWrote()
	if err != nil {
		return err
	}
	done, err := c.site.deploy(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, rest); err != nil {
		return err
	}
	after, err := c.serverWrote()
	if err != nil {
		return err
	}
	c.previous, c.ashlar = c.ashlar, to
	c.r.add(deployQuietTook, ms(done.took))
	c.r.add(deployClientBytes, kb(done.written))
	c.r.add(deployServerBytes, kb(after-before))
	c.r.add(deployBytes, kb(done.written+after-before))
	return nil
}

func (c *contest) serverWrote() (int64, error) {
	tree, err := below(c.site.server.Process.Pid)
	if err != nil {
		return 0, err
	}
	return written(tree)
}

// memory reads the resident sets of the processes that stay.
func (c *contest) memory(context.Context) error {
	tree, err := below(c.site.server.Process.Pid)
	if err != nil {
		return err
	}
	for _, p := range tree {
		var m metric
		switch {
		case p.pid == c.site.server.Process.Pid:
			m = serverRSS
		case p.name == "ashlar-shim":
			m = shimRSS
		case p.name == "ashlar":
			m = routerRSS
		default:
			continue
		}
		n, err := resident(p.pid)
		if err != nil {
			return err
		}
		c.r.add(m, float64(n)/1e6)
	}
	return nil
}

// pause waits for real time to pass, which is what is measured here.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func kb(n int64) float64 { return float64(n) / 1000 }
