// Command ashlar is all of Ashlar: the server, the router and every command of
// its user. The files here are the only place that knows which adapter stands
// behind which interface; the commands are in package cli.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/keyfile"
	"github.com/ashlar-infra/ashlar/internal/local"
	"github.com/ashlar-infra/ashlar/internal/notary"
	"github.com/ashlar-infra/ashlar/internal/router"
)

// version is set when the program is built: -ldflags "-X main.version=1.2.3".
var version = "dev"

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	forCommand()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, args, stdin, stdout, stderr, cli.Parts{
		Version: version,
		Build:   buildRelease,
		Export:  exportArtifact,
		Seals:   openSeals,
		Check:   checkBuild,
		Doctor:  examine,
		Log:     cli.LogParts{Key: notary.PublicKey, Remember: notary.Remember, Renew: renewLog},
		Keys:    cli.KeyParts{New: keyfile.New, Use: keyfile.Use, Signer: keyfile.Signer, OfRole: keyfile.OfRole, Public: keyfile.Public, List: keyfile.List},

		Registry: cli.RegistryParts{
			Serve: func(ctx context.Context, q cli.RegistryRequest) error { return serveRegistry(ctx, q, stderr) },
			User:  registryUser,
			Push:  pushArtifact,
			Pull:  pullImage,
		},
		Judge:      judgeOnce,
		Statements: cli.StatementParts{Predicates: predicates, Attached: attached, Attach: attach},
		Proof:      cli.ProofParts{Collect: collectProof, Seal: sealOf, Live: verifyLive},
		Rebuild:    cli.RebuildParts{Export: exportInputs, Rebuild: rebuildInputs},
		Trial:      local.KeepTrial,
		Serve:      func(ctx context.Context, q cli.ServeRequest) error { return serve(ctx, q, stderr) },
		Route: func(ctx context.Context, q cli.RouteRequest) error {
			forService(routerPercent)
			return router.Serve(ctx, router.Config{RunDir: q.RunDir, TakeOver: q.TakeOver, ACMEDir: q.ACME, Metrics: q.Metrics, Log: logger(stderr, cli.LogOptions{}), Version: version})
		},
	})
}
