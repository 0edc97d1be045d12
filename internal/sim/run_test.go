package sim

import (
	"flag"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
)

var (
	seeds = flag.Int("sim.seeds", 2000, "how many seeds to run")
	first = flag.Uint64("sim.seed", 1, "the first seed")
	tell  = flag.Bool("sim.story", false, "print the story of the first seed")
)

func TestSeeds(t *testing.T) {
	if *tell {
		fmt.Println(strings.Join(Run(*first, Options{}).Story(), "\n"))
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a run leaves much behind and keeps little
	var total Counts
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan uint64)
	failed := 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range next {
				r := Run(seed, Options{})
				mu.Lock()
				total.Add(r.Counts)
				if len(r.Violations) > 0 && failed < 5 {
					failed++
					t.Errorf("seed %d: %s", seed, strings.Join(r.Violations, "\n"))
				}
				mu.Unlock()
			}
		})
	}
	for s := range *seeds {
		next <- *first + uint64(s)
	}
	close(next)
	wg.Wait()
	for v, i := reflect.ValueOf(total), 0; i < v.NumField() && *seeds >= 1000; i++ {
		if v.Field(i).IsZero() {
			t.Errorf("no seed had any of what Counts.%s counts", v.Type().Field(i).Name)
		}
	}
	t.Logf("%d seeds from %d: %+v", *seeds, *first, total)
}
