package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// spareBytes is what should be free in the state directory: a few releases.
const spareBytes = 1 << 30

// doctor is what only the server can tell.
func (s *server) doctor(ctx context.Context) []api.Check {
	checks := []api.Check{{
		Name: "server", OK: true, Detail: fmt.Sprintf("process %d, %d MiB of memory, state in %s", os.Getpid(), residentSet()>>20, s.dir),
	}}
	c := api.Check{Name: "router", Fix: "see why:  tail " + s.router.logFile}
	if h, err := s.router.client.Health(ctx); err != nil {
		c.Detail = err.Error()
	} else {
		c.OK, c.Detail = true, fmt.Sprintf("process %d, %d environments, %d requests under way", h.PID, h.Environments, h.Active)
	}
	return append(checks, c, s.checkDisk(), s.checkTrust(), s.checkDeployer())
}

func (s *server) checkDisk() api.Check {
	c := api.Check{Name: "disk space", Fix: "remove what no release needs:  ashlar gc"}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		c.Detail = err.Error()
		return c
	}
	free := int64(st.Bavail) * st.Bsize
	c.OK, c.Detail = free > spareBytes, fmt.Sprintf("%d MiB free in %s", free>>20, s.dir)
	return c
}

// checkTrust says whether the trust root is believed. Having none is no trouble.
func (s *server) checkTrust() api.Check {
	c := api.Check{Name: "trust root", Fix: "put its newest version in place:  ashlar trust install FILE"}
	chain, err := s.trust.Chain()
	switch {
	case err != nil:
		c.Detail = fault.Of(err).What
	case chain == nil:
		c.OK, c.Detail = true, "none: no statement is believed by this server"
	default:
		now := time.Now()
		c.OK, c.Detail = chain.Fresh(now) == nil, fmt.Sprintf("version %d, expires %s", chain.Versions(), chain.Latest().Expires.Format(time.DateOnly))
		c.Fix = "make its next version:  ashlar trust rotate FILE --expires 8760h  and  ashlar trust install FILE"
	}
	return c
}

// residentSet is the memory of this process in bytes, from /proc/self/statm; 0
// when it cannot be told.
func residentSet() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

func logger(w io.Writer, o cli.LogOptions) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.Level)); err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if o.JSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
