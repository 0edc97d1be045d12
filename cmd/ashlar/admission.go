package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/admission"
	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/osv"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/referrer"
	"github.com/ashlar-infra/ashlar/internal/registry"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/store"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// The reference to the database of vulnerabilities that is in use. gc never drops it.
const (
	databaseKind = "vulnerabilities"
	databaseName = "current"
)

// The references to what releases were judged by, as package referrer names them: from the
// release to the facts.
const factsKind = "facts"

// judges is what admission needs, and the API's side of it.
type judges struct {
	*admission.Admission
	process   *admission.Process
	store     *store.Store
	databases databases
}

func newJudges(s *store.Store, objects *object.Store, chain func() (*trust.Chain, error), recorded func(context.Context, digest.Digest, trust.Bundle, trust.PublicKey) (digest.Digest, error)) *judges {
	j := &judges{process: &admission.Process{Program: program("", "ashlar-judge")}, store: s, databases: databases{objects: objects}}
	j.Admission = admission.New(admission.Config{
		Store:   s,
		Release: j.release,
		Attached: func(about digest.Digest) ([]digest.Digest, error) {
			all, err := registry.Statements(objects, about)
			var out []digest.Digest
			for _, r := range all {
				out = append(out, r.Bundle)
			}
			return out, err
		},
		Bundle:   func(d digest.Digest) ([]byte, error) { return objects.ReadAll(d, trust.MaxBundle) },
		Trust:    chain,
		Database: j.databases.current,
		Packages: packagesOf(objects),
		Judge:    j.process.Ask,
		Record:   recorded,
		KeepFacts: func(ctx context.Context, release digest.Digest, facts []byte) error {
			unlock, err := objects.Share(ctx)
			if err != nil {
				return err
			}
			defer unlock()
			batch := objects.NewBatch()
			defer batch.Discard()
			d, err := batch.PutBytes(facts)
			if err != nil {
				return err
			}
			if err := batch.SetRef(factsKind, referrer.Name(release, d), d); err != nil {
				return err
			}
			return batch.Commit()
		},
	})
	return j
}

func (j *judges) release(ctx context.Context, d digest.Digest) (admission.Release, error) {
	stored, err := j.store.Release(ctx, d)
	if err != nil {
		return admission.Release{}, err
	}
	rel, err := release.Parse(stored.Doc)
	return admission.Release{Number: stored.Number, Created: stored.Created, Release: rel}, err
}

// SetDatabase is api.Admission.SetDatabase.
func (j *judges) SetDatabase(ctx context.Context, actor, path string) (api.Database, error) {
	text, err := readDatabase(path)
	if err != nil {
		return api.Database{}, err
	}
	db, err := osv.Parse(path, text)
	if err != nil {
		return api.Database{}, err
	}
	unlock, err := j.databases.objects.Share(ctx) // until the reference is there, a collection would take it
	if err != nil {
		return api.Database{}, err
	}
	defer unlock()
	if _, err := j.databases.objects.PutBytes(text); err != nil {
		return api.Database{}, err
	}
	e := record.Entry{Time: time.Now().UTC(), Actor: actor, Kind: "policy.database", Data: map[string]string{
		"database": string(db.Digest), "date": db.Date.Format(time.RFC3339), "records": strconv.Itoa(db.Records),
	}}
	if err := j.store.Append(ctx, []record.Entry{e}); err != nil {
		return api.Database{}, err
	}
	return api.Database{Digest: db.Digest, Date: db.Date, Records: db.Records}, j.databases.use(db)
}

func readDatabase(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || !filepath.IsAbs(path):
		return nil, fault.New(fault.NotFound, "there is no such file on the server's machine").At(path).Mend("name a file there, by its absolute path")
	case err != nil:
		return nil, fault.New(fault.Unavailable, "the database cannot be read: %w", err).At(path)
	case !info.Mode().IsRegular() || info.Size() > osv.MaxSize:
		return nil, fault.New(fault.Invalid, "the database is not a file of at most %d bytes", osv.MaxSize).At(path).Mend("give the archive of one ecosystem, such as Debian's")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the database cannot be read: %w", err).At(path)
	}
	defer f.Close()                                            //nolint:errcheck // it is only read
	return io.ReadAll(io.LimitReader(f, int64(osv.MaxSize)+1)) // one that grew meanwhile is refused as too large
}

// databases keeps the database that is in use read.
type databases struct {
	objects *object.Store

	mu   sync.Mutex
	read *osv.Database
}

// current gives the database in use; nil if there is none.
func (d *databases) current() (*osv.Database, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	is, err := d.objects.Ref(databaseKind, databaseName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case d.read != nil && d.read.Digest == is:
		return d.read, nil
	}
	text, err := d.objects.ReadAll(is, osv.MaxSize)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the database of vulnerabilities cannot be read: %w", err).Mend("give it again:  ashlar policy database FILE")
	}
	d.read, err = osv.Parse("the database "+string(is), text)
	return d.read, err
}

func (d *databases) use(db *osv.Database) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read = db
	return d.objects.SetRef(databaseKind, databaseName, db.Digest)
}

// judgeOnce judges without a server.
func judgeOnce(ctx context.Context, q policy.Question) (policy.Answer, error) {
	p := &admission.Process{Program: program("", "ashlar-judge")}
	answer, err := p.Ask(ctx, q)
	return answer, errors.Join(err, p.Close())
}

// known is what a ledger says of packages.
type known struct {
	packages []admission.Package
	all      bool
}

// keptLedgers is how many ledgers' packages are remembered: a ledger never changes.
const keptLedgers = 100

// packagesOf tells what a component is made of, by its ledger; false where it has none.
func packagesOf(objects *object.Store) func(release.Component) ([]admission.Package, bool, error) {
	var mu sync.Mutex
	read := map[digest.Digest]known{}
	return func(c release.Component) ([]admission.Package, bool, error) {
		if c.Ledger == "" {
			return nil, false, nil
		}
		mu.Lock()
		defer mu.Unlock()
		if k, ok := read[c.Ledger]; ok {
			return k.packages, k.all, nil
		}
		book, err := ledger.Read(objects, c.Ledger)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, false, nil
		case err != nil:
			return nil, false, err
		case book.Ledger.Artifact != c.Spec.Artifact:
			return nil, false, fault.New(fault.Refused, "the ledger %s is one of another artifact than %s", c.Ledger, c.Spec.Artifact)
		}
		if len(read) >= keptLedgers {
			clear(read)
		}
		k := known{}
		k.packages, k.all = admission.PackagesOf(book)
		read[c.Ledger] = k
		return k.packages, k.all, nil
	}
}
