package rollout_test

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// What a transcript says, read.

// target reads "web=specB x2 route / drain 5s; db=specC".
func target(number int, components string) (rollout.Target, error) {
	t := rollout.Target{
		Release: digest.FromString(fmt.Sprint("release ", number)), Number: number,
		Platform: "local", Listen: "127.0.0.1:80", Strategy: rollout.Strategy{Kind: "blue-green"},
	}
	for text := range strings.SplitSeq(components, ";") {
		words := strings.Fields(text)
		name, spec, ok := strings.Cut(words[0], "=")
		if !ok {
			return t, fmt.Errorf("%q is not component=spec", words[0])
		}
		c := rollout.Component{Name: name, Spec: digest.FromString(spec), Replicas: 1, Start: 10 * time.Second, Drain: 5 * time.Second, Grace: 5 * time.Second}
		for i := 1; i < len(words); i++ {
			var err error
			switch words[i] {
			case "route":
				i++
				c.Route = &rollout.Route{Path: words[i], Hold: time.Second}
			case "start":
				i++
				c.Start, err = time.ParseDuration(words[i])
			case "drain":
				i++
				c.Drain, err = time.ParseDuration(words[i])
			case "grace":
				i++
				c.Grace, err = time.ParseDuration(words[i])
			case "tcp":
				i++
				c.Route = &rollout.Route{Hold: time.Second}
				c.Route.TCP, err = strconv.Atoi(words[i])
			case "volume":
				i++
				c.Volumes = append(c.Volumes, words[i])
			case "needs":
				i++
				c.Needs = append(c.Needs, words[i])
			case "hook": // before 30s
				h := rollout.Hook{When: words[i+1], Spec: digest.FromString(spec + " " + words[i+1])}
				h.Timeout, err = time.ParseDuration(words[i+2])
				c.Hooks = append(c.Hooks, h)
				i += 2
			case "schema": // NAME reads MIN to MAX writes N leaves N
				x := rollout.Schema{Name: words[i+1]}
				_, err = fmt.Sscanf(strings.Join(words[i+2:i+10], " "), "reads %d to %d writes %d leaves %d", &x.Min, &x.Max, &x.Writes, &x.Leaves)
				c.Schemas = append(c.Schemas, x)
				i += 9
			case rollout.KindWorker, rollout.KindSingleton:
				c.Kind = words[i]
			case "every": // minute
				i++
				c.Kind, c.Schedule = rollout.KindJob, "* * * * *"
			default:
				c.Replicas, err = strconv.Atoi(strings.TrimPrefix(words[i], "x"))
			}
			if err != nil {
				return t, err
			}
		}
		t.Components = append(t.Components, c)
	}
	return t, nil
}

// strategy reads "canary stage 10 pause 1m stage 50 approve bake 1m".
func strategy(q *rollout.Request, words []string) error {
	s := &q.To.Strategy
	for i := 0; i < len(words); i++ {
		var err error
		number := func(n *int) { i++; *n, err = strconv.Atoi(words[i]) }
		duration := func(d *time.Duration) { i++; *d, err = time.ParseDuration(words[i]) }
		analysis := func() *rollout.Analysis {
			if s.Analysis == nil {
				s.Analysis = &rollout.Analysis{Window: time.Minute}
			}
			return s.Analysis
		}
		last := func() *rollout.Stage {
			if len(s.Stages) == 0 {
				s.Stages = []rollout.Stage{{}}
			}
			return &s.Stages[len(s.Stages)-1]
		}
		switch words[i] {
		case "stage":
			s.Stages = append(s.Stages, rollout.Stage{})
			number(&last().Weight)
		case "pause":
			duration(&last().Pause)
		case "approve":
			last().Approve = true
		case "preview":
			i++
			last()
			s.Preview = words[i]
		case "warm":
			duration(&s.Warm)
		case "bake":
			duration(&s.Bake)
		case "deadline":
			duration(&s.Deadline)
		case "surge":
			number(&s.Surge)
		case "unavailable":
			number(&s.Unavailable)
		case "batch":
			number(&s.Batch)
		case "requests":
			number(&analysis().Requests)
		case "errors":
			i++
			analysis().Errors = words[i]
		case "slower": // FACTOR at PER-MILLE
			analysis().Slower = words[i+1]
			i += 2
			number(&analysis().Quantile)
		case "window":
			duration(&analysis().Window)
		case "cookie", "header":
			s.Match = &rollout.Match{Value: words[i+2]}
			if words[i] == "cookie" {
				s.Match.Cookie = words[i+1]
			} else {
				s.Match.Header = words[i+1]
			}
			i += 2
		case "sticky":
			i++
			s.Sticky = words[i]
		case "queue":
			q.Queue = true
		case "supersede":
			q.Supersede = true
		case "force":
			q.Force = true
		case "coalesce", "serialise", "verify":
			s.Queue = words[i]
		default:
			s.Kind = words[i]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func exit(how string, at time.Time) *rollout.Exit {
	code, err := strconv.Atoi(how)
	switch {
	case err == nil:
		return &rollout.Exit{Code: code, At: at}
	case how == "oom":
		return &rollout.Exit{Code: 137, Signal: "SIGKILL", OOM: true, At: at}
	default:
		return &rollout.Exit{Code: 137, Signal: how, At: at}
	}
}

// flight reads "websockets 1 tcp 2".
func flight(words []string) (rollout.Flight, error) {
	var f rollout.Flight
	kinds := map[string]*int{"requests": &f.Requests, "websockets": &f.WebSockets, "streams": &f.Streams, "grpc": &f.GRPC, "tcp": &f.TCP}
	for ; len(words) > 1; words = words[2:] {
		n, err := strconv.Atoi(words[1])
		if kinds[words[0]] == nil || err != nil {
			return f, fmt.Errorf("%q is not a kind and a number", words[:2])
		}
		*kinds[words[0]] = n
	}
	return f, nil
}

func longID(short string) string { return "shop-prod-" + short }

// split cuts a line into words; quotes keep several together.
func split(line string) ([]string, error) {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] == '"' {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, err
			}
			word, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, err
			}
			words, line = append(words, word), line[len(quoted):]
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		words, line = append(words, word), rest
	}
	return words, nil
}
