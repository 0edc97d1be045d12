package notary

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// The files of the state directory that tell which log it is, and what it last was.
const (
	keyFile        = "log.key"        // private, mode 0600
	publicFile     = "log.pub"        // the key as auditors know it
	checkpointFile = "log.checkpoint" // the last that was signed
	retiredDir     = "log.retired"    // the same of logs that ended, without private keys
)

// PublicKey reads the public key of the log of a state directory.
func PublicKey(dir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, publicFile))
	if err != nil {
		return "", fault.New(fault.NotFound, "the key of the log cannot be read: %w", err).
			At(filepath.Join(dir, publicFile)).Mend("name the log's key:  --log-key KEY  or start the server, which makes it")
	}
	return strings.TrimSpace(string(raw)), nil
}

// loadKey reads the log's key, or makes it when there is none.
func loadKey(dir, host string) (note.Signer, note.Verifier, error) {
	path := filepath.Join(dir, keyFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newKey(dir, host)
	}
	if err != nil {
		return nil, nil, fault.New(fault.Unavailable, "the key of the log cannot be read: %w", err).At(path)
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, nil, fault.New(fault.Refused, "the key of the log is damaged: %w", err).At(path).
			Mend("put the file back from a backup, or begin a new log:  ashlar log renew --reason WHY")
	}
	public, err := PublicKey(dir)
	if err != nil {
		return nil, nil, err
	}
	verifier, err := note.NewVerifier(public)
	if err != nil || verifier.KeyHash() != signer.KeyHash() || verifier.Name() != signer.Name() {
		return nil, nil, fault.New(fault.Refused, "%s does not belong to %s", publicFile, keyFile).At(filepath.Join(dir, publicFile)).
			Mend("put both files back from the same backup, or begin a new log:  ashlar log renew --reason WHY")
	}
	return signer, verifier, nil
}

// newKey makes a log: its name is a number that no other has, and the host's. It is
// the name of a host in form, since Sigstore's verifiers take it from a URL.
func newKey(dir, host string) (note.Signer, note.Verifier, error) {
	var unique [8]byte
	if _, err := rand.Read(unique[:]); err != nil {
		return nil, nil, err
	}
	if host == "" || strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		host = "localhost"
	}
	private, public, err := note.GenerateKey(rand.Reader, "ashlar-"+hex.EncodeToString(unique[:])+"."+strings.ToLower(host))
	if err != nil {
		return nil, nil, fmt.Errorf("make the key of the log: %w", err)
	}
	// The public one first: a key without it would look damaged.
	if err = durable.Replace(filepath.Join(dir, publicFile), []byte(public+"\n"), 0o644); err == nil {
		err = durable.Replace(filepath.Join(dir, keyFile), []byte(private+"\n"), 0o600)
	}
	if err != nil {
		return nil, nil, fault.New(fault.Unavailable, "the key of the log cannot be written: %w", err).At(filepath.Join(dir, keyFile))
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		return nil, nil, err
	}
	verifier, err := note.NewVerifier(public)
	return signer, verifier, err
}

// retire puts the files of a log that ended aside. Its private key is removed, so
// that nobody speaks for it any more.
func retire(dir string) error {
	public, err := os.ReadFile(filepath.Join(dir, publicFile))
	if errors.Is(err, fs.ErrNotExist) {
		public, err = []byte("unknown"), nil
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(public)
	aside := filepath.Join(dir, retiredDir, hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(aside, 0o755); err != nil {
		return err
	}
	for _, name := range []string{publicFile, checkpointFile} {
		err := os.Rename(filepath.Join(dir, name), filepath.Join(aside, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(dir)
}
