package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
)

// noKeys has commands find no keys, whatever the user has.
const noKeys = "ASHLAR_KEYS=/nonexistent"

// signing measures what signing and attesting add to a deploy of a one-line change: pairs
// of deploys, the one with keys for releases and builds and the other without. Which is
// first alternates. The keys have no passphrase: scrypt takes a time of its own choice,
// during which others build.
func (c *contest) signing(ctx context.Context, dir string, say func(string, ...any)) error {
	say("signing: %d pairs of deploys", c.o.n)
	keys := filepath.Join(dir, "keys")
	if err := os.Mkdir(keys, 0o700); err != nil {
		return err
	}
	for _, role := range []string{"release", "builder"} {
		if _, err := c.site.run(ctx, "key", "new", filepath.Join(keys, role), "--no-passphrase"); err != nil {
			return err
		}
	}
	defer func() { c.site.env = []string{noKeys} }()
	for i := range c.o.n {
		var took [2]float64 // without, with
		for j := range took {
			signed := (i + j) % 2
			c.site.env = []string{[]string{noKeys, "ASHLAR_KEYS=" + keys}[signed]}
			if _, err := c.write(c.site.page()); err != nil {
				return err
			}
			done, err := c.site.deploy(ctx)
			if err != nil {
				return err
			}
			took[signed] = ms(done.took)
			if err := pause(ctx, rest); err != nil {
				return err
			}
		}
		c.r.add(unsignedTook, took[0])
		c.r.add(signedTook, took[1])
		c.r.add(signingAdds, took[1]-took[0])
	}
	out, err := goBench(ctx, "./cmd/ashlar", "Signing", "20x", "1")
	if err != nil {
		return err
	}
	for _, f := range out {
		added, err := metricOf(f, "ms/signing")
		if err != nil {
			return err
		}
		c.r.add(signingOnly, added)
	}
	return nil
}

// printAlone writes a report of one part.
func (r *report) printAlone(w io.Writer, o options, err error) error {
	if err != nil {
		return err
	}
	r.finish()
	if o.output == "json" {
		return r.print(w, o.output)
	}
	r.head(w)
	fmt.Fprintf(w, "load average before %s; after %s\n\n", r.LoadAvg[0], r.LoadAvg[1])
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.printTargets(t)
	table(t, "measured", r.Stats)
	return t.Flush()
}
