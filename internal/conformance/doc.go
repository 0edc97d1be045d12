// Package conformance holds the contracts of package engine's interfaces as tests,
// one suite an interface. The real adapters and the simulator pass the same ones:
// that is what keeps the simulator honest.
//
// Start at [Platform], [Router] and [Store]; an adapter's own test calls them.
package conformance
