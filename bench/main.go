// Command bench measures Ashlar against what it replaces: the same program
// updated in place by rsync and a restart, in the same run, on the same machine.
// docs/benchmarks.md says what each figure means and keeps a run of it.
//
// Everything happens in a temporary directory with its own server, router and
// ports on the loopback address, and is taken down at the end. It needs root, rsync
// and, for the first build of the example, Debian's archive.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// options are the flags.
type options struct {
	ashlar string // program under test; ashlar-shim and runc are beside it
	site   string // the example to copy
	dir    string // where the temporary directory is made
	n      int    // rounds
	rate   int    // requests per second during a change
	output string // text or json
	only   string // one of alone; empty: everything but closure
	size   int    // entries of the record that is audited
}

// alone are the parts that can be measured by themselves.
var alone = []string{"proxies", "closure", "signing", "record"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = measure(ctx, o, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.ashlar, "ashlar", "bin/ashlar", "the program to measure")
	f.StringVar(&o.site, "site", "examples/site", "the example to deploy")
	f.StringVar(&o.dir, "dir", "", "directory on the disk to measure; default: that of temporary files")
	f.IntVar(&o.n, "n", 9, "rounds, 1 to 50")
	f.IntVar(&o.rate, "rate", 300, "requests per second during a change, 50 to 5000")
	f.StringVar(&o.output, "output", "text", "text or json")
	f.StringVar(&o.only, "only", "", "proxies: the router beside haproxy and nginx, and the kernel's routes; closure: a Debian closure beside mmdebstrap and buildah; signing; record")
	f.IntVar(&o.size, "entries", 100_000, "entries of the record that is audited, 1,000 to 10,000,000; a million take 0.6 GB of disk")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case o.n < 1 || o.n > 50 || o.rate < 50 || o.rate > 5000:
		return o, fmt.Errorf("%d rounds at %d requests per second are out of bounds", o.n, o.rate)
	case o.output != "text" && o.output != "json":
		return o, fmt.Errorf("output %q is not text or json", o.output)
	case o.only != "" && !slices.Contains(alone, o.only):
		return o, fmt.Errorf("only %q is none of %s", o.only, strings.Join(alone, ", "))
	case o.size < 1000 || o.size > 10_000_000 || o.size%recordBatch != 0:
		return o, fmt.Errorf("a record of %d entries is out of bounds, or no multiple of %d", o.size, recordBatch)
	case os.Getuid() != 0:
		return o, errors.New("measuring needs root")
	}
	var err error
	o.ashlar, err = filepath.Abs(o.ashlar)
	return o, err
}

// measure takes every figure and prints the report, also when a later part failed.
func measure(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	dir, err := os.MkdirTemp(o.dir, "ashlar-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	say := func(format string, args ...any) { fmt.Fprintf(stderr, "bench: "+format+"\n", args...) }
	r := newReport(ctx, o, dir)
	switch o.only {
	case "closure":
		return closures(ctx, o, dir, r, stdout, say)
	case "proxies":
		return r.printProxies(ctx, o, dir, stdout, say)
	case "signing":
		return r.printAlone(stdout, o, changes(ctx, o, dir, r, say))
	case "record":
		return r.printAlone(stdout, o, records(ctx, o, dir, r, say))
	}
	if err := changes(ctx, o, dir, r, say); err != nil {
		return err
	}
	say("sealing 50 MB in 4,000 files")
	if err := sealing(ctx, o, dir, r); err != nil {
		return err
	}
	if err := parts(ctx, o, dir, r); err != nil {
		return err
	}
	if err := scale(ctx, r, say); err != nil {
		return err
	}
	if err := records(ctx, o, dir, r, say); err != nil {
		return err
	}
	r.finish()
	if err := r.print(stdout, o.output); err != nil || o.output == "json" {
		return err
	}
	return r.printProxies(ctx, o, dir, stdout, say)
}
