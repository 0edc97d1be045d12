package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func (p *program) downCommand() *cobra.Command {
	var ask question
	var all bool
	var reason string
	cmd := &cobra.Command{
		Use:   "down [ENV]",
		Short: "Stop every instance of an environment; deploy brings it back",
		Long: "Closes the environment's address, lets requests under way finish, and stops and removes every\n" +
			"instance. Releases and the record stay. With --all that is done for every environment of the\n" +
			"server, which then ends together with the router and leaves nothing running.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client()
			if err != nil {
				return err
			}
			if all && len(args) > 0 {
				return fault.New(fault.Invalid, "--all means every environment, and one is named too").Mend("leave one of them out")
			}
			if all {
				return p.downAll(cmd.Context(), c, ask, reason)
			}
			app, env, err := p.place(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if err := p.confirm(cmd.Context(), ask, "Stop everything in "+env+"?"); err != nil {
				return err
			}
			out, err := p.down(cmd.Context(), c, app, env, reason)
			if err != nil {
				return err
			}
			p.showOutcome(out)
			return out.bad
		},
	}
	ask.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every environment, then the router and the server")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

// down takes an environment down and follows that.
func (p *program) down(ctx context.Context, c *api.Client, app, env, reason string) (outcome, error) {
	begun, err := c.Down(ctx, api.BeginRequest{App: app, Env: env, Reason: reason})
	if err != nil {
		return outcome{}, err
	}
	plan := api.Plan{App: app, Env: env, To: api.ReleaseRef{Number: begun.Rollout.To.Number, Digest: begun.Rollout.To.Release}}
	return p.follow(ctx, c, plan, begun)
}

// allDown is what `ashlar down --all` answers.
type allDown struct {
	Environments []outcome `json:"environments"` // that were running
	Ended        bool      `json:"ended"`        // the router and the server
}

func (p *program) downAll(ctx context.Context, c *api.Client, ask question, reason string) error {
	if err := p.confirm(ctx, ask, "Stop every instance, the router and the server?"); err != nil {
		return err
	}
	list, err := c.Environments(ctx)
	if err != nil {
		return err
	}
	all := allDown{Environments: []outcome{}}
	for _, e := range list {
		out, err := p.downOne(ctx, c, e, reason)
		if err != nil {
			return err
		}
		if out.Outcome == "" {
			continue // nothing runs there
		}
		all.Environments = append(all.Environments, out)
		if !p.json() {
			p.showOutcome(out)
		}
	}
	server, err := c.End(ctx, api.EndRequest{Router: true})
	if err != nil {
		return err
	}
	for !ended(server.PID) {
		if pause(ctx, 20*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if all.Ended = true; p.json() {
		p.out.json(all)
		return nil
	}
	p.out.linef("the router and the server have ended")
	return nil
}

// ended says whether a process of this machine has ended, be it that its parent
// has not yet asked how (proc(5), /proc/pid/stat). Until then it holds the state directory.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z")
}

// downOne takes one environment down. A rollout in flight is put back first, as it may
// wait for a person for ever; where it is past that, its end is waited for. Where nothing
// runs the outcome is empty.
func (p *program) downOne(ctx context.Context, c *api.Client, e api.Environment, reason string) (outcome, error) {
	for {
		out, err := p.down(ctx, c, e.App, e.Env, reason)
		if err == nil {
			err = out.bad
		}
		var f *fault.Error
		switch {
		case !errors.As(err, &f):
			return out, err
		case f.Kind == fault.NotFound:
			return outcome{}, nil
		case f.Kind != fault.Conflict:
			return out, err
		}
		status, err := c.Status(ctx, e.App, e.Env)
		if err != nil {
			return out, err
		}
		r := status.State.Rollout
		if r == nil {
			continue
		}
		_, err = c.Control(ctx, api.ControlRequest{App: e.App, Env: e.Env, Verb: rollout.VerbAbort, Reason: "everything is taken down"})
		if err != nil && fault.Of(err).Kind != fault.Conflict {
			return out, err
		}
		if err := p.waitFor(ctx, c, e, *r); err != nil {
			return out, err
		}
	}
}

// waitFor waits until a rollout of somebody else has ended, however it ends.
func (p *program) waitFor(ctx context.Context, c *api.Client, e api.Environment, r rollout.Rollout) error {
	p.err.linef("waiting for rollout %d in %s to end", r.Number, e.Env)
	for {
		status, err := c.Status(ctx, e.App, e.Env)
		if err != nil {
			return err
		}
		if now := status.State.Rollout; now == nil || now.Number != r.Number {
			return nil
		}
		if pause(ctx, lookForServer); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
