package build_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/debian"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

func sampleLock() *build.LockFile {
	l := build.NewLockFile()
	l.Components["api"] = build.ComponentLock{Go: []build.GoLock{{Package: "./cmd/api", Toolchain: "go1.26.8"}}}
	l.Components["web"] = build.ComponentLock{Debian: []build.DebianLock{{
		Suite: "bookworm", Areas: []string{"main"},
		Lock: debian.Lock{
			Arch: "amd64", Requested: []string{"nginx-light"}, Excluded: []string{"perl-base"}, Epoch: 1700000000,
			Archives: []debian.LockedArchive{{
				URL: "http://archive.example.org/debian", Suite: "bookworm", Codename: "bookworm", Version: "12.15",
				InRelease: digest.FromString("InRelease"), Date: "2026-01-02T03:04:05Z", Signer: "ABCDEF",
				Indexes: []debian.LockedIndex{{Path: "main/binary-amd64/Packages.xz", SHA256: digest.FromString("Packages"), Size: 10}},
			}},
			Packages: []debian.LockedPackage{{
				Name: "nginx-light", Version: "1:1.22.1-9+deb12u2~x", Arch: "amd64", SHA256: digest.FromString("deb"), Size: 20,
				Path: "pool/main/n/nginx/nginx-light_1.22.1-9_amd64.deb",
			}},
		},
	}}}
	return l
}

func TestLockFileReadsBack(t *testing.T) {
	dir := t.TempDir()
	changed, err := sampleLock().Write(dir)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	again := sampleLock()
	if changed, err = again.Write(dir); err != nil || changed {
		t.Errorf("the same lock was written again: %v %v", changed, err)
	}
	back, err := build.ReadLockFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(again, back); d != "" {
		t.Error(d)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".ashlar*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLockFileRefuses(t *testing.T) {
	b, err := sampleLock().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	edit := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the lock has no %q:\n%s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":     {edit("suite: bookworm", "siute: bookworm"), "siute"},
		"other schema":    {edit("lock/v1", "lock/v9"), "lock/v9"},
		"merge conflict":  {edit("components:", "<<<<<<< ours\ncomponents:"), "conflict"},
		"no digest":       {edit(digest.FromString("deb").String(), "sha256:123"), "nginx-light"},
		"escaping path":   {edit("pool/main", "../../main"), "path"},
		"odd toolchain":   {edit("go1.26.8", `"-toolexec=x"`), "toolchain"},
		"alias":           {edit("suite: bookworm", "suite: &a bookworm"), "never writes"},
		"wrong type":      {edit("epoch: 1700000000", "epoch: soon"), "ashlar.lock:"},
		"not YAML":        {"\x00\x01{[", "ashlar.lock"},
		"empty":           {"", "schema"},
		"a list":          {"- a\n", "ashlar.lock"},
		"nothing in it":   {"null\n", "mapping"},
		"two documents":   {good + "---\n" + good, "never writes"},
		"the same twice":  {good + "schema: ashlar.dev/lock/v1\n", "schema"},
		"negative number": {edit("size: 20", "size: -20"), "size"},
		"another epoch":   {edit("epoch: 1700000000", "epoch: 1700000001"), "sum"},
		"no sum":          {edit("    sum: ", "    #sum: "), "sum"},
		"other component": {edit("  web:\n", "  wee:\n"), "sum"},
	} {
		_, err := build.ParseLockFile("ashlar.lock", []byte(c.text))
		t.Run(name, func(t *testing.T) {
			wantFault(t, err, fault.Invalid, c.want)
			t.Attr("refused", c.want+" <- "+name)
		})
	}
}

// Whatever byte of a lock is another: it is refused, or reads the very same, which only
// its comment and spaces do.
func TestFlippedBitInLock(t *testing.T) {
	good := sampleLock()
	text, err := good.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sums, same := 0, 0
	for i := range text {
		bad := bytes.Clone(text)
		bad[i] ^= 1 << (i % 8)
		l, err := build.ParseLockFile("ashlar.lock", bad)
		switch {
		case err == nil && cmp.Equal(good, l):
			same++
		case err == nil:
			t.Errorf("byte %d: read as another lock:\n%s", i, bad)
		case fault.Of(err) == nil || fault.Of(err).Kind != fault.Invalid:
			t.Errorf("byte %d: %v", i, err)
		case strings.Contains(err.Error(), "they have the sum"):
			sums++
		}
	}
	t.Attr("refused", fmt.Sprintf("sum <- one bit of a lock, %d times", sums))
	t.Attr("refused", fmt.Sprintf("malformed <- one bit of a lock, %d times", len(text)-sums-same))
	t.Logf("%d in comments and spaces say the same", same)
}

func TestLockedFailsInsteadOfResolving(t *testing.T) {
	p := newProject(t, two())
	p.b.Locked = true
	_, err := p.release()
	wantFault(t, err, fault.Conflict, "./cmd/api", "--locked")
	if _, err := os.Stat(filepath.Join(p.dir, build.LockName)); err == nil {
		t.Error("--locked wrote a lock file")
	}
	p.b.Locked = false
	before := p.mustRelease()
	p.b.Locked = true
	if d := cmp.Diff(before, p.mustRelease()); d != "" {
		t.Error(d)
	}
}

func TestAnotherToolchainIsAFault(t *testing.T) {
	p := newProject(t, two())
	t.Setenv("GOPROXY", "off")
	p.mustRelease()
	lock, err := build.ReadLockFile(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	lock.Components["api"].Go[0].Toolchain = "go1.24.99"
	if _, err := lock.Write(p.dir); err != nil {
		t.Fatal(err)
	}
	_, err = p.release()
	wantFault(t, err, fault.Unavailable, "go1.24.99", "--update")
	p.b.Update = true
	p.mustRelease()
	p.b.Update = false
	p.mustRelease()
}

func FuzzLockFile(f *testing.F) {
	b, err := sampleLock().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("schema: ashlar.dev/lock/v1\ncomponents: {a: {go: [{package: x, toolchain: go1}]}}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	sums := regexp.MustCompile(`they have the sum (\S+), the file says "(sha256:\w+)"`)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := build.ParseLockFile("ashlar.lock", b)
		for range 4 { // sums are put right, to see what is behind them
			if err == nil {
				break
			}
			m := sums.FindStringSubmatch(err.Error())
			if m == nil {
				return
			}
			b = bytes.ReplaceAll(b, []byte(m[2]), []byte(m[1]))
			l, err = build.ParseLockFile("ashlar.lock", b)
		}
		if err != nil {
			return
		}
		text, err := l.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := build.ParseLockFile("ashlar.lock", text)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, text)
		}
		second, err := again.Marshal()
		if err != nil || string(second) != string(text) {
			t.Fatalf("reading and writing changed it (%v):\n%s\n---\n%s", err, text, second)
		}
	})
}
