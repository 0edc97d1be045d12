package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// TestHooks: a migration that hangs is ended when its time is over, and one that fails
// after the switch puts the rollout back; what they wrote is in the record, and the release
// before never stops serving.
func TestHooks(t *testing.T) {
	a := newHost(t).guest()
	a.edit("ashlar.yaml", "grace: 2s", "grace: 500ms")
	a.deploy()
	run := a.load(100, "Mark")

	hooks := a.hooks("", `{before: {command: [/usr/bin/web, hangs], timeout: 1s}}`)
	a.release("0", "1").ok()
	a.await("the hook to run", func() error {
		if s := a.status(); s.State.Rollout == nil || len(s.State.Rollout.Hooks) == 0 {
			return errNotYet
		}
		return nil
	})
	a.ashlar("rollout", "status").ok().says("hook:   web before", "runs for")
	a.ashlar("rollout", "watch").failed(5, "was put back", "(hook before) did not end within 1s", "| waiting for a lock", "release 1 serves in production, as before")
	a.oneRelease("0")
	a.ended("before", "did not end within 1s", "waiting for a lock")

	hooks = a.hooks(hooks, `{before: {command: [/usr/bin/web, blank]}, after: {command: [/usr/bin/web, exits]}, rollback: {command: [/usr/bin/web, blank]}}`)
	a.ashlar("deploy", "production", "--yes").failed(5, "was put back", "(hook after) exited with status 3", "| cannot open the database")
	a.oneRelease("0")
	a.ended("before", "it ended with status 0", "")
	a.ended("after", "exited with status 3", "cannot open the database")
	a.ended("rollback", "it ended with status 0", "")

	a.hooks(hooks, `{before: {command: [/usr/bin/web, blank]}, after: {command: [/usr/bin/web, blank]}}`)
	a.deploy()
	a.unharmed(run)
	a.oneRelease("1")
	a.ashlar("log", "verify").ok()
}

// hooks gives the program other hooks than it has.
func (a *app) hooks(old, hooks string) string {
	a.t.Helper()
	route := "    route: {path: /}\n"
	was := route
	if old != "" {
		was += "    hooks: " + old + "\n"
	}
	a.edit("ashlar.yaml", was, route+"    hooks: "+hooks+"\n")
	return hooks
}

// ended expects the end of a hook in the record, with what it wrote last.
func (a *app) ended(when, why, output string) {
	a.t.Helper()
	if !slices.ContainsFunc(a.entries(0), func(e record.Entry) bool {
		return e.Kind == "hook.ended" && e.Data["when"] == when && e.Reason == why && strings.Contains(e.Data["output"], output)
	}) {
		a.t.Errorf("the record does not tell that the hook %s ended: %s: %s", when, why, output)
	}
}
