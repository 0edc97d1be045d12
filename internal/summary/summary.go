// Package summary has the server say, signed, what its policies verified: a SLSA
// verification summary (https://slsa.dev/spec/v1.0/verification_summary) for each verdict
// on a release, and another when the rollout that it admitted has ended live.
//
// The record is the outbox: what is to be said follows from its entries, in the order in
// which they stand, and a summary is never in a rollout's way. Each is recorded and kept
// beside the release document like everybody's statements. One that passed is also about the
// artifacts; one that failed is not, since whoever looks only whether there is a summary
// of an image would take it for the other.
//
// It decides nothing. Without a key nothing is said, and what was judged meanwhile stays
// unsaid. Start at [Summaries.Run]; TestSummaries shows what is said of what.
package summary

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// Store is the record, and how far it was read.
type Store interface {
	// Entries gives the entries with from <= Index < to of an environment (the zero Key:
	// all), in order.
	Entries(ctx context.Context, env rollout.Key, from, to int64) ([]record.Entry, error)
	// Head gives the number of entries.
	Head(ctx context.Context) (size int64, root tlog.Hash, err error)
	// Appended gives a channel that the next change closes.
	Appended() <-chan struct{}
	// Told gives, by reader, the first entry that it has not read yet. The zero Key is no
	// environment, whose readers are webhooks.
	Told(ctx context.Context, env rollout.Key) (map[string]int64, error)
	// Tell sets it, and appends entries.
	Tell(ctx context.Context, env rollout.Key, reader string, next int64, entries []record.Entry) error
}

// Config is what Summaries are made of.
type Config struct {
	Store    Store
	Log      *slog.Logger
	Verifier string                              // URI of this server
	Key      func() (crypto.Signer, error)       // of the role deployer; nil: there is none
	Facts    func(digest.Digest) ([]byte, error) // that a verdict names
	// Attached gives the summaries beside something, as bundles.
	Attached func(about digest.Digest) ([][]byte, error)
	// Record has a statement recorded, with an entry that tells of it, and gives its proof.
	Record func(ctx context.Context, leaf []byte, e record.Entry) (trust.Logged, error)
	// Attach keeps a bundle beside a release document and artifacts.
	Attach func(ctx context.Context, release digest.Digest, artifacts []digest.Digest, bundle []byte) error
	// Pause returns after d, or with the error of ctx.
	Pause func(ctx context.Context, d time.Duration) error
}

// Summaries says what was verified. See Run.
type Summaries struct {
	Config

	begun      bool                         // next and kept are known
	next, kept int64                        // first entry that was not read; the same as the store has it
	admitted   map[rollout.Key]record.Entry // the last verdict that let something in, of those that were read

	mu      sync.Mutex
	trouble string
}

// reader is how the store calls us.
const reader = "summaries"

const (
	atOnce  = 5000             // entries that are read at a time
	unkept  = 10_000           // so many that matter to nobody are read again at most
	tryNext = 30 * time.Second // after what could not be done
)

// New makes Summaries. Nothing happens before Run.
func New(c Config) *Summaries { return &Summaries{Config: c, admitted: map[rollout.Key]record.Entry{}} }

// Trouble says why the last summary could not be made; empty: it could.
func (s *Summaries) Trouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// Run reads the record and says what was verified, until ctx ends. What cannot be done is
// tried again.
func (s *Summaries) Run(ctx context.Context) error {
	for {
		grown := s.Store.Appended() // before looking, so that nothing is missed
		err := s.Look(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.mu.Lock()
		s.trouble = ""
		if err != nil {
			s.trouble = fault.Of(err).What
		}
		s.mu.Unlock()
		if err != nil {
			s.Log.Error("a verification summary cannot be made; it is tried again", "err", err)
			if err := s.Pause(ctx, tryNext); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grown:
		}
	}
}

// Look says what is to be said now.
func (s *Summaries) Look(ctx context.Context) error {
	size, _, err := s.Store.Head(ctx)
	if err != nil {
		return err
	}
	if !s.begun {
		told, err := s.Store.Told(ctx, rollout.Key{})
		if err != nil {
			return err
		}
		s.next, s.kept, s.begun = told[reader], told[reader], true
	}
	for s.next < size {
		till := min(size, s.next+atOnce)
		entries, err := s.Store.Entries(ctx, rollout.Key{}, s.next, till)
		if err != nil {
			return err
		}
		for _, e := range entries {
			said, err := s.entry(ctx, e)
			if err != nil {
				return fmt.Errorf("the verdict of entry %d: %w", e.Index, err)
			}
			if s.next = e.Index + 1; said {
				if err := s.keep(ctx); err != nil {
					return err
				}
			}
		}
		if s.next = till; s.next-s.kept > unkept {
			if err := s.keep(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep has the store remember how far the record was read.
func (s *Summaries) keep(ctx context.Context) error {
	s.kept = s.next
	return s.Store.Tell(ctx, rollout.Key{}, reader, s.next, nil)
}

// entry says what follows from one entry, if something does.
func (s *Summaries) entry(ctx context.Context, e record.Entry) (said bool, err error) {
	switch e.Kind {
	case "admission.admitted":
		s.admitted[rollout.Key{App: e.App, Env: e.Env}] = e
		return true, s.say(ctx, e, time.Time{})
	case "admission.refused":
		return true, s.say(ctx, e, time.Time{})
	case "rollout.live":
		verdict, err := s.verdictOn(ctx, e)
		if err != nil || verdict.Kind == "" {
			return false, err
		}
		return true, s.say(ctx, verdict, e.Time.UTC())
	}
	return false, nil
}

// verdictOn finds the verdict by which a rollout was let in, also when it was read by a
// server before; one without a Kind: nobody judged.
func (s *Summaries) verdictOn(ctx context.Context, live record.Entry) (record.Entry, error) {
	key := rollout.Key{App: live.App, Env: live.Env}
	if last, ok := s.admitted[key]; ok {
		if last.Rollout == live.Rollout && last.Release == live.Release {
			return last, nil
		}
		return record.Entry{}, nil
	}
	for till := live.Index; till > 0; till -= atOnce {
		entries, err := s.Store.Entries(ctx, key, max(0, till-atOnce), till)
		if err != nil {
			return record.Entry{}, err
		}
		for i := len(entries) - 1; i >= 0; i-- {
			switch e := entries[i]; {
			case e.Rollout == live.Rollout && e.Kind == "admission.admitted" && e.Release == live.Release:
				return e, nil
			case e.Rollout == live.Rollout && e.Kind == "rollout.begun":
				return record.Entry{}, nil
			}
		}
	}
	return record.Entry{}, nil
}

// say signs, records and keeps the summary of a verdict; live is when its rollout ended
// so. What cannot be said for good, or was said before, is passed over.
func (s *Summaries) say(ctx context.Context, e record.Entry, live time.Time) error {
	signer, err := s.Key()
	if err != nil || signer == nil {
		return err
	}
	raw, err := s.Facts(digest.Digest(e.Data["facts"]))
	if errors.Is(err, fs.ErrNotExist) {
		s.Log.Warn("a verdict is not signed: what it was judged by is gone", "entry", e.Index, "facts", e.Data["facts"])
		return nil
	}
	if err != nil {
		return err
	}
	f, err := policy.ParseFacts(e.Data["facts"], raw)
	if err != nil {
		s.Log.Warn("a verdict is not signed: what it was judged by cannot be read", "entry", e.Index, "err", err)
		return nil
	}
	verdict := policy.SummaryVerdict{Facts: digest.Digest(e.Data["facts"]), Entry: e.Index, Live: live}
	if by := e.Data["breakGlass"]; by != "" {
		verdict.Broken = strings.Split(by, ", ")
	}
	passed := e.Kind == "admission.admitted" && len(verdict.Broken) == 0
	said := policy.Summarise(s.Verifier, f, passed, digest.Digest(e.Data["policy"]), verdict)
	key, err := trust.NewPublicKey(signer.Public())
	if err != nil {
		return fault.New(fault.Invalid, "the deployer key cannot be used: %w", err)
	}
	if before, err := s.before(e.Release, key, func(other policy.Summary) bool { return same(said, other) }); err != nil || before {
		return err
	}
	artifacts, err := s.artifacts(f, said, key)
	if err != nil {
		return err
	}
	return s.publish(ctx, e, f, said, artifacts, signer, key)
}

// same says whether a summary says what another did. Refusals are said once for each policy,
// however often somebody tries.
func same(s, other policy.Summary) bool {
	if other.Verdict == nil || s.ResourceURI != other.ResourceURI || s.Result != other.Result || s.PolicyDigest() != other.PolicyDigest() {
		return false
	}
	refusal := s.Result == policy.Failed && len(s.Verdict.Broken) == 0
	return refusal && len(other.Verdict.Broken) == 0 || s.Verdict.Entry == other.Verdict.Entry && s.Verdict.Live.Equal(other.Verdict.Live)
}

// before says whether the key said, of about, something that is what is looked for.
func (s *Summaries) before(about digest.Digest, key trust.PublicKey, is func(policy.Summary) bool) (bool, error) {
	bundles, err := s.Attached(about)
	if err != nil {
		return false, err
	}
	for _, raw := range bundles {
		b, err := trust.ParseBundle(raw)
		if err != nil || b.Key != key.ID() || b.Log == nil {
			continue
		}
		leaf, err := b.LogEntry(key)
		if err != nil {
			continue
		}
		if by, err := trust.CheckLogEntry(leaf); err != nil || by != key.ID() {
			continue // anybody can put a bundle there that names our key
		}
		statement, err := trust.ParseStatement(b.Payload)
		if err != nil || !statement.About(about) {
			continue
		}
		if other, err := policy.ParseSummary(statement.Predicate); err == nil && is(other) {
			return true, nil
		}
	}
	return false, nil
}

// artifacts are those of which the key has not said yet that they passed this policy here:
// what is said of one is not said again with every release that has it.
func (s *Summaries) artifacts(f policy.Facts, said policy.Summary, key trust.PublicKey) ([]policy.Component, error) {
	if said.Result != policy.Passed {
		return nil, nil
	}
	var out []policy.Component
	for _, c := range f.Release.Components {
		known, err := s.before(digest.Digest(c.Artifact), key, func(other policy.Summary) bool {
			return other.Result == policy.Passed && other.ResourceURI == said.ResourceURI && other.PolicyDigest() == said.PolicyDigest()
		})
		if err != nil {
			return nil, err
		}
		if !known {
			out = append(out, c)
		}
	}
	return out, nil
}

// publish makes the statement of it.
func (s *Summaries) publish(ctx context.Context, e record.Entry, f policy.Facts, said policy.Summary, artifacts []policy.Component, signer crypto.Signer, key trust.PublicKey) error {
	predicate, err := said.Marshal()
	if err != nil {
		return err
	}
	kind, _ := trust.KindOf("summary")
	statement, err := trust.NewStatement(kind, f.App, e.Release, predicate)
	if err != nil {
		return err
	}
	var about []digest.Digest
	for _, c := range artifacts {
		d := digest.Digest(c.Artifact)
		statement.Subject = append(statement.Subject, trust.Subject{Name: f.App + "/" + c.Name, Digest: map[string]string{d.Algorithm().String(): d.Encoded()}})
		about = append(about, d)
	}
	bundle, err := trust.Sign(statement, signer, rand.Reader)
	if err != nil {
		return err
	}
	leaf, err := bundle.LogEntry(key)
	if err != nil {
		return err
	}
	logged, err := s.Record(ctx, leaf, record.Entry{
		Kind: "summary.signed", App: e.App, Env: e.Env, Release: e.Release, Rollout: e.Rollout,
		Data: map[string]string{"key": string(key.ID()), "result": said.Result, "verdict": strconv.FormatInt(e.Index, 10)},
	})
	if err != nil {
		return err
	}
	bundle.Log = &logged
	text, err := bundle.Marshal()
	if err != nil {
		return err
	}
	return s.Attach(ctx, e.Release, about, text)
}
