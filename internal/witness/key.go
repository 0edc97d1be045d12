package witness

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

const keyFile = "witness.key"

// Init makes a witness of a name in an empty directory and gives its public key.
func Init(dir, name string) (string, error) {
	if !record.ValidOrigin(name) {
		return "", fault.New(fault.Invalid, "%q cannot name a witness: it has no spaces and no plus", name).Mend("write  --name witness.example/1")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fault.New(fault.Unavailable, "%w", err).At(dir)
	}
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return "", err
	}
	w := record.WitnessFromSeed(name, seed[:])
	f, err := os.OpenFile(filepath.Join(dir, keyFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return "", fault.New(fault.Conflict, "there is a witness already").At(dir).Mend("choose another directory: a witness never changes its key")
	}
	if err != nil {
		return "", fault.New(fault.Unavailable, "%w", err).At(dir)
	}
	_, err = f.WriteString(w.PrivateKey() + "\n")
	return w.PublicKey(), errors.Join(err, f.Sync(), f.Close())
}

// LoadKey reads the key that Init made.
func LoadKey(dir string) (*record.Witness, error) {
	path := filepath.Join(dir, keyFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "the key of the witness cannot be read: %w", err).At(path).Mend("make one:  ashlar-witness init --dir %s --name NAME", dir)
	}
	w, err := record.NewWitness(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, fault.New(fault.Refused, "%w", err).At(path)
	}
	return w, nil
}
