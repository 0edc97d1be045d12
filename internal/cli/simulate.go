package cli

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/sim"
)

func (p *program) simulateCommand() *cobra.Command {
	var seeds, seed uint64
	var story bool
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Run the real engine on a made-up machine with faults, and check the invariants",
		Long: "Runs seeds from --seed on. Each is a made-up machine with its own faults: starts that fail, health that\n" +
			"flaps, lost replies, crashes of the server between any two steps. The same seed gives the same story.\n" +
			"The first seed that breaks an invariant is printed with its story.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if story {
				seeds = 1
			}
			begun := time.Now()
			bad, counts := simulate(cmd.Context(), seed, seeds)
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			if story {
				bad.show(p)
			}
			if len(bad.Violations) > 0 {
				if !story {
					bad.show(p)
				}
				f := fault.New(fault.Refused, "seed %d breaks the invariants", bad.Seed).Detail(bad.Violations...)
				return f.Mend("see it again:  ashlar simulate --seed %d --story", bad.Seed)
			}
			if p.json() && story {
				return nil // the story is the answer
			}
			if p.json() {
				p.out.json(map[string]any{"seeds": seeds, "first": seed, "seconds": time.Since(begun).Seconds(), "counts": counts})
				return nil
			}
			p.out.linef("%d seeds from %d on, no invariant broken, in %s: %d deploys, %d rollbacks, %d put back, %d crashes, %d requests served",
				seeds, seed, seconds(time.Since(begun)), counts.Deploys, counts.Rollbacks, counts.PutBack, counts.Crashes, counts.Served)
			return nil
		},
	}
	cmd.Flags().Uint64Var(&seeds, "seeds", 1000, "how many")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "the first")
	cmd.Flags().BoolVar(&story, "story", false, "tell the story of the one seed, whatever comes of it")
	return cmd
}

// simResult is one run with its way to be shown.
type simResult struct{ sim.Result }

func (r simResult) show(p *program) {
	if p.json() {
		p.out.json(r.Result)
		return
	}
	for _, l := range r.Story() {
		p.out.linef("%s", l)
	}
}

// simulate runs seeds side by side and gives the lowest that failed, or the last.
func simulate(ctx context.Context, first, n uint64) (simResult, sim.Counts) {
	var mu sync.Mutex
	var bad simResult
	var counts sim.Counts
	var next atomic.Uint64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !failed.Load() && ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= n {
					return
				}
				r := sim.Run(first+i, sim.Options{})
				mu.Lock()
				counts.Add(r.Counts)
				worse := len(r.Violations) > 0 && (len(bad.Violations) == 0 || r.Seed < bad.Seed)
				if worse || n == 1 {
					bad = simResult{r}
				}
				mu.Unlock()
				if len(r.Violations) > 0 {
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return bad, counts
}
