// Package keyfile keeps signing keys in files, as cosign does: an ECDSA key on
// P-256, in PKCS #8, encrypted with a passphrase (scrypt and NaCl's secretbox), in
// PEM; the public key beside it. So cosign can use our keys, and we its.
//
// What it gives is a crypto.Signer. Keys in hardware or at a cloud's key service are
// that too, and would be opened beside this package.
package keyfile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// pemTypes are what cosign has called such keys; the first is written.
var pemTypes = []string{"ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"}

const (
	privateSuffix = ".key"
	publicSuffix  = ".pub"
	maxKeyFile    = 64 << 10
)

// New makes a key: NAME.key, mode 0600, and NAME.pub. There must be none of the name.
func New(name string, passphrase []byte) (trust.PublicKey, error) {
	name = strings.TrimSuffix(name, privateSuffix)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return trust.PublicKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return trust.PublicKey{}, err
	}
	sealed, err := encrypted.Encrypt(der, passphrase)
	if err != nil {
		return trust.PublicKey{}, err
	}
	public, err := trust.NewPublicKey(key.Public())
	if err != nil {
		return public, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemTypes[0], Bytes: sealed})
	if err := write(name+privateSuffix, text, 0o600); err != nil {
		return public, err
	}
	return public, write(name+publicSuffix, []byte(public.PEM()), 0o644)
}

func write(path string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Conflict, "there is a key of that name").At(path).Mend("choose another name: a key is never overwritten")
	}
	if err != nil {
		return fault.New(fault.Unavailable, "the key cannot be written: %w", err)
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// Open reads a private key.
func Open(path string, passphrase []byte) (crypto.Signer, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || !slices.Contains(pemTypes, block.Type) {
		return nil, fault.New(fault.Invalid, "it is not an encrypted private key").At(path).Mend("name the file that ends in .key; ashlar key new makes one")
	}
	der, err := encrypted.Decrypt(block.Bytes, passphrase)
	if err != nil {
		return nil, fault.New(fault.Refused, "the passphrase does not open the key").At(path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the private key is not readable: %w", err).At(path)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fault.New(fault.Invalid, "the key is not an ECDSA key on the curve P-256").At(path).Mend("make one:  ashlar key new NAME")
	}
	return key, nil
}

// Public reads a public key from NAME.pub, however the key is named.
func Public(path string) (trust.PublicKey, error) {
	if strings.HasSuffix(path, privateSuffix) {
		path = strings.TrimSuffix(path, privateSuffix) + publicSuffix
	} else if !strings.HasSuffix(path, publicSuffix) {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			path += publicSuffix
		}
	}
	text, err := read(path)
	if err != nil {
		return trust.PublicKey{}, err
	}
	k, err := trust.ParsePublicKey(text)
	if err != nil {
		return k, fault.New(fault.Invalid, "%w", err).At(path)
	}
	return k, nil
}

// List gives the names of the keys of a directory.
func List(dir string) ([]string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+publicSuffix))
	for i, n := range names {
		names[i] = strings.TrimSuffix(n, publicSuffix)
	}
	return names, err
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxKeyFile {
		return nil, fault.New(fault.Invalid, "the key has %d bytes; the limit is %d", info.Size(), maxKeyFile).At(path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "the key cannot be read: %w", err)
	}
	return text, nil
}
