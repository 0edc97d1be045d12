// Package cli is what a person types and reads: one file per command, one for
// how things are rendered, nothing of how they are done. Commands are clients of
// the server (package api) or call one of [Parts], which the main program wires
// to the adapters.
//
// Start at [Run]; the rules of the user interface stand on top of render.go, and
// cmd/ashlar/testdata/script holds stories of what commands answer.
package cli
