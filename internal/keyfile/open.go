package keyfile

import (
	"crypto"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// What a key's address begins with when the key is in no file.
const (
	programScheme = "exec:"
	pkcs11Scheme  = "pkcs11:"
	uriSuffix     = ".uri" // of a file that holds such an address
)

// Signer opens a private key: a file that ends in .key; one that ends in .uri and holds an
// address; or an address: exec:/program argument…, or pkcs11:… (RFC 7512). The passphrase
// is asked for only if the key is a file that has one.
func Signer(key string, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	if strings.HasSuffix(key, uriSuffix) {
		text, err := read(key)
		if err != nil {
			return nil, err
		}
		if key = strings.TrimSpace(string(text)); !hasScheme(key) {
			return nil, fault.New(fault.Invalid, "%q is not the address of a key", key).Mend("write one that begins with  exec:  or  pkcs11:")
		}
	}
	switch {
	case strings.HasPrefix(key, programScheme):
		return openProgram(strings.Fields(strings.TrimPrefix(key, programScheme)))
	case strings.HasPrefix(key, pkcs11Scheme):
		return openPKCS11(key)
	}
	return openFile(key, passphrase)
}

func hasScheme(key string) bool {
	return strings.HasPrefix(key, programScheme) || strings.HasPrefix(key, pkcs11Scheme)
}

// OfRole finds the key of a role in a directory: ROLE.key or ROLE.uri. It says false
// if there is none, also when there is no directory.
func OfRole(dir string, role trust.Role) (string, bool, error) {
	var found []string
	for _, suffix := range []string{privateSuffix, uriSuffix} {
		path := filepath.Join(dir, string(role)+suffix)
		_, err := os.Stat(path)
		if err == nil {
			found = append(found, path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", false, fault.New(fault.Unavailable, "the key of the role %s cannot be looked for: %w", role, err)
		}
	}
	if len(found) > 1 {
		return "", false, fault.New(fault.Conflict, "there are two keys of the role %s", role).At(dir).Mend("remove one of %s", strings.Join(found, ", "))
	}
	return strings.Join(found, ""), len(found) == 1, nil
}

// Use writes NAME.uri with the address of a key, and its public half to NAME.pub.
func Use(name, address string) (trust.PublicKey, error) {
	if !hasScheme(address) {
		return trust.PublicKey{}, fault.New(fault.Invalid, "%q is not the address of a key", address).Mend("write one that begins with  exec:  or  pkcs11:")
	}
	signer, err := Signer(address, nil)
	if err != nil {
		return trust.PublicKey{}, err
	}
	public, err := trust.NewPublicKey(signer.Public())
	if err != nil {
		return public, fault.New(fault.Invalid, "%w", err)
	}
	return public, writeBoth(
		file{name + publicSuffix, []byte(public.PEM()), 0o644},
		file{name + uriSuffix, []byte(address + "\n"), 0o600},
	)
}
