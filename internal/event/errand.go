package event

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// Retrying. A receiver that fails is asked again after growing pauses. What it could
// not be told within giveUp after it happened is skipped, which the record tells.
const (
	giveUp     = 24 * time.Hour
	firstPause = time.Second // doubles
	mostPause  = 10 * time.Minute
	storePause = 10 * time.Second // after an error of the store
	page       = 1 << 14          // entries of the record that are looked at in one go
)

// follow tells one webhook everything, in order, until ctx ends.
func (c *Courier) follow(ctx context.Context, r route, e *errand) {
	for {
		err := c.tell(ctx, r, e)
		if ctx.Err() != nil {
			return
		}
		// The record cannot be read or written: that is no matter of the receiver's.
		c.note(e, "events are not told: "+err.Error())
		c.Log.Error("cannot tell events", "env", r.env.String(), "err", err, "pause", storePause)
		if c.Pause(ctx, storePause) != nil {
			return
		}
	}
}

// tell starts where the webhook is, and returns when ctx ends or the store fails.
func (c *Courier) tell(ctx context.Context, r route, e *errand) error {
	told, err := c.Store.Told(ctx, r.env)
	if err != nil {
		return err
	}
	next := told[r.url]
	var story Story
	for from := int64(0); from < next; from += page {
		past, err := c.Store.Entries(ctx, r.env, from, min(from+page, next))
		if err != nil {
			return err
		}
		for _, entry := range past {
			story.messages(entry)
		}
	}
	for {
		entries, err := c.Store.Entries(ctx, r.env, next, -1)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			for done, n := 0, 0; done < len(entries); done += n {
				if n, err = c.bring(ctx, r, e, &story, entries[done:]); err != nil {
					return err
				}
			}
			next = entries[len(entries)-1].Index + 1
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.poke:
		}
	}
}

// bring delivers the events of the first entry, or skips it and those that are as old,
// and tells how many entries were passed.
func (c *Courier) bring(ctx context.Context, r route, e *errand, story *Story, entries []record.Entry) (int, error) {
	first := entries[0]
	events, err := story.Tell(c.Source, first)
	if err != nil {
		return 0, err
	}
	for _, event := range events {
		failed := c.deliver(ctx, r, e, event, first.Time)
		if failed != nil && ctx.Err() != nil {
			return 0, ctx.Err() // perhaps it was delivered: it is told again
		}
		if failed != nil {
			return c.skip(ctx, r, story, entries, failed)
		}
	}
	if len(events) == 0 {
		return 1, nil // the next event moves past it
	}
	return 1, c.Store.Tell(context.WithoutCancel(ctx), r.env, r.url, first.Index+1, nil)
}

// deliver attempts one event until the receiver takes it. It returns the last error
// once the event is too old.
func (c *Courier) deliver(ctx context.Context, r route, e *errand, event Event, happened time.Time) error {
	pause := firstPause
	for attempts := 1; ; attempts++ {
		after, err := c.attempt(ctx, r, e, event)
		now := c.Now()
		switch {
		case err == nil:
			c.note(e, "")
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case now.Sub(happened) >= giveUp:
			return err
		}
		wait := max(pause, after)
		c.note(e, fmt.Sprintf("the webhook %s has not taken event %s in %d attempts: %v; again at %s",
			name(r.url), event.ID, attempts, err, now.Add(wait).UTC().Format(time.TimeOnly)))
		c.Log.Warn("event not delivered", "env", r.env.String(), "to", name(r.url), "event", event.ID, "attempt", attempts, "err", err, "pause", wait)
		if err := c.Pause(ctx, wait); err != nil {
			return err
		}
		pause = min(2*pause, mostPause)
	}
}

func (c *Courier) attempt(ctx context.Context, r route, e *errand, event Event) (time.Duration, error) {
	to, err := Receiver(r.url)
	if err != nil {
		return 0, err
	}
	var key []byte
	if e.hook.Secret != "" {
		value, err := c.Secret(ctx, r.env, e.hook.Secret)
		if err == nil {
			key, err = Key(value)
		}
		if err != nil {
			return 0, fmt.Errorf("the secret %s that signs cannot be used: %w", e.hook.Secret, err)
		}
	}
	return post(ctx, to, key, event, c.Now())
}

// skip moves past the first entry and those after it that are too old too. The record tells,
// unless all of them tell of such things: a receiver that is gone for ever would
// have one a day.
func (c *Courier) skip(ctx context.Context, r route, story *Story, entries []record.Entry, failed error) (int, error) {
	old, worth := 0, 0
	for i, e := range entries {
		if i > 0 && c.Now().Sub(e.Time) < giveUp {
			break
		}
		old++
		told := i == 0 || len(story.messages(e)) > 0
		if told && !strings.HasPrefix(e.Kind, "webhook.") {
			worth++
		}
	}
	last := entries[old-1].Index
	c.Log.Error("events skipped", "env", r.env.String(), "to", name(r.url), "entries", worth, "err", failed)
	var said []record.Entry
	if worth > 0 {
		said = []record.Entry{{
			Time: c.Now().UTC(), Actor: "ashlar", Kind: "webhook.skipped", App: r.env.App, Env: r.env.Env,
			Reason: fmt.Sprintf("%s has not taken what happened more than %s ago: %v", name(r.url), giveUp, failed),
			Data: map[string]string{
				"events": strconv.Itoa(worth), "first": strconv.FormatInt(entries[0].Index, 10), "last": strconv.FormatInt(last, 10),
			},
		}}
	}
	return old, c.Store.Tell(ctx, r.env, r.url, last+1, said)
}

func (c *Courier) note(e *errand, trouble string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.trouble = trouble
}

// name is a webhook's address as others may see it.
func name(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "with an address that cannot be read"
	}
	return shown(u)
}
