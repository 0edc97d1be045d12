package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"text/tabwriter"
)

// How the kernel's routes are measured.
const (
	kernelRounds = "6"  // of requests, each direct and by the service, twice
	kernelFor    = "1s" // of each
)

// kernel is what the benchmarks of package nft gave, which bring their own namespaces.
type kernel struct {
	switches []stat // milliseconds of the transaction, by the number of backends
	share    []float64
}

// measureKernel runs them and reads what they print.
func measureKernel(ctx context.Context) (kernel, error) {
	var k kernel
	out, err := goBench(ctx, "./internal/nft", "Switch", "50x", "1")
	if err != nil {
		return k, err
	}
	for _, f := range out {
		_, n, _ := strings.Cut(f[0], "/")
		n, _, _ = strings.Cut(n, "-")
		ms, err := metricOf(f, "ms/transaction")
		if err != nil {
			return k, err
		}
		k.switches = append(k.switches, summarize("kernel: transaction that switches "+n+" backends, median of 50", "ms", []float64{ms}))
	}
	if out, err = goBench(ctx, "./internal/nft", "Requests", kernelFor, kernelRounds); err != nil {
		return k, err
	}
	taken := map[string][]float64{}
	for _, f := range out {
		_, how, _ := strings.Cut(f[0], "/")
		how, _, _ = strings.Cut(how, "-")
		ns, err := metricOf(f, "ns/op")
		if err != nil {
			return k, err
		}
		taken[strings.TrimSuffix(how, "_again")] = append(taken[strings.TrimSuffix(how, "_again")], ns)
	}
	for i := range min(len(taken["direct"]), len(taken["service"])) {
		k.share = append(k.share, taken["direct"][i]/taken["service"][i])
	}
	return k, nil
}

// goBench gives the fields of the lines of a benchmark of a package.
func goBench(ctx context.Context, pkg, name, length, count string) ([][]string, error) {
	out, err := exec.CommandContext(ctx, "go", "test", pkg, "-run", "^$", "-bench", name, "-benchtime", length, "-count", count).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test -bench %s: %w\n%s", name, err, out)
	}
	var lines [][]string
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 3 && strings.HasPrefix(f[0], "Benchmark") {
			lines = append(lines, f)
		}
	}
	return lines, nil
}

// metricOf finds the figure before a unit.
func metricOf(fields []string, unit string) (float64, error) {
	for i, f := range fields {
		if f == unit {
			return strconv.ParseFloat(fields[i-1], 64)
		}
	}
	return 0, fmt.Errorf("no %s in %q", unit, fields)
}

func printKernel(ctx context.Context, w io.Writer, say func(string, ...any)) error {
	say("routes in the kernel")
	k, err := measureKernel(ctx)
	if err != nil {
		return err
	}
	share := summarize("kernel: requests by a service's address, share of direct", "", k.share)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	table(t, "kernel", append(k.switches, share))
	return t.Flush()
}
