package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// StatementParts are the statements that are kept beside artifacts.
type StatementParts struct {
	// Predicates gives what a builder says of an artifact, by kind of statement.
	Predicates func(ctx context.Context, dir string, c BuiltComponent) (map[string][]byte, error)
	// Attached lists the statements about an artifact.
	Attached func(dir string, about digest.Digest) ([]AttachedStatement, error)
	// Attach keeps bundles beside what they are about, durably.
	Attach func(ctx context.Context, dir string, all []AttachStatement) error
}

// AttachedStatement is a statement that is there, as its referrer describes it.
type AttachedStatement struct {
	PredicateType string        `json:"predicateType"`
	Key           trust.KeyID   `json:"key,omitempty"`
	Bundle        digest.Digest `json:"bundle"`
}

// AttachStatement is a bundle to be kept.
type AttachStatement struct {
	About    digest.Digest
	Bundle   []byte
	Document []byte // what it is about, if that need not be stored yet: a release document
}

// keysVariable names the environment variable with the directory of the keys.
const keysVariable = "ASHLAR_KEYS"

// keysDir is where the keys are that are named after their roles.
func keysDir() (string, error) {
	if dir := os.Getenv(keysVariable); dir != "" {
		return dir, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fault.New(fault.NotFound, "the directory of the keys cannot be found: %w", err).Mend("name it:  %s=DIR", keysVariable)
	}
	return filepath.Join(dir, "ashlar", "keys"), nil
}

// keyring are the keys of roles, each opened once.
type keyring map[trust.Role]func() (crypto.Signer, error)

// keyring finds the keys of roles, and begins to open them: that takes scrypt a
// while, in which others build. A role that has none is not in it.
func (p *program) keyring(roles ...trust.Role) (keyring, error) {
	dir, err := keysDir()
	if err != nil {
		return nil, nil // nowhere to look: nobody signs
	}
	ring := keyring{}
	for _, role := range roles {
		key, ok, err := p.parts.Keys.OfRole(dir, role)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		// A passphrase is asked for here, before anything else is shown.
		asked, opened := make(chan error, 1), make(chan struct{})
		var signer crypto.Signer
		var failed error
		go func() {
			defer close(opened)
			signer, failed = p.parts.Keys.Signer(key, func() ([]byte, error) {
				pass, err := p.passphrase(key, false)
				asked <- err
				return pass, err
			})
		}()
		select {
		case <-asked:
		case <-opened:
		}
		ring[role] = func() (crypto.Signer, error) {
			<-opened
			return signer, failed
		}
	}
	return ring, nil
}

// signerOf opens the key of a role, which has to be there.
func (p *program) signerOf(role trust.Role) (crypto.Signer, error) {
	ring, err := p.keyring(role)
	if err != nil {
		return nil, err
	}
	open, ok := ring[role]
	if !ok {
		dir, err := keysDir()
		if err != nil {
			return nil, err
		}
		return nil, fault.New(fault.NotFound, "there is no key of the role %s", role).At(dir).
			Mend("make one:  ashlar key new %s  or name the directory:  %s=DIR", filepath.Join(dir, string(role)), keysVariable)
	}
	return open()
}

// signedReport says what a command signed.
type signedReport struct {
	Artifacts  int `json:"artifacts"`
	Statements int `json:"statements"` // made now; what was signed before is not signed again
}

// sign makes, records and attaches what the keys say of what was built.
func (p *program) sign(ctx context.Context, app string, built Built, ring keyring) (signedReport, error) {
	dir, err := p.stateDir()
	if err != nil {
		return signedReport{}, err
	}
	parts := toSign(built)
	made := make([][]signed, len(parts))
	var g errgroup.Group
	for i, c := range parts {
		g.Go(func() (err error) {
			made[i], err = p.signComponent(ctx, dir, app, c, ring)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return signedReport{}, err
	}
	all := slices.Concat(made...)
	if len(all) > 0 {
		err = p.keep(ctx, dir, all)
	}
	return signedReport{len(parts), len(all)}, err
}

// toSign are the artifacts of a build, each once: those for other platforms too, and the
// indexes that name them, which have no ledger.
func toSign(built Built) []BuiltComponent {
	var parts []BuiltComponent
	add := func(c BuiltComponent) {
		if c.Artifact != "" && !slices.ContainsFunc(parts, func(other BuiltComponent) bool { return other.Artifact == c.Artifact }) {
			parts = append(parts, c)
		}
	}
	for _, c := range built.Components {
		add(c)
		for _, x := range c.Platforms {
			add(BuiltComponent{Name: c.Name, Artifact: x.Artifact, Ledger: x.Ledger})
		}
		add(BuiltComponent{Name: c.Name, Artifact: c.Index})
	}
	return parts
}

// signed is a statement that is not recorded yet.
type signed struct {
	about  digest.Digest
	bundle trust.Bundle
	key    trust.PublicKey
}

// spoken are the kinds of statements that each role makes of what was built.
var spoken = []struct {
	role  trust.Role
	kinds []string
}{{trust.RoleRelease, []string{"signature"}}, {trust.RoleBuilder, []string{"provenance", "spdx", "cyclonedx"}}}

// signComponent signs what was not signed by the same key before.
func (p *program) signComponent(ctx context.Context, dir, app string, c BuiltComponent, ring keyring) ([]signed, error) {
	have, err := p.parts.Statements.Attached(dir, c.Artifact)
	if err != nil {
		return nil, err
	}
	var out []signed
	for _, s := range spoken {
		open, ok := ring[s.role]
		if !ok || s.role == trust.RoleBuilder && c.Ledger == "" {
			continue // what is said of an index is said of the artifacts that it names
		}
		signer, err := open()
		if err != nil {
			return nil, err
		}
		key, err := trust.NewPublicKey(signer.Public())
		if err != nil {
			return nil, fault.New(fault.Invalid, "the key of the role %s cannot be used: %w", s.role, err).Mend("make one:  ashlar key new NAME")
		}
		missing := notSaid(have, s.kinds, key.ID())
		if len(missing) == 0 {
			continue
		}
		predicates := map[string][]byte{"signature": nil}
		if s.role == trust.RoleBuilder {
			if predicates, err = p.parts.Statements.Predicates(ctx, dir, c); err != nil {
				return nil, err
			}
		}
		for _, kind := range missing {
			predicate, ok := predicates[kind.Name]
			if !ok {
				continue
			}
			statement, err := trust.NewStatement(kind, app+"/"+c.Name, c.Artifact, predicate)
			if err != nil {
				return nil, fault.New(fault.Internal, "%w", err)
			}
			b, err := trust.Sign(statement, signer, rand.Reader)
			if err != nil {
				return nil, err
			}
			out = append(out, signed{c.Artifact, b, key})
		}
	}
	return out, nil
}

// notSaid are the kinds that the key has not said.
func notSaid(have []AttachedStatement, names []string, key trust.KeyID) []trust.Kind {
	var out []trust.Kind
	for _, name := range names {
		k, _ := trust.KindOf(name)
		if !slices.ContainsFunc(have, func(a AttachedStatement) bool { return a.PredicateType == k.PredicateType && a.Key == key }) {
			out = append(out, k)
		}
	}
	return out
}

// keep has the statements recorded, in one step, and attaches them with their proofs.
func (p *program) keep(ctx context.Context, dir string, made []signed) error {
	if err := p.logSigned(ctx, dir, made); err != nil {
		return err
	}
	var all []AttachStatement
	for _, m := range made {
		text, err := m.bundle.Marshal()
		if err != nil {
			return err
		}
		all = append(all, AttachStatement{About: m.about, Bundle: text})
	}
	return p.parts.Statements.Attach(ctx, dir, all)
}

// logSigned has the server record statements and puts the proofs into their bundles.
func (p *program) logSigned(ctx context.Context, dir string, made []signed) error {
	leaves := make([][]byte, len(made))
	for i, m := range made {
		leaf, err := m.bundle.LogEntry(m.key)
		if err != nil {
			return err
		}
		leaves[i] = leaf
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	texts, err := c.LogStatements(ctx, leaves)
	if err != nil {
		return err
	}
	logKey, err := p.parts.Log.Key(dir)
	if err != nil {
		return err
	}
	v, err := note.NewVerifier(logKey)
	if err != nil {
		return fault.New(fault.Invalid, "the key of the log is not one: %w", err)
	}
	for i, text := range texts {
		proof, err := record.ParseInclusionProof(text)
		if err != nil {
			return fault.New(fault.Internal, "the server's proof cannot be read: %w", err)
		}
		if _, err := proof.Check(v); err != nil {
			return err
		}
		if !bytes.Equal(proof.Leaf, leaves[i]) {
			return fault.New(fault.Refused, "the server's proof is of something else than the statement")
		}
		made[i].bundle.Log = &trust.Logged{LogID: trust.LogID(v, logKey), Body: leaves[i], Proof: proof}
	}
	return nil
}
