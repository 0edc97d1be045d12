package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// take updates the picture and gives the entry in words; empty: not worth a line.
func (pr *progress) take(e record.Entry) string {
	what, isInstance := strings.CutPrefix(e.Kind, "instance.")
	if isInstance {
		return pr.takeInstance(what, e)
	}
	if what, isHook := strings.CutPrefix(e.Kind, "hook."); isHook {
		return pr.takeHook(what, e)
	}
	switch e.Kind {
	case "rollout.begun":
		return fmt.Sprintf("rollout %d: %s", pr.r.Number, e.Reason)
	case "rollout.switching":
		pr.step = "switching"
		if pr.r.Kind == rollout.KindDown {
			return "the address closes"
		}
		return e.Reason + ": the traffic moves"
	case "release.live":
		pr.live = e.Time
		if pr.r.Kind == rollout.KindDown {
			return ""
		}
		for _, u := range pr.units {
			if u.fresh && u.phase == "ready" {
				u.phase = "serves"
			}
		}
		return "live: " + e.Reason
	case "release.quarantined":
		return fmt.Sprintf("release %d is in quarantine", pr.r.To.Number)
	case "warm.kept":
		return "the old instances are kept warm: " + e.Reason
	case "rollout.live", "rollout.put-back", "rollout.superseded":
		pr.outcome, pr.ended, pr.why = strings.TrimPrefix(e.Kind, "rollout."), e.Time, strings.TrimPrefix(e.Reason, "put back: ")
		return ""
	case "rollout.reverting":
		pr.step = "reverting"
		return "putting back: " + e.Reason
	}
	if what, ok := strings.CutPrefix(e.Kind, "rollout."); ok {
		return pr.takeStep(what, e)
	}
	return ""
}

// takeQueued looks for the beginning of the rollout that waits, or for its end
// without one.
func (pr *progress) takeQueued(e record.Entry) {
	switch {
	case e.Release != pr.plan.To.Digest:
	case e.Kind == "rollout.begun":
		pr.queued = false
		pr.r = rollout.Rollout{Number: e.Rollout, Kind: e.Data["kind"], StartedAt: e.Time, To: rollout.Target{Number: pr.plan.To.Number, Release: e.Release}}
		if n, err := strconv.Atoi(e.Data["from"]); err == nil {
			pr.r.From = &rollout.Target{Number: n}
		}
	case e.Kind == "rollout.dropped" || e.Kind == "rollout.withdrawn":
		pr.outcome, pr.why, pr.ended, pr.r.StartedAt = dropped, e.Reason, e.Time, e.Time
	}
}

// takeStep gives what happens to the rollout as a whole in words.
func (pr *progress) takeStep(what string, e record.Entry) string {
	because := ""
	if e.Reason != "" {
		because = ": " + e.Reason
	}
	switch what {
	case "paused", "approved":
		return what + " by " + e.Data["by"] + because
	case "unpaused":
		return "resumed by " + e.Data["by"] + because
	case "resumed", "stage", "late", dropped, "queued":
		return e.Reason
	case "hurried":
		return "the bake is cut short" + because
	case "wave":
		return e.Data["components"] + ": " + e.Reason
	case "rolled":
		return fmt.Sprintf("%s  rolls, %s new and %s old instances wanted", e.Data["component"], e.Data["new"], e.Data["old"])
	}
	pr.step = what
	return what + because
}

func (pr *progress) takeHook(what string, e record.Entry) string {
	u := pr.unit(e)
	u.fresh = true
	line := fmt.Sprintf("%s  %s  hook %s  %s", u.component, u.id, e.Data["when"], what)
	if what == "ordered" {
		u.phase = "hook " + e.Data["when"] + " runs"
		return line
	}
	u.phase = "hook " + e.Data["when"] + ": " + e.Reason
	return line + ": " + e.Reason
}

func (pr *progress) takeInstance(what string, e record.Entry) string {
	u := pr.unit(e)
	switch what {
	case "ordered":
		u.phase, u.fresh = "starts", true
		pr.started++
	case "started":
		u.phase = "runs"
	case "ready", "recovered":
		u.phase = "ready"
	case "unready":
		u.phase = "not ready"
	case "failed":
		u.phase = "failed"
	case "leaving":
		if u.phase != "failed" {
			u.phase = "leaves"
		}
		if !u.fresh {
			pr.retired++
		}
	case "stopping":
		u.phase = "stops"
	case "cut":
		return fmt.Sprintf("%s  %s  cut, as its drain time is over: %s", u.component, u.id, cutWords(e.Data))
	case "removed":
		u.phase = "gone"
	default:
		return ""
	}
	line := fmt.Sprintf("%s  %s  %s", u.component, u.id, what)
	if e.Reason != "" && (what == "failed" || what == "unready") {
		line += ": " + e.Reason
	}
	return line
}

// cutWords tells what was cut, by kind.
func cutWords(data map[string]string) string {
	n := func(kind string) int { n, _ := strconv.Atoi(data[kind]); return n } // what is no number was not counted
	return flightWords(rollout.Flight{Requests: n("requests"), WebSockets: n("websockets"), Streams: n("streams"), GRPC: n("grpc"), TCP: n("tcp")})
}

func (pr *progress) unit(e record.Entry) *unit {
	for _, u := range pr.units {
		if u.id == e.Instance {
			return u
		}
	}
	u := &unit{id: e.Instance, component: componentOf(e)}
	pr.units = append(pr.units, u)
	return u
}

// componentOf takes the component out of an instance's ID: app-env-component-N.
func componentOf(e record.Entry) string {
	name := strings.TrimPrefix(e.Instance, e.App+"-"+e.Env+"-")
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		return name[:i]
	}
	return name
}
