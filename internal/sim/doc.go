// Package sim runs the real engine and the real decisions on a made-up world: a
// platform, a router, a store and a clock that are only data, with faults drawn
// from a seed. After every step it checks the invariants that docs/architecture.md
// lists (I1 to I8), with the faults on; when the faults stop, everything must come
// to rest within a bound. The same seed always gives the same story, word for word.
//
// Start at [Run]. The suites in package conformance keep the made-up platform and
// store honest: the real ones pass the same tests.
package sim
