// Command ashlar-shim stands beside one instance; the server starts it. It is a
// program of its own, apart from ashlar, so that it stays small: there is one per
// instance. See package shim for what it does.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/ashlar-infra/ashlar/internal/shim"
)

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

func run(ctx context.Context, args []string) int {
	var b shim.Birth
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &b) != nil {
		fmt.Fprintln(os.Stderr, "ashlar-shim is started by the ashlar server, which tells it what it needs")
		return 2
	}
	if err := shim.Run(ctx, b); err != nil {
		fmt.Fprintln(os.Stderr, "ashlar-shim:", err)
		return 1
	}
	return 0
}
