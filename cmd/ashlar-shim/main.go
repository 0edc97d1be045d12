// Command ashlar-shim stands beside one instance; the server starts it. It is a
// program of its own, apart from ashlar, so that it stays small: there is one per
// instance. See package shim for what it does.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/ashlar-infra/ashlar/internal/shim"
)

func init() { runtime.LockOSThread() } // see shim.Run

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

func run(ctx context.Context, args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "ashlar-shim is started by the ashlar server, with an instance's directory")
		return 2
	}
	var err error
	if args[0] == shim.MemfdArg {
		err = shim.WriteMemfdSysctl()
	} else {
		err = shim.Run(ctx, args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ashlar-shim:", err)
		return 1
	}
	return 0
}
