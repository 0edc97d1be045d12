package keyfile

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

const (
	programTime = time.Minute // somebody may have to touch a device
	maxAnswer   = 64 << 10    // bytes
)

// programRequest is what a signing program reads from its standard input: one JSON value.
// It answers with one on its standard output, and its exit status is 0.
type programRequest struct {
	Operation string `json:"operation"`        // "public-key" or "sign"
	Digest    []byte `json:"digest,omitempty"` // SHA-256 of what is signed; in JSON base64
}

type programAnswer struct {
	PublicKey string `json:"publicKey,omitempty"` // PEM, PKIX
	Signature []byte `json:"signature,omitempty"` // ASN.1; in JSON base64
}

// signer is a key that others hold: a program of anybody's, or pkcs11-tool.
type signer struct {
	public *ecdsa.PublicKey
	sign   func(digest []byte) ([]byte, error) // ASN.1
}

// Public is crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign is crypto.Signer. What comes back is checked: a wrong key would otherwise be
// noticed by those who verify alone.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, errors.New("keyfile: only SHA-256 is signed")
	}
	sig, err := s.sign(digest)
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(s.public, digest, sig) {
		return nil, fault.New(fault.Refused, "what came back is not a signature by the key that was asked for")
	}
	return sig, nil
}

func newSigner(pem []byte, sign func([]byte) ([]byte, error)) (*signer, error) {
	public, err := trust.ParsePublicKey(pem)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	return &signer{public.ECDSA(), sign}, nil
}

// openProgram uses a program that signs: of a cloud's key service, for example.
func openProgram(argv []string) (crypto.Signer, error) {
	if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
		return nil, fault.New(fault.Invalid, "the signing program has no absolute path").Mend("write  exec:/path/of/program")
	}
	ask := func(q programRequest) (programAnswer, error) {
		var a programAnswer
		in, err := json.Marshal(q)
		if err != nil {
			return a, err
		}
		out, err := runProgram(in, argv[0], argv[1:]...)
		if err != nil {
			return a, err
		}
		if err := json.Unmarshal(out, &a); err != nil {
			return a, fault.New(fault.Invalid, "the answer of the signing program cannot be read: %w", err).At(argv[0])
		}
		return a, nil
	}
	a, err := ask(programRequest{Operation: "public-key"})
	if err != nil {
		return nil, err
	}
	return newSigner([]byte(a.PublicKey), func(digest []byte) ([]byte, error) {
		a, err := ask(programRequest{"sign", digest})
		return a.Signature, err
	})
}

// runProgram runs a program with an input and gives its output.
func runProgram(in []byte, name string, args ...string) ([]byte, error) {
	return runProgramWith(nil, in, name, args...)
}

func runProgramWith(environ []string, in []byte, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), programTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = append(cmd.Environ(), environ...)
	var out, said limited
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		f := fault.New(fault.Refused, "the program that holds the key failed: %w", err).At(name)
		for _, line := range bytes.Split(bytes.TrimSpace(said.Bytes()), []byte("\n")) {
			f.Detail("| " + string(line))
		}
		return nil, f
	}
	return out.Bytes(), nil
}

// limited keeps the first bytes of what is written.
type limited struct{ bytes.Buffer }

// Write is io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if room := maxAnswer - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
