// Package keyfile gives signing keys, as crypto.Signers, wherever they are kept.
//
// In files as cosign has them: an ECDSA key on P-256, in PKCS #8, encrypted with a
// passphrase (scrypt and NaCl's secretbox), in PEM; the public key beside it. So cosign
// can use our keys, and we its. Also without a passphrase, where whoever makes the key
// says so and nobody else may read the file: scrypt takes a quarter of a second, which
// an unattended deploy need not spend.
//
// In tokens (PKCS #11), and behind any program that signs: see [Signer]. Whatever else
// there is, a cloud's key service say, is a program of a few lines.
package keyfile

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// pemTypes are what cosign has called such keys; the first is written.
var pemTypes = []string{"ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"}

// plainType is the type of a key without a passphrase: PKCS #8.
const plainType = "PRIVATE KEY"

const (
	privateSuffix = ".key"
	publicSuffix  = ".pub"
	maxKeyFile    = 64 << 10
)

// New makes a key: NAME.key, mode 0600, and NAME.pub. There must be none of the name.
// A nil passphrase: it has none. An empty one is refused: it would look as if it had one.
func New(name string, passphrase []byte) (trust.PublicKey, error) {
	name = strings.TrimSuffix(name, privateSuffix)
	if passphrase != nil && len(passphrase) == 0 {
		return trust.PublicKey{}, fault.New(fault.Invalid, "the passphrase of the new key is empty").At(name + privateSuffix).
			Mend("choose one, or say that there is none:  ashlar key new --no-passphrase")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return trust.PublicKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return trust.PublicKey{}, err
	}
	block := &pem.Block{Type: plainType, Bytes: der}
	if passphrase != nil {
		block.Type = pemTypes[0]
		if block.Bytes, err = encrypted.Encrypt(der, passphrase); err != nil {
			return trust.PublicKey{}, err
		}
	}
	public, err := trust.NewPublicKey(key.Public())
	if err != nil {
		return public, err
	}
	return public, writeBoth(
		file{name + publicSuffix, []byte(public.PEM()), 0o644},
		file{name + privateSuffix, pem.EncodeToMemory(block), 0o600},
	)
}

// file is one half of a key, as it is kept.
type file struct {
	path string
	text []byte
	mode os.FileMode
}

// writeBoth writes both halves, or none.
func writeBoth(public, private file) error {
	if err := write(public); err != nil {
		return err
	}
	if err := write(private); err != nil {
		return errors.Join(err, os.Remove(public.path))
	}
	return durable.SyncDir(filepath.Dir(private.path))
}

// write makes a file that is not there yet. After an error it is not there.
func write(half file) error {
	f, err := os.OpenFile(half.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, half.mode)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Conflict, "there is a key of that name").At(half.path).Mend("choose another name: a key is never overwritten")
	}
	if err != nil {
		return fault.New(fault.Unavailable, "the key cannot be written: %w", err)
	}
	_, err = f.Write(half.text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fault.New(fault.Unavailable, "the key cannot be written: %w", err), os.Remove(half.path))
	}
	return nil
}

// openFile reads a private key.
func openFile(path string, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != plainType && !slices.Contains(pemTypes, block.Type) {
		return nil, fault.New(fault.Invalid, "it is not a private key").At(path).Mend("name the file that ends in .key; ashlar key new makes one")
	}
	der := block.Bytes
	if block.Type == plainType {
		err = private(path)
	} else {
		der, err = decrypt(path, der, passphrase)
	}
	if err != nil {
		return nil, err
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

func decrypt(path string, sealed []byte, passphrase func() ([]byte, error)) ([]byte, error) {
	pass, err := passphrase()
	if err != nil {
		return nil, err
	}
	der, err := encrypted.Decrypt(sealed, pass)
	if err != nil {
		return nil, fault.New(fault.Refused, "the passphrase does not open the key").At(path)
	}
	return der, nil
}

// private says whether only its owner may read a key that has no passphrase.
func private(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return fault.New(fault.Refused, "the key has no passphrase, and others may read it: its mode is %04o", info.Mode().Perm()).At(path).Mend("chmod 600 %s, if nobody has it yet", path)
	}
	return err
}

// Public reads a public key from NAME.pub, however the key is named.
func Public(path string) (trust.PublicKey, error) {
	if stem, ok := strings.CutSuffix(strings.TrimSuffix(path, privateSuffix), uriSuffix); ok || stem != path {
		path = stem + publicSuffix
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

// List gives the names of the keys of a directory; none if it is not there.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if stem, ok := strings.CutSuffix(e.Name(), publicSuffix); ok && stem != "" {
			names = append(names, filepath.Join(dir, stem))
		}
	}
	return names, err
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "the key cannot be read: %w", err).Mend("ashlar key ls  shows those that are here")
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the key cannot be read: %w", err)
	}
	if len(text) > maxKeyFile {
		return nil, fault.New(fault.Invalid, "the key has more than %d bytes", maxKeyFile).At(path).Mend("name the file that  ashlar key new  made")
	}
	return text, nil
}
