package cli

import (
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

var levels = []string{"debug", "info", "warn", "error"}

func (p *program) serverCommand() *cobra.Command {
	var q ServeRequest
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the server: it keeps every environment as it should be",
		Long: "Runs the server of the state directory in the foreground, until SIGTERM or Ctrl-C. Instances and\n" +
			"the router are processes of their own: they go on without the server, and it adopts them again when\n" +
			"it is back. `ashlar down --all` ends everything.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if q.Dir, err = p.stateDir(); err != nil {
				return err
			}
			q.RunDir = RunDir(q.Dir)
			if err := checkLevel(q.Log.Level); err != nil {
				return err
			}
			q.Deployer.Passphrase = func() ([]byte, error) {
				if text, ok := os.LookupEnv(passphraseVariable); ok {
					return []byte(text), nil
				}
				return nil, fault.New(fault.Invalid, "the deployer key has a passphrase, and a server cannot ask for it").
					Mend("set it:  %s=…  or make one that has none:  ashlar key new deployer --no-passphrase", passphraseVariable)
			}
			if q.Deployer.Dir, err = keysDir(); err != nil {
				q.Deployer.Dir = "" // nowhere to look
			}
			if q.Notary.AnchorEvery <= 0 {
				return fault.New(fault.Invalid, "--anchor-every is %s", q.Notary.AnchorEvery).Mend("write  --anchor-every 1h")
			}
			return p.parts.Serve(cmd.Context(), q)
		},
	}
	programFlags(cmd, &q.Runc, &q.Shim)
	logFlags(cmd, &q.Log)
	metricsFlag(cmd, "router-metrics", &q.RouterMetrics)
	cmd.Flags().StringVar(&q.Notary.Listen, "log-listen", "", "serve the record for reading at an address of the loopback, such as 127.0.0.1:8441")
	cmd.Flags().StringArrayVar(&q.Notary.Witnesses, "witness", nil, "`KEY URL` of a witness that cosigns the record; may be given again")
	cmd.Flags().StringVar(&q.Notary.Anchor, "anchor", "", "keep the record's checkpoints also in a file, or in a Git repository")
	cmd.Flags().DurationVar(&q.Notary.AnchorEvery, "anchor-every", time.Hour, "how often at most")
	cmd.Flags().StringVar(&q.Deployer.Key, "deployer-key", "", "key that signs what policies verified, a file or an address as  ashlar key use  takes it; without it: deployer.key of the directory of the keys, if there is one")
	cmd.Flags().StringVar(&q.SecretIdentity, "secret-identity", os.Getenv("ASHLAR_SECRET_IDENTITY"),
		"file that opens the secrets, kept elsewhere than in the state directory (environment variable ASHLAR_SECRET_IDENTITY)")
	return cmd
}

// logFlags say how a service narrates.
func logFlags(cmd *cobra.Command, o *LogOptions) {
	cmd.Flags().StringVar(&o.Level, "log-level", "info", "how much to tell: debug, info, warn, error")
	cmd.Flags().BoolVar(&o.JSON, "log-json", false, "tell it as JSON lines")
	fixed(cmd, "log-level", levels...)
}

func checkLevel(level string) error {
	if slices.Contains(levels, level) {
		return nil
	}
	return fault.New(fault.Invalid, "log level %q is not known", level).
		Detail("known: " + strings.Join(levels, ", ")).Mend("write  --log-level info")
}

func metricsFlag(cmd *cobra.Command, name string, addr *string) {
	cmd.Flags().StringVar(addr, name, "", "loopback address where the router answers Prometheus, as 127.0.0.1:9464; without it: on its socket alone")
}

// programFlags name the programs that run instances.
func programFlags(cmd *cobra.Command, runc, shim *string) {
	cmd.Flags().StringVar(runc, "runc", "", "OCI runtime; without it: runc beside this program, then in PATH")
	cmd.Flags().StringVar(shim, "shim", "", "ashlar-shim; without it: beside this program, then in PATH")
}

func (p *program) routerCommand() *cobra.Command {
	var q RouteRequest
	cmd := &cobra.Command{
		Use:   "router",
		Short: "Run the http data plane; the server starts it by itself",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.RunDir == "" {
				dir, err := p.stateDir()
				if err != nil {
					return err
				}
				q.RunDir = RunDir(dir)
			}
			return p.parts.Route(cmd.Context(), q)
		},
	}
	cmd.Flags().StringVar(&q.RunDir, "run", "", "run directory; without it: that of the state directory")
	cmd.Flags().BoolVar(&q.TakeOver, "take-over", false, "take over from the router that runs there, without closing a connection")
	cmd.Flags().StringVar(&q.ACME, "acme", "", "directory that keeps certificates got by ACME; without it: acme in the run directory")
	metricsFlag(cmd, "metrics", &q.Metrics)
	return cmd
}
