// Package engine moves environments from release to release: it observes, lets
// package rollout decide, commits the decision and its entries in one
// transaction, and then acts. Everything that it does may be cut short at any
// instruction: the next Tick, of this process or of another, looks again and goes on.
//
// It owns the interfaces of everything outside ([Platform], [Router], [Store],
// [Artifacts]); the simulator and the real adapters implement them, and one
// conformance suite holds them to the comments.
//
// Start at [Engine.Tick]; [Engine.Run] is the only owner of goroutines and timers.
package engine
