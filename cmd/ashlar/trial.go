package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/local"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// runTests runs the run tests that a release has to pass and did not yet, one after the
// other. Only one process does so in a state directory.
func runTests(ctx context.Context, objects *object.Store, q cli.BuildRequest, rel release.Release) error {
	specs := map[string]release.Spec{}
	for _, env := range rel.Environments {
		for name, c := range env.Components {
			specs[name] = c.Spec // artifact and tree are the same in every environment
		}
	}
	trials, err := build.Trials(objects, q.Definition, specs)
	if err != nil || len(trials) == 0 {
		return err
	}
	dir := filepath.Join(q.Dir, "trial")
	lock, err := lockTrials(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // it has no content
	for _, t := range trials {
		e := cli.BuildEvent{Component: t.Component, Step: "run test", Text: strings.Join(t.Spec.Command, " ")}
		q.Progress(e)
		begun := time.Now()
		one := local.Trial{
			Dir: dir, Objects: objects.Path(), Runc: program("", "runc"), Name: t.Component, Spec: t.Spec, Timeout: t.Timeout,
			Keeper: []string{os.Args[0], cli.TrialCommand}, Lock: lock,
		}
		if err := one.Run(ctx); err != nil {
			return t.Failed(err)
		}
		if err := t.Passed(objects); err != nil {
			return err
		}
		e.Done, e.Took = true, time.Since(begun)
		q.Progress(e)
	}
	return nil
}

// lockTrials waits until no other process runs tests. The lock goes with the processes
// that hold the file.
func lockTrials(ctx context.Context, name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the lock of the run tests: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != syscall.EWOULDBLOCK && err != syscall.EINTR {
			_ = f.Close()
			return nil, fault.New(fault.Unavailable, "the lock of the run tests: %w", err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
