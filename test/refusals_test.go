package e2e

import (
	"slices"
	"strings"
	"testing"
)

// TestSchemaContract: a release that would leave data which the release before could not
// read, and a rollback to one that cannot read what is there, are refused before anything
// is touched.
func TestSchemaContract(t *testing.T) {
	a := newHost(t).guest()
	schema := a.schema("", "{reads: 1, writes: 1}")
	a.deploy()
	instances := ids(a.settled())
	migrates := "    hooks: {before: {command: [/usr/bin/web, blank]}}\n"

	schema = a.schema(schema, "{reads: 2, writes: 2, leaves: 2}")
	a.edit("ashlar.yaml", "    route: {path: /}\n", "    route: {path: /}\n"+migrates)
	a.release("0", "1").failed(5, "component web, schema book: its migration leaves version 2 and the current release, which has to be able to come back, reads 1 to 1")
	if now := ids(a.settled()); !slices.Equal(now, instances) {
		t.Errorf("%v run, before %v", now, instances)
	}

	// By a release that reads both it goes, and back to that one.
	schema = a.schema(schema, `{reads: "1-2", writes: 1}`)
	a.edit("ashlar.yaml", migrates, "")
	a.deploy()
	a.schema(schema, `{reads: "1-2", writes: 2, leaves: 2}`)
	a.edit("ashlar.yaml", "    route: {path: /}\n", "    route: {path: /}\n"+migrates)
	a.edit("ashlar.yaml", `MARK: "1"`, `MARK: "2"`)
	a.deploy()
	back := a.ashlar("rollback", "production", "1", "--yes")
	back.failed(5, "component web, schema book: ", "reads 1 to 1")
	a.oneRelease("2")
	a.await("the rollback to be rehearsed", func() error {
		if s := a.ashlar("status", "production").ok().stdout; !strings.Contains(s, "rollback: would work to release ") {
			return errNotYet
		}
		return nil
	})
	a.ashlar("rollback", "production", "--yes").ok()
	a.oneRelease("1")
	a.ashlar("log", "verify").ok()
}

// schema gives the program another schema than it has.
func (a *app) schema(old, schema string) string {
	a.t.Helper()
	route := "    route: {path: /}\n"
	was := route
	if old != "" {
		was = "    schemas: {book: " + old + "}\n" + was
	}
	a.edit("ashlar.yaml", was, "    schemas: {book: "+schema+"}\n"+route)
	return schema
}

// TestFreeze: within a freeze nothing is deployed, unless somebody says why, or lets it
// wait. Going back always works.
func TestFreeze(t *testing.T) {
	a := newHost(t).guest()
	a.deploy()
	a.edit("ashlar.yaml", "    replicas: 2\n", "    replicas: 2\n    freeze: [{}]\n")
	a.release("0", "1").failed(5, "nothing is deployed to production until ", "--queue", `--force --reason "..."`)
	a.ashlar("deploy", "production", "--yes", "--force").failed(2, "who forces a rollout says why")
	a.ashlar("deploy", "production", "--yes", "--detach", "--queue").ok()
	a.ashlar("why").ok().says("waits for the freeze to end")
	a.oneRelease("0")
	a.ashlar("deploy", "production", "--yes", "--force", "--reason", "the shop is down").ok().says("is live in production")
	a.oneRelease("1")
	a.ashlar("rollback", "production", "--yes").ok()
	a.oneRelease("0")
	a.ashlar("log").ok().says("the shop is down")
	a.ashlar("log", "verify").ok()
}
