package main

import (
	"math"
	"runtime/debug"
)

// A command lives for moments: while it holds less than a small machine has to
// spare, collecting garbage would only keep its user waiting. Collections begin at
// about 64 MiB (16 times Go's usual 4) and become frequent beyond commandMemory.
const (
	commandPercent = 1600
	commandMemory  = 512 << 20 // bytes
)

// Servers are idle most of the time and stay for ever: the server trades a little
// processor time for memory. The router, which every request passes, does not.
const (
	serverPercent = 150
	routerPercent = 100
)

// forCommand is how a process that ends soon uses memory.
func forCommand() {
	debug.SetGCPercent(commandPercent)
	debug.SetMemoryLimit(commandMemory)
}

// forService is how a process that stays uses memory.
func forService(percent int) {
	debug.SetGCPercent(percent)
	debug.SetMemoryLimit(math.MaxInt64)
}
