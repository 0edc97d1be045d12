// Package rollout decides how an environment gets from one release to another.
// It is pure: [Decide] takes the time, what is remembered and what is observed,
// and returns what to remember next, what to write into the record and what to
// do. It never waits, never looks and never acts; package engine does that.
//
// Start with testdata/canary.txt, a commented transcript of a whole rollout, then
// [Decide]. The steps (steps.go) are the same for every strategy; bluegreen.go,
// canary.go, rolling.go and recreate.go say what is different, strategy.go which of
// them holds for which component and in what order. decide_prop_test.go shows what
// holds for every decision, walk_test.go that every rollout ends.
package rollout
