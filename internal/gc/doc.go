// Package gc finds what no release needs any more and removes it: mark and sweep
// over the object store.
//
// [Keep] decides which releases stay, [Mark] finds every object that they and the
// recent builds need, [Sweep] removes the rest. Keep and Mark only look. What a
// rollback to a kept release needs is never removed (invariant I5); the caller
// holds the object store's exclusive lock from before Mark until after Sweep.
//
// TestExactlyTheUnneeded proves what goes and what stays.
package gc
