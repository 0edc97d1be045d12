package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/store"
)

// The record that is measured: entries appended in batches, each durable when it returns.
const (
	recordBatch   = 500
	recordBatches = 200
	recordProofs  = 200 // of inclusion, of entries far apart
)

// records measures appending to the record, proving an entry of it, and recomputing all
// of it.
func records(ctx context.Context, dir string, r *report) (err error) {
	s, err := store.Open(ctx, filepath.Join(dir, "record.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	entries := make([]record.Entry, recordBatch)
	for b := range recordBatches {
		for i := range entries {
			entries[i] = record.Entry{
				Time: time.Now(), Actor: "bench", Kind: "instance.ready", App: "shop", Env: "production",
				Instance: "shop-production-web-" + strconv.Itoa(b*recordBatch+i),
			}
		}
		began := time.Now()
		if err := s.Append(ctx, entries); err != nil {
			return err
		}
		r.add(appendRate, recordBatch/time.Since(began).Seconds())
	}
	const size = recordBatch * recordBatches
	for i := range int64(recordProofs) {
		began := time.Now()
		if _, err := record.ProveInclusion(size, i*(size/recordProofs), s.Hashes(ctx)); err != nil {
			return err
		}
		r.add(proofTook, float64(time.Since(began))/float64(time.Microsecond))
	}
	began := time.Now()
	found, err := s.VerifyRecord(ctx)
	if err != nil {
		return err
	}
	if found.Finding != nil || found.Entries != size {
		return fmt.Errorf("the record of %d entries does not verify: %+v", size, found)
	}
	r.add(auditTook, time.Since(began).Seconds()*1e6/size)
	return nil
}
