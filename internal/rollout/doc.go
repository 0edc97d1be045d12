// Package rollout decides how an environment gets from one release to another.
// It is pure: [Decide] takes the time, what is remembered and what is observed,
// and returns what to remember next, what to write into the record and what to
// do. It never waits, never looks and never acts; package engine does that.
//
// Start at [Decide]; testdata/*.txt are commented transcripts of whole rollouts.
package rollout
