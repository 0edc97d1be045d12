package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ashlar-infra/ashlar/internal/load"
)

// metric is one row of the table: its name.
type metric string

// The rows, in the order in which they are printed.
const (
	inPlaceLive       metric = "in place: rsync + restart, until both restarted answer with the new line"
	inPlaceFirst      metric = "in place: until the old program answers with the new line, before its restart"
	inPlaceFailed     metric = "in place: failed requests of one change"
	inPlaceP99        metric = "in place: 99th percentile of answers around a change"
	inPlaceQuietLive  metric = "in place, no load: until both restarted answer with the new line"
	inPlaceBytes      metric = "in place: bytes written"
	deployLive        metric = "deploy: one-line change, until 100 % of traffic is on the new version"
	deployTook        metric = "deploy: the whole command, old instances removed"
	deployFailed      metric = "deploy: failed requests of one change"
	deployP99         metric = "deploy: 99th percentile of answers around a change"
	deployQuietTook   metric = "deploy, no load: the whole command"
	deployClientBytes metric = "deploy: bytes written by the command (build and seal)"
	deployServerBytes metric = "deploy: bytes written by server, router, shims and what they ran"
	deployBytes       metric = "deploy: bytes written, all"
	rollbackLive      metric = "rollback: until 100 % of traffic is on the previous version"
	rollbackTook      metric = "rollback: the whole command"
	rollbackFailed    metric = "rollback: failed requests of one change"
	warmLive          metric = "rollback, the old set warm: until 100 % of traffic is on it"
	warmFailed        metric = "rollback, the old set warm: failed requests"
	sealCold          metric = "ashlar build, 50 MB in 4,000 files, empty store"
	sealUnchanged     metric = "ashlar build, the same, nothing changed"
	processStart      metric = "ashlar schema: a command that does nothing, for comparison"
	serverRSS         metric = "server: resident memory between changes"
	routerRSS         metric = "router: resident memory between changes"
	shimRSS           metric = "shim: resident memory, each"
	startReady        metric = "instance: ordered to ready, from the record"
	decideTook        metric = "one decision: 2 + 2 instances, the step that switches"
	decide10k         metric = "one decision: 10,000 + 10,000 instances of a canary, mean of all its steps"
	decide10kEach     metric = "the same, for each instance"
	decide100k        metric = "one decision: 100,000 + 100,000 instances"
	decide100kEach    metric = "the same, for each instance: linear, if it is as above"
	instanceBytes     metric = "memory of an instance in state and observation"
	idleLook          metric = "1,000 environments at rest: a look at one"
	idleShare         metric = "1,000 environments at rest: of one processor, all looked at every 30 s"
	idleBytes         metric = "1,000 environments at rest: memory of each"
	appendRate        metric = "record: entries appended in a second, in durable batches of 500"
	recordSize        metric = "record: entries"
	proofTook         metric = "record: one proof of inclusion in them"
	auditTook         metric = "record: audit of all of them"
	auditCPU          metric = "record: the same, processor time"
	unsignedTook      metric = "deploy, no load, without keys, of each pair"
	signedTook        metric = "deploy, no load, signed and attested, of each pair"
	signingAdds       metric = "deploy: signing and attesting add, of each pair"
	signingOnly       metric = "signing and attesting 1,000 files that are built (go test -bench)"
	commitTook        metric = "one commit: state and 3 entries, durable"
)

// rows gives each metric its unit, in printing order.
var rows = []struct {
	metric metric
	unit   string
}{
	{inPlaceLive, "ms"}, {inPlaceFirst, "ms"}, {inPlaceFailed, ""}, {inPlaceP99, "ms"}, {inPlaceQuietLive, "ms"}, {inPlaceBytes, "kB"},
	{deployLive, "ms"}, {deployTook, "ms"}, {deployFailed, ""}, {deployP99, "ms"}, {deployQuietTook, "ms"},
	{deployClientBytes, "kB"}, {deployServerBytes, "kB"}, {deployBytes, "kB"},
	{rollbackLive, "ms"}, {rollbackTook, "ms"}, {rollbackFailed, ""},
	{warmLive, "ms"}, {warmFailed, ""},
	{sealCold, "ms"}, {sealUnchanged, "ms"}, {processStart, "ms"},
	{serverRSS, "MB"}, {routerRSS, "MB"}, {shimRSS, "MB"},
	{startReady, "ms"}, {decideTook, "µs"}, {commitTook, "ms"},
	{decide10k, "ms"}, {decide10kEach, "ns"}, {decide100k, "ms"}, {decide100kEach, "ns"}, {instanceBytes, "B"},
	{idleLook, "µs"}, {idleShare, "%"}, {idleBytes, "B"},
	{unsignedTook, "ms"}, {signedTook, "ms"}, {signingAdds, "ms"}, {signingOnly, "ms"},
	{recordSize, ""}, {appendRate, ""}, {proofTook, "µs"}, {auditTook, "s"}, {auditCPU, "s"},
}

// commandEnds is the last step of a command, which is not in the record.
const commandEnds = "the command ends"

// stepsOfRollout are the kinds of entries whose times tell where a rollout's time goes.
var stepsOfRollout = []string{
	"release.added", "rollout.begun", "instance.ordered", "instance.started", "instance.ready",
	"rollout.switching", "release.live", "rollout.retiring", "rollout.live",
}

// stat is what is told of many values.
type stat struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit,omitempty"`
	N      int       `json:"n"`
	Min    float64   `json:"min"`
	Median float64   `json:"median"`
	Max    float64   `json:"max"`
	Values []float64 `json:"values,omitempty"` // in the order in which they were taken; the rounds' only
}

// target is a promise of ours, and whether it was kept.
type target struct {
	Name  string  `json:"name"`
	Below float64 `json:"below"`
	Got   float64 `json:"got"`
	Unit  string  `json:"unit,omitempty"`
	Met   bool    `json:"met"`
}

// report is everything that was measured.
type report struct {
	Date      time.Time `json:"date"`
	Version   string    `json:"version"`
	Machine   []string  `json:"machine"`
	Rounds    int       `json:"rounds"`
	Rate      int       `json:"rate"`
	Requests  int64     `json:"requests"` // asked during all changes
	LoadAvg   []string  `json:"loadAverage"`
	Took      string    `json:"took"`
	Stats     []stat    `json:"stats"`
	Steps     []stat    `json:"steps"` // median times since the command was entered
	Ratio     stat      `json:"ratio"` // deploy to in place, round by round
	Targets   []target  `json:"targets"`
	FirstErrs []string  `json:"firstErrors,omitempty"`

	values map[metric][]float64
	steps  map[string][]float64
}

func newReport(ctx context.Context, o options, dir string) *report {
	r := &report{
		Date: time.Now(), Rounds: o.n, Rate: o.rate, values: map[metric][]float64{}, steps: map[string][]float64{},
		Machine: []string{
			fmt.Sprintf("%d processors: %s", runtime.NumCPU(), fact("/proc/cpuinfo", "model name")),
			"memory " + fact("/proc/meminfo", "MemTotal"),
			"Linux " + first("/proc/sys/kernel/osrelease"),
			"Go " + strings.TrimPrefix(runtime.Version(), "go"),
			"disk " + output(ctx, "findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", dir),
		},
		Version: strings.ReplaceAll(output(ctx, o.ashlar, "version"), "\n", "; "),
		LoadAvg: []string{first("/proc/loadavg")},
	}
	return r
}

func (r *report) add(m metric, v float64) { r.values[m] = append(r.values[m], v) }

func (r *report) step(kind, name string, v float64) {
	r.steps[kind+": "+name] = append(r.steps[kind+": "+name], v)
}

// asked counts what the load asked, and keeps the first errors.
func (r *report) asked(l load.Report) {
	r.Requests += l.Requests
	if room := 3 - len(r.FirstErrs); room > 0 {
		r.FirstErrs = append(r.FirstErrs, l.FirstErrors[:min(room, len(l.FirstErrors))]...)
	}
}

// finish computes what is printed.
func (r *report) finish() {
	r.LoadAvg = append(r.LoadAvg, first("/proc/loadavg"))
	r.Took = time.Since(r.Date).Round(time.Second).String()
	for _, row := range rows {
		if v := r.values[row.metric]; len(v) > 0 {
			r.Stats = append(r.Stats, summarize(string(row.metric), row.unit, v))
		}
	}
	for _, kind := range []string{"deploy", "rollback"} {
		for _, name := range append(slices.Clone(stepsOfRollout), commandEnds) {
			if v := r.steps[kind+": "+name]; len(v) > 0 {
				r.Steps = append(r.Steps, summarize(kind+": "+name, "ms", v))
			}
		}
	}
	var ratios []float64
	for i, v := range r.values[deployLive] {
		ratios = append(ratios, v/r.values[inPlaceLive][i])
	}
	r.Ratio = summarize("deploy to 100 % of traffic / in place, of each round", "x", ratios)
	r.judge()
}

// judge compares medians with the targets, but failures as they are, all rounds together.
func (r *report) judge() {
	within := func(name string, m metric, below float64, unit string, scale float64) {
		if len(r.values[m]) == 0 {
			return // not measured
		}
		got := summarize("", "", r.values[m]).Median * scale
		r.Targets = append(r.Targets, target{Name: name, Below: below, Got: got, Unit: unit, Met: got < below})
	}
	within("one-line change to 100 % of traffic", deployLive, 1, "s", 1e-3)
	if r.Ratio.N > 0 {
		r.Targets = append(r.Targets, target{Name: "the same, against in place", Below: 3, Got: r.Ratio.Median, Unit: "x", Met: r.Ratio.Median < 3})
	}
	within("rollback to 100 % of traffic", rollbackLive, 300, "ms", 1)
	within("rollback, the old set warm", warmLive, 50, "ms", 1)
	within("bytes written to disk for the release", deployBytes, 1, "MB", 1e-3)
	within("sealing 50 MB in 4,000 files, cold", sealCold, 1, "s", 1e-3)
	within("sealing the same unchanged", sealUnchanged, 100, "ms", 1)
	within("server idle", serverRSS, 60, "MB", 1)
	within("shim", shimRSS, 12, "MB", 1)
	within("signing and attesting add to a deploy", signingAdds, 100, "ms", 1)
	if size := sum(r.values[recordSize]); size > 0 {
		name := "auditing 1,000,000 entries of the record"
		if size != 1e6 {
			name += ", reckoned from fewer"
		}
		within(name, auditTook, 60, "s", 1e6/size)
		rate := summarize("", "", r.values[appendRate]).Median
		r.Targets = append(r.Targets, target{Name: "time of 5,000 durable entries", Below: 1, Got: 5000 / rate, Unit: "s", Met: rate > 5000})
	}
	if len(r.values[deployFailed]) > 0 {
		failed := sum(r.values[deployFailed]) + sum(r.values[rollbackFailed]) + sum(r.values[warmFailed])
		r.Targets = append(r.Targets, target{Name: "failed requests of all deploys and rollbacks", Below: 1, Got: failed, Met: failed == 0})
	}
}

func summarize(name, unit string, v []float64) stat {
	s := stat{Name: name, Unit: unit, N: len(v), Min: math.NaN(), Median: math.NaN(), Max: math.NaN()}
	if len(v) == 0 {
		return s
	}
	sorted := slices.Sorted(slices.Values(v))
	s.Min, s.Max = sorted[0], sorted[len(sorted)-1]
	s.Median = (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
	if len(v) <= 50 {
		s.Values = v
	}
	return s
}

func sum(v []float64) float64 {
	total := 0.0
	for _, x := range v {
		total += x
	}
	return total
}

// head says what was measured where and when.
func (r *report) head(w io.Writer) {
	fmt.Fprintf(w, "%s, %s\n%s\n", r.Date.Format("2006-01-02 15:04 MST"), r.Version, strings.Join(r.Machine, "\n"))
}

// print writes the report.
func (r *report) print(w io.Writer, as string) error {
	if as == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	r.head(w)
	fmt.Fprintf(w, "load average before %s; after %s\n", r.LoadAvg[0], r.LoadAvg[1])
	fmt.Fprintf(w, "%d rounds in %s; %d requests per second during changes, half of the workers with new connections, %d in all\n\n", r.Rounds, r.Took, r.Rate, r.Requests)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.printTargets(t)
	table(t, "measured", append(slices.Clone(r.Stats), r.Ratio))
	table(t, "where the time goes (since the command was entered)", r.Steps)
	if len(r.FirstErrs) > 0 {
		fmt.Fprintf(t, "\nfirst errors that clients saw:\n  %s\n", strings.Join(r.FirstErrs, "\n  "))
	}
	return t.Flush()
}

func (r *report) printTargets(w io.Writer) {
	fmt.Fprintln(w, "target\tbelow\tgot\t")
	for _, g := range r.Targets {
		verdict := "met"
		if !g.Met {
			verdict = "NOT met"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", g.Name, number(g.Below, g.Unit), number(g.Got, g.Unit), verdict)
	}
}

func table(w io.Writer, title string, stats []stat) {
	fmt.Fprintf(w, "\n%s\tn\tmin\tmedian\tmax\n", title)
	for _, s := range stats {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", s.Name, s.N, number(s.Min, s.Unit), number(s.Median, s.Unit), number(s.Max, s.Unit))
	}
}

// number writes three digits, and no more decimals than that leaves.
func number(v float64, unit string) string {
	decimals := 2
	switch {
	case v == math.Trunc(v) || math.Abs(v) >= 100:
		decimals = 0
	case math.Abs(v) >= 10:
		decimals = 1
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", decimals, v, unit))
}

// fact finds "name: value" in a file of /proc.
func fact(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func first(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func output(ctx context.Context, name string, args ...string) string {
	b, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b)), " ")
}
