package keyfile

import (
	"crypto"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// PKCS11Tool speaks to tokens: OpenSC's program, so that no library of a vendor is
// loaded into ours. Debian's package is opensc.
const PKCS11Tool = "pkcs11-tool"

// token is what a PKCS #11 address names (RFC 7512, section 2.3), as far as it is
// needed to find one key.
type token struct {
	module, label, object, id string
	pinFile                   string // empty: the token asks for none, or has a keypad
}

// parsePKCS11 reads pkcs11:token=LABEL;object=NAME;id=%01?module-path=/…&pin-source=/…
func parsePKCS11(address string) (token, error) {
	var t token
	path, query, _ := strings.Cut(strings.TrimPrefix(address, pkcs11Scheme), "?")
	parts := strings.Split(path, ";")
	if query != "" {
		parts = append(parts, strings.Split(query, "&")...)
	}
	for _, part := range parts {
		name, escaped, _ := strings.Cut(part, "=")
		value, err := url.PathUnescape(escaped)
		if err != nil || value == "" {
			return t, fault.New(fault.Invalid, "%q in the address of the key cannot be read", part).Mend("write  pkcs11:token=LABEL;object=NAME?module-path=FILE&pin-source=FILE")
		}
		switch name {
		case "token":
			t.label = value
		case "object":
			t.object = value
		case "id":
			t.id = hex.EncodeToString([]byte(value))
		case "module-path":
			t.module = value
		case "pin-source":
			t.pinFile = strings.TrimPrefix(value, "file:")
		case "type":
		default:
			return t, fault.New(fault.Invalid, "%q in the address of the key is not known", name).Detail("known: token, object, id, type, module-path, pin-source")
		}
	}
	if !filepath.IsAbs(t.module) || t.object == "" && t.id == "" {
		return t, fault.New(fault.Invalid, "the address names no module, or no key").Mend("write  pkcs11:token=LABEL;object=NAME?module-path=/usr/lib/…/module.so&pin-source=FILE")
	}
	return t, nil
}

// args are those that find the key.
func (t token) args(more ...string) []string {
	args := append([]string{"--module", t.module}, more...)
	for _, x := range []struct{ flag, value string }{{"--token-label", t.label}, {"--label", t.object}, {"--id", t.id}} {
		if x.value != "" {
			args = append(args, x.flag, x.value)
		}
	}
	return args
}

// openPKCS11 uses a key in a token: a smart card, a hardware module.
func openPKCS11(address string) (crypto.Signer, error) {
	t, err := parsePKCS11(address)
	if err != nil {
		return nil, err
	}
	der, err := runProgram(nil, PKCS11Tool, t.args("--read-object", "--type", "pubkey")...)
	if err != nil {
		return nil, fault.Of(err).Mend("install OpenSC (apt-get install opensc), and see that the token is there:  %s --module %s --list-objects", PKCS11Tool, t.module)
	}
	return newSigner(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), t.sign)
}

// sign has the token sign. The PIN goes by the environment of the program, not by its
// arguments, which everybody can read.
func (t token) sign(digest []byte) ([]byte, error) {
	in, err := os.CreateTemp("", "ashlar-digest-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(in.Name()) //nolint:errcheck // a digest is no secret
	if _, err := in.Write(digest); err != nil {
		return nil, err
	}
	if err := in.Close(); err != nil {
		return nil, err
	}
	args := t.args("--sign", "--mechanism", "ECDSA", "--signature-format", "openssl", "--input-file", in.Name())
	if t.pinFile != "" {
		pin, err := read(t.pinFile)
		if err != nil {
			return nil, err
		}
		return runProgramWith([]string{pinVariable + "=" + strings.TrimSpace(string(pin))}, nil, PKCS11Tool, append(args, "--login", "--pin", "env:"+pinVariable)...)
	}
	return runProgram(nil, PKCS11Tool, args...)
}

const pinVariable = "ASHLAR_PKCS11_PIN"
