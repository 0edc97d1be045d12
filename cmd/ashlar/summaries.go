package main

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/keyfile"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/referrer"
	"github.com/ashlar-infra/ashlar/internal/summary"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// deployer is the key with which the server says what its policies verified: the one that
// it was given, or the one of the role in the directory of the keys, once there is one.
type deployer struct {
	cli.DeployerOptions

	mu     sync.Mutex
	signer crypto.Signer
}

// key opens the key; nil: there is none.
func (d *deployer) key() (crypto.Signer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.signer != nil {
		return d.signer, nil
	}
	key := d.Key
	if key == "" {
		if d.Dir == "" {
			return nil, nil
		}
		found, ok, err := keyfile.OfRole(d.Dir, trust.RoleDeployer)
		if err != nil || !ok {
			return nil, err
		}
		key = found
	}
	signer, err := keyfile.Signer(key, d.Passphrase)
	if err != nil {
		return nil, err
	}
	if _, err := trust.NewPublicKey(signer.Public()); err != nil {
		return nil, fault.New(fault.Invalid, "the deployer key cannot be used: %w", err).At(key)
	}
	d.signer = signer
	return signer, nil
}

// id names the key; empty: there is none.
func (d *deployer) id() (trust.KeyID, error) {
	signer, err := d.key()
	if err != nil || signer == nil {
		return "", err
	}
	k, err := trust.NewPublicKey(signer.Public())
	return k.ID(), err
}

func (s *server) newSummaries() *summary.Summaries {
	kind, _ := trust.KindOf("summary")
	return summary.New(summary.Config{
		Store: s.store, Log: s.log, Pause: pause, Key: s.deployer.key, Verifier: "ashlar://" + s.notary.Verifier().Name(),
		Facts: func(d digest.Digest) ([]byte, error) { return s.objects.ReadAll(d, policy.MaxFacts) },
		Attached: func(about digest.Digest) ([][]byte, error) {
			all, err := referrer.Of(s.objects, about) // ours are there; nobody else's count
			return referrer.Bundles(s.objects, all, kind.PredicateType), err
		},
		Record: s.logged,
		Attach: s.attachSummary,
	})
}

// logged puts a statement into the record, with an entry that tells of it.
func (s *server) logged(ctx context.Context, leaf []byte, e record.Entry) (trust.Logged, error) {
	e.Time, e.Actor = time.Now().UTC(), engine.Actor
	index, err := s.store.AppendStatements(ctx, [][]byte{leaf}, e)
	if err != nil {
		return trust.Logged{}, err
	}
	proof, err := s.notary.Prove(ctx, index)
	if err != nil {
		return trust.Logged{}, err
	}
	key, err := s.notary.Key()
	return trust.Logged{LogID: trust.LogID(s.notary.Verifier(), key), Body: leaf, Proof: proof}, err
}

// recordPushed has a statement recorded that somebody pushed without a proof, and keeps it with one.
func (s *server) recordPushed(ctx context.Context, about digest.Digest, b trust.Bundle, key trust.PublicKey) (digest.Digest, error) {
	if !s.objects.Has(about) {
		return "", fault.New(fault.NotFound, "what the statement is about is not stored: %s", about)
	}
	leaf, err := b.LogEntry(key)
	if err != nil {
		return "", err
	}
	logged, err := s.logged(ctx, leaf, record.Entry{Kind: "statement.logged", Reason: "it was pushed without a proof", Data: map[string]string{"key": string(key.ID())}})
	if err != nil {
		return "", err
	}
	b.Log = &logged
	text, err := b.Marshal()
	if err != nil {
		return "", err
	}
	unlock, err := s.objects.Share(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	_, err = referrer.Attach(s.objects, about, text)
	return digest.FromBytes(text), err
}

// attachSummary keeps it beside the release document and those artifacts that are still here.
func (s *server) attachSummary(ctx context.Context, release digest.Digest, artifacts []digest.Digest, bundle []byte) error {
	stored, err := s.store.Release(ctx, release)
	if err != nil {
		return err
	}
	unlock, err := s.objects.Share(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.objects.PutVerified(bytes.NewReader(stored.Doc), release, int64(len(stored.Doc))); err != nil {
		return err
	}
	all := []referrer.Statement{{About: release, Bundle: bundle}}
	for _, d := range artifacts {
		if s.objects.Has(d) {
			all = append(all, referrer.Statement{About: d, Bundle: bundle})
		}
	}
	_, err = referrer.AttachAll(s.objects, all)
	return err
}

// checkDeployer says whether the server's own statements are made, and believed. Having no
// key for them is no trouble.
func (s *server) checkDeployer() api.Check {
	c := api.Check{Name: "deployer key", Fix: "see why:  ashlar key ls  and  ashlar trust show"}
	id, err := s.deployer.id()
	chain, trustErr := s.trust.Chain()
	switch trouble := s.summaries.Trouble(); {
	case err != nil:
		c.Detail, c.Fix = fault.Of(err).What, fault.Of(err).Fix
	case id == "":
		c.OK, c.Detail = true, "none: verdicts of policies are in the record, and not signed as verification summaries"
	case trouble != "":
		c.Detail = "no verification summary can be made: " + trouble
	case trustErr != nil || chain == nil || !chain.Latest().Has(trust.RoleDeployer, id):
		c.Detail = fmt.Sprintf("%.12s signs verification summaries, and the trust root does not know it as a deployer's", id)
		c.Fix = "ashlar trust rotate FILE --add deployer=KEY  and  ashlar trust install FILE"
	default:
		c.OK, c.Detail = true, fmt.Sprintf("%.12s signs verification summaries", id)
	}
	return c
}
