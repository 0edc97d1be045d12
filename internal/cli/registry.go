package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// RegistryRequest says how a registry runs.
type RegistryRequest struct {
	Dir         string // state directory
	Listen      string // host:port
	Users       string // file of users; empty: everybody on this machine may read and write
	Certificate string // file, PEM, with its chain; empty: no TLS
	Key         string // file, PEM
	Log         LogOptions
}

// RegistryUserRequest adds a user to a file, or takes one out.
type RegistryUserRequest struct {
	File     string
	Name     string
	Password []byte // empty: a token is made
	Write    bool
	Remove   bool
}

func (p *program) registryCommand() *cobra.Command {
	var q RegistryRequest
	cmd := &cobra.Command{
		Use:   "registry",
		Short: "Serve the artifacts of this machine, and take others, as an OCI registry",
		Long: "Serves the object store of the state directory by the OCI distribution specification, in the\n" +
			"foreground, until SIGTERM or Ctrl-C. The server need not run.\n\n" +
			"Components of releases are repositories APP/COMPONENT; their tags are the numbers and digests of\n" +
			"releases, and statements about them are their referrers. None of it can be changed or deleted here. What is\n" +
			"pushed stays while it is tagged or refers to something that stays; the rest goes with `ashlar gc` after\n" +
			"a day.\n\n" +
			"Without users everybody on this machine may read and write, and only the loopback is listened on. Others\n" +
			"are served with both users and TLS.",
		Example: "  ashlar registry\n" +
			"  skopeo copy --src-tls-verify=false docker://127.0.0.1:5000/hello/web:7 oci:web\n\n" +
			"  ashlar registry user ci --write --users registry.users < password.txt\n" +
			"  ashlar registry --listen 0.0.0.0:5000 --users registry.users --tls-certificate registry.crt --tls-key registry.key",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if q.Dir, err = p.stateDir(); err != nil {
				return err
			}
			if (q.Certificate == "") != (q.Key == "") {
				return fault.New(fault.Invalid, "a certificate needs its key, and a key its certificate").
					Mend("give both:  --tls-certificate FILE --tls-key FILE")
			}
			if err := checkLevel(q.Log.Level); err != nil {
				return err
			}
			return p.parts.Registry.Serve(cmd.Context(), q)
		},
	}
	cmd.Flags().StringVar(&q.Listen, "listen", "127.0.0.1:5000", "address")
	cmd.Flags().StringVar(&q.Users, "users", "", "file of users, as written by  ashlar registry user ; it is read again when it changes")
	cmd.Flags().StringVar(&q.Certificate, "tls-certificate", "", "file with the certificate and its chain, PEM; it is read again when it changes")
	cmd.Flags().StringVar(&q.Key, "tls-key", "", "file with its key, PEM")
	logFlags(cmd, &q.Log)
	cmd.AddCommand(p.registryUserCommand())
	return cmd
}

func (p *program) registryUserCommand() *cobra.Command {
	var q RegistryUserRequest
	var token bool
	cmd := &cobra.Command{
		Use:   "user NAME",
		Short: "Let a user in, or keep one out",
		Long: "Writes a user into a file for `ashlar registry --users`. The password comes from standard input,\n" +
			"without the newline at its end; on a terminal it is asked for and not shown. It may be 72 bytes long.\n" +
			"With --token one is made and printed: for programs, as the password or as a bearer token. The file\n" +
			"has neither, only their hashes.",
		Example: "  ashlar registry user ci --write --users registry.users < password.txt\n" +
			"  ashlar registry user deployer --token --users registry.users\n" +
			"  ashlar registry user ci --remove --users registry.users",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			q.Name = args[0]
			if q.File == "" {
				return fault.New(fault.Invalid, "no file of users is named").Mend("name it:  --users registry.users")
			}
			if !q.Remove && !token {
				if q.Password, err = p.readSecret(q.Name, ""); err != nil {
					return err
				}
				if len(q.Password) == 0 {
					return fault.New(fault.Invalid, "the password is empty").Mend("give one on standard input, or  --token")
				}
			}
			made, err := p.parts.Registry.User(q)
			if err != nil {
				return err
			}
			if p.json() {
				p.out.json(map[string]any{"name": q.Name, "write": q.Write, "removed": q.Remove, "token": made})
				return nil
			}
			if made != "" {
				p.out.linef("%s", made)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&q.File, "users", "", "file of users; made if it does not exist")
	cmd.Flags().BoolVar(&q.Write, "write", false, "let the user push and delete too")
	cmd.Flags().BoolVar(&token, "token", false, "make a token in place of a password, and print it")
	cmd.Flags().BoolVar(&q.Remove, "remove", false, "take the user out")
	cmd.MarkFlagsMutuallyExclusive("token", "remove")
	cmd.MarkFlagsMutuallyExclusive("write", "remove")
	return cmd
}

// RegistryParts serve the object store to others.
type RegistryParts struct {
	Serve func(ctx context.Context, q RegistryRequest) error
	// User changes a file of users, and gives the token if it made one.
	User func(q RegistryUserRequest) (token string, err error)
	Push func(ctx context.Context, q PushRequest) (Pushed, error)
	Pull func(ctx context.Context, q PullRequest) (Pulled, error)
}
