package main

import (
	"bytes"
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/referrer"
)

// predicates is what a builder says of an artifact: all of it follows from the ledger.
func predicates(_ context.Context, dir string, c cli.BuiltComponent) (_ map[string][]byte, err error) {
	objects, err := object.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	book, err := ledger.Read(objects, c.Ledger)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for kind, write := range map[string]func(*ledger.Book) ([]byte, error){
		"spdx": ledger.SPDX, "cyclonedx": ledger.CycloneDX,
		"provenance": func(b *ledger.Book) ([]byte, error) { return ledger.Provenance(b, ledger.LocalBuilder) },
	} {
		if out[kind], err = write(book); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// attached lists the statements about an artifact.
func attached(dir string, about digest.Digest) (_ []cli.AttachedStatement, err error) {
	objects, err := object.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	all, err := referrer.Of(objects, about)
	var out []cli.AttachedStatement
	for _, r := range all {
		if r.Bundle != "" {
			out = append(out, cli.AttachedStatement{PredicateType: r.PredicateType, Key: r.Key, Bundle: r.Bundle})
		}
	}
	return out, err
}

// attach keeps statements beside what they are about.
func attach(ctx context.Context, dir string, all []cli.AttachStatement) (err error) {
	objects, err := object.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	unlock, err := objects.Share(ctx) // until the references are there, a collection would take what they lead to
	if err != nil {
		return err
	}
	defer unlock()
	var statements []referrer.Statement
	for _, s := range all {
		if s.Document != nil {
			if _, err := objects.PutVerified(bytes.NewReader(s.Document), s.About, int64(len(s.Document))); err != nil {
				return err
			}
		}
		statements = append(statements, referrer.Statement{About: s.About, Bundle: s.Bundle})
	}
	_, err = referrer.AttachAll(objects, statements)
	return err
}
