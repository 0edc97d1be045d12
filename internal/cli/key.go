package cli

import (
	"bytes"
	"crypto"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// KeyParts are the signing keys, wherever they are kept.
type KeyParts struct {
	New    func(name string, passphrase []byte) (trust.PublicKey, error) // nil: none
	Use    func(name, address string) (trust.PublicKey, error)
	Signer func(key string, passphrase func() ([]byte, error)) (crypto.Signer, error)
	OfRole func(dir string, role trust.Role) (key string, found bool, err error)
	Public func(path string) (trust.PublicKey, error)
	List   func(dir string) ([]string, error)
}

// passphraseVariable names the environment variable that holds a key's passphrase.
const passphraseVariable = "ASHLAR_KEY_PASSPHRASE"

func (p *program) keyCommand() *cobra.Command {
	var plain bool
	newKey := &cobra.Command{Use: "new NAME", Short: "Make a key: NAME.key and NAME.pub", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		var pass []byte
		var err error
		if !plain {
			if pass, err = p.passphrase(args[0], true); err != nil {
				return err
			}
		}
		k, err := p.parts.Keys.New(args[0], pass)
		if err != nil {
			return err
		}
		return p.showKeys([]namedKey{{args[0], k.ID()}})
	}}
	newKey.Flags().BoolVar(&plain, "no-passphrase", false, "do not encrypt it: whoever can read the file can sign; it opens at once, and unattended")
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make and list signing keys",
		Long: "A key is a pair of files: NAME.key, encrypted with a passphrase, and NAME.pub. They are ECDSA keys on\n" +
			"P-256 in the form of cosign's. What a key may say is in the trust root:  ashlar trust --help\n" +
			"The passphrase is that of the environment variable " + passphraseVariable + " if it is set, for all keys that a\n" +
			"command opens; else it is asked for on the terminal, for each key, and not shown. Without either it fails.\n\n" +
			"Commands that sign take the key of a role from the directory that " + keysVariable + " names, or ashlar/keys in\n" +
			"the user's configuration: release.key, builder.key, approver.key, rebuilder.key, and the\n" +
			"server's deployer.key. Without it they do not sign.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newKey,
		&cobra.Command{
			Use: "use NAME ADDRESS", Short: "Use a key that is in no file, under a name: NAME.uri and NAME.pub",
			Long: "ADDRESS is one of\n" +
				"  pkcs11:token=LABEL;object=KEY?module-path=FILE&pin-source=FILE    a key in a token (RFC 7512), by OpenSC's pkcs11-tool\n" +
				"  exec:/program argument…                                           a program that signs, such as one for a cloud's key service\n\n" +
				"The program reads one JSON value and writes one: {\"operation\":\"public-key\"} gives {\"publicKey\": PEM};\n" +
				"{\"operation\":\"sign\",\"digest\": SHA-256 in base64} gives {\"signature\": ASN.1 in base64}.",
			Args: cobra.ExactArgs(2), RunE: func(_ *cobra.Command, args []string) error {
				k, err := p.parts.Keys.Use(args[0], args[1])
				if err != nil {
					return err
				}
				return p.showKeys([]namedKey{{args[0], k.ID()}})
			},
		},
		&cobra.Command{Use: "ls [DIR]", Short: "List the keys of a directory", Args: cobra.MaximumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
			names, err := p.parts.Keys.List(append(args, ".")[0])
			if err != nil {
				return fault.New(fault.Unavailable, "%w", err)
			}
			keys := []namedKey{}
			for _, name := range names {
				k, err := p.parts.Keys.Public(name)
				if err != nil {
					return err
				}
				keys = append(keys, namedKey{name, k.ID()})
			}
			return p.showKeys(keys)
		}},
		&cobra.Command{Use: "public NAME", Short: "Print a public key", Args: cobra.ExactArgs(1), ValidArgsFunction: completeFiles, RunE: func(_ *cobra.Command, args []string) error {
			k, err := p.parts.Keys.Public(args[0])
			if err != nil {
				return err
			}
			if p.json() {
				p.out.json(map[string]string{"id": string(k.ID()), "pem": k.PEM()})
				return nil
			}
			p.out.text(k.PEM())
			return nil
		}},
	)
	return cmd
}

type namedKey struct {
	Name string      `json:"name"`
	ID   trust.KeyID `json:"id"`
}

func (p *program) showKeys(keys []namedKey) error {
	if p.json() {
		p.out.json(keys)
		return nil
	}
	for _, k := range keys {
		p.out.linef("%s  %s", k.ID, filepath.Base(k.Name))
	}
	return nil
}

// passphrase is asked for on the terminal, twice for a new key.
func (p *program) passphrase(name string, again bool) ([]byte, error) {
	if text, ok := os.LookupEnv(passphraseVariable); ok {
		return []byte(text), nil
	}
	in, ok := p.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, fault.New(fault.Invalid, "the passphrase of %s cannot be asked for: there is no terminal", name).
			Mend("set it:  %s=…", passphraseVariable)
	}
	ask := func(what string) ([]byte, error) {
		p.err.text(what)
		text, err := term.ReadPassword(int(in.Fd()))
		p.err.text("\n")
		if text == nil {
			text = []byte{} // an empty one, which is not none
		}
		return text, err
	}
	text, err := ask("passphrase of " + name + ": ")
	if err != nil || !again {
		return text, err
	}
	second, err := ask("the same again: ")
	if err == nil && !bytes.Equal(text, second) {
		err = fault.New(fault.Invalid, "the passphrases differ").Mend("run it again, and type the same twice")
	}
	return text, err
}

// signers opens private keys.
func (p *program) signers(keys []string) ([]crypto.Signer, error) {
	var out []crypto.Signer
	for _, key := range keys {
		s, err := p.parts.Keys.Signer(key, func() ([]byte, error) { return p.passphrase(key, false) })
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
