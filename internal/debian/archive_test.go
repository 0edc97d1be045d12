package debian

import (
	"context"
	"io"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// hostSource is the real archive of the host's own Debian release.
func hostSource(t *testing.T, packages ...string) Source {
	t.Helper()
	archives, err := HostArchives(os.DirFS("/etc/apt"), os.ReadFile, "bookworm")
	if err != nil {
		t.Fatal(err)
	}
	arch, err := Arch(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	return Source{Archives: archives, Packages: packages, Arch: arch, Now: time.Now()}
}

func openStore(t testing.TB) *object.Store {
	t.Helper()
	s, err := object.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// offline is a network that is not there.
type offline struct{ t testing.TB }

func (o offline) Get(_ context.Context, url string) (io.ReadCloser, error) {
	o.t.Errorf("the network was asked for %s", url)
	return nil, os.ErrDeadlineExceeded
}

// TestNginxFromTheArchive is the whole path on real input: it needs the network.
func TestNginxFromTheArchive(t *testing.T) {
	ctx, store := t.Context(), openStore(t)
	src := hostSource(t, "nginx-light")
	start := time.Now()
	lock, err := Resolve(ctx, store, src, NewHTTP())
	if err != nil {
		t.Fatal(err)
	}
	resolved := time.Now()
	if err := Fetch(ctx, store, lock, NewHTTP(), nil); err != nil {
		t.Fatal(err)
	}
	fetched := time.Now()
	cold, err := Tree(ctx, store, lock, src)
	if err != nil {
		t.Fatal(err)
	}
	built := time.Now()
	if err := Fetch(ctx, store, lock, offline{t}, nil); err != nil {
		t.Fatal(err)
	}
	warm, err := Tree(ctx, store, lock, src)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(built)
	var files int
	var bytes, debs int64
	for _, e := range cold.Tree.Entries {
		if e.Type == image.File {
			files++
			bytes += e.Size
		}
	}
	for _, p := range lock.Packages {
		debs += p.Size
	}
	t.Logf("%d packages, %d entries, %d files, %d bytes, %d bytes of .debs; resolve %v, fetch %v, tree cold %v, warm %v",
		len(lock.Packages), len(cold.Tree.Entries), files, bytes, debs, resolved.Sub(start), fetched.Sub(resolved), built.Sub(fetched), took)
	if diff := cmp.Diff(cold, warm); diff != "" {
		t.Errorf("the cached tree differs: %s", diff)
	}
	if took > 100*time.Millisecond {
		t.Errorf("an unchanged closure took %v, more than 100 ms", took)
	}
	for path, want := range map[string]image.Entry{
		"usr/sbin/nginx":                  {Type: image.File, Mode: 0o755},
		"bin":                             {Type: image.Symlink, Mode: 0o777, Link: "usr/bin"},
		"lib64":                           {Type: image.Symlink, Mode: 0o777, Link: "usr/lib64"},
		"usr/lib64/ld-linux-x86-64.so.2":  {Type: image.Symlink, Mode: 0o777, Link: "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"},
		"etc/nginx/sites-enabled/default": {Type: image.Symlink, Mode: 0o777, Link: "/etc/nginx/sites-available/default"},
		"etc/nginx/modules-enabled/50-mod-http-echo.conf": {Type: image.Symlink, Mode: 0o777, Link: "/usr/share/nginx/modules-available/mod-http-echo.conf"},
		"var/log/nginx/access.log":                        {Type: image.File, Mode: 0o640, UID: 33, GID: 4},
		"var/www/html/index.nginx-debian.html":            {Type: image.File, Mode: 0o644},
		"var/run":                                         {Type: image.Symlink, Mode: 0o777, Link: "/run"},
		"etc/nsswitch.conf":                               {Type: image.File, Mode: 0o644},
		"usr/lib/os-release":                              {Type: image.File, Mode: 0o644},
	} {
		e, ok := cold.Tree.Lookup(path)
		got := image.Entry{Type: e.Type, Mode: e.Mode, UID: e.UID, GID: e.GID, Link: e.Link}
		if !ok || !cmp.Equal(got, want) {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
	for _, e := range cold.Tree.Entries {
		if e.MTime > lock.Epoch || e.Type == image.File && e.Mode&0o6000 != 0 {
			t.Errorf("%s: time %d after the epoch, or set-id mode %o", e.Path, e.MTime, e.Mode)
		}
	}
}

// TestCommonClosuresFromTheArchive keeps the rules in step with Debian.
func TestCommonClosuresFromTheArchive(t *testing.T) {
	ctx, store := t.Context(), openStore(t)
	src := hostSource(t, "ca-certificates", "redis-server", "base-files", "base-passwd", "busybox-static", "tzdata", "openssl",
		"curl", "bash", "dash", "coreutils", "haproxy", "memcached", "netbase", "libc-bin", "python3", "nodejs", "git", "sqlite3")
	lock, err := Resolve(ctx, store, src, NewHTTP())
	if err != nil {
		t.Fatal(err)
	}
	if err := Fetch(ctx, store, lock, NewHTTP(), nil); err != nil {
		t.Fatal(err)
	}
	tree, err := Tree(ctx, store, lock, src)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]image.Entry{
		"etc/redis/redis.conf":              {Type: image.File, Mode: 0o640, UID: 103, GID: 103},
		"var/lib/redis":                     {Type: image.Dir, Mode: 0o750, UID: 103, GID: 103},
		"var/log/redis":                     {Type: image.Dir, Mode: 0o2750, UID: 103, GID: 4},
		"run/haproxy":                       {Type: image.Dir, Mode: 0o2775, UID: 101, GID: 101},
		"etc/alternatives/awk":              {Type: image.Symlink, Mode: 0o777, Link: "/usr/bin/mawk"},
		"usr/bin/awk":                       {Type: image.Symlink, Mode: 0o777, Link: "/etc/alternatives/awk"},
		"usr/bin/sh":                        {Type: image.Symlink, Mode: 0o777, Link: "dash"},
		"etc/localtime":                     {Type: image.Symlink, Mode: 0o777, Link: "/usr/share/zoneinfo/Etc/UTC"},
		"etc/ssl/certs/ca-certificates.crt": {Type: image.File, Mode: 0o644},
		"etc/ssl/certs/4042bcee.0":          {Type: image.Symlink, Mode: 0o777, Link: "ISRG_Root_X1.pem"},
		"etc/shadow":                        {Type: image.File, Mode: 0o640, GID: 42},
		"tmp":                               {Type: image.Dir, Mode: 0o1777},
		"var/mail":                          {Type: image.Dir, Mode: 0o2775, GID: 8},
		"etc/os-release":                    {Type: image.Symlink, Mode: 0o777, Link: "../usr/lib/os-release"},
	} {
		e, ok := tree.Tree.Lookup(path)
		got := image.Entry{Type: e.Type, Mode: e.Mode, UID: e.UID, GID: e.GID, Link: e.Link}
		if !ok || !cmp.Equal(got, want) {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
	names := make([]string, 0, len(lock.Packages))
	for _, p := range lock.Packages {
		names = append(names, p.Name)
	}
	if !slices.IsSorted(names) {
		t.Errorf("the lock is not sorted: %v", names)
	}
}
