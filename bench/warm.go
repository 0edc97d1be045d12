package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
)

var declared = regexp.MustCompile(`replicas: \d+`)

// warm measures rollbacks to a set that was kept warm: a switch, and nothing is started.
func (c *contest) warm(ctx context.Context, say func(string, ...any)) error {
	say("rollbacks to a warm set: %d", c.o.n)
	if err := edit(filepath.Join(c.site.src, "ashlar.yaml"), declared, fmt.Sprintf("replicas: %d\n    strategy: {blue-green: {warm: 10m}}", c.site.instances)); err != nil {
		return err
	}
	if err := c.anew(ctx); err != nil {
		return err
	}
	for range c.o.n {
		if err := c.anew(ctx); err != nil {
			return err
		}
		done, seen, err := c.rollout(ctx, c.ashlar, c.previous, c.site.rollback)
		if err != nil {
			return err
		}
		c.r.add(warmLive, ms(seen.AllOn(c.ashlar).Sub(done.began)))
		c.r.add(warmFailed, float64(seen.Failed))
		if err := pause(ctx, rest); err != nil {
			return err
		}
	}
	return nil
}

// anew deploys a new line, without load.
func (c *contest) anew(ctx context.Context) error {
	to, err := c.write(c.site.page())
	if err != nil {
		return err
	}
	_, err = c.site.deploy(ctx)
	c.previous, c.ashlar = c.ashlar, to
	return err
}
