package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/store"
)

// The record that is measured: entries appended in batches, each durable when it returns.
const (
	recordBatch  = 500
	recordProofs = 200 // of inclusion, of entries far apart
)

// records measures appending to the record, proving an entry of it, and recomputing all
// of it.
func records(ctx context.Context, o options, dir string, r *report, say func(string, ...any)) (err error) {
	say("a record of %d entries", o.size)
	s, err := store.Open(ctx, filepath.Join(dir, "record.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	entries := make([]record.Entry, recordBatch)
	for b := range o.size / recordBatch {
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
	size := int64(o.size)
	r.add(recordSize, float64(size))
	for i := range int64(recordProofs) {
		began := time.Now()
		if _, err := record.ProveInclusion(size, i*(size/recordProofs), s.Hashes(ctx)); err != nil {
			return err
		}
		r.add(proofTook, float64(time.Since(began))/float64(time.Microsecond))
	}
	began, before := time.Now(), processorTime()
	found, err := s.VerifyRecord(ctx)
	if err != nil {
		return err
	}
	if found.Finding != nil || found.Entries != size {
		return fmt.Errorf("the record of %d entries does not verify: %+v", size, found)
	}
	r.add(auditTook, time.Since(began).Seconds())
	r.add(auditCPU, (processorTime() - before).Seconds())
	return nil
}

// processorTime is what this process has used: what a busy machine disturbs least.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
