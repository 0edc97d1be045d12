package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// kept are the variables of the environment that the Go command gets as they are:
// where things are and how the network is reached. Everything else that could
// change what is compiled is set by goEnv or absent, GOFLAGS and the file that
// `go env -w` writes included.
var kept = []string{
	"HOME", "PATH", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND",
}

// asked are the settings that the Go command is asked for and then given, wherever
// they were set: caches and the sources of modules.
var asked = []string{
	"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOINSECURE", "GOVCS", "GOAUTH",
}

// fixed say what is compiled for. The micro-architecture levels are the lowest,
// so that an artifact runs wherever its architecture does.
var fixed = []string{
	"CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=", "GOENV=off", "GOEXPERIMENT=", "GOFIPS140=off",
	"GOAMD64=v1", "GOARM64=v8.0", "GOARM=7", "GORISCV64=rva20u64", "GOPPC64=power8",
	"GO111MODULE=on", "GOTELEMETRY=off", "LC_ALL=C", "TZ=UTC",
}

// goTool is the Go command, ready to run in one directory.
type goTool struct {
	path    string
	dir     string
	env     []string
	version string // e.g. go1.26.8
	modules string // GOMODCACHE: what is below never changes
}

// released are the versions that the Go command can fetch by itself.
var released = regexp.MustCompile(`^go1\.\d+(\.\d+|rc\d+|beta\d+)?$`)

// goCommand finds the Go command and settles which toolchain compiles: the locked
// one, or if want is empty the one that the module asks for.
func (b *Builder) goCommand(ctx context.Context, dir, want string) (goTool, error) {
	name := b.GoTool
	if name == "" {
		name = "go"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return goTool{}, fault.New(fault.Unavailable, "there is no Go compiler: %w", err).
			Mend("install Go (https://go.dev/dl) and put its bin directory into PATH")
	}
	if path, err = filepath.Abs(path); err != nil {
		return goTool{}, err
	}
	environ := os.Environ()
	if b.Environ != nil {
		environ = b.Environ()
	}
	t := goTool{path: path, dir: dir, env: environ}
	values, err := t.values(ctx)
	if err != nil {
		return goTool{}, err
	}
	if want != "" && want != values["GOVERSION"] {
		if values, err = t.switchTo(ctx, want, values["GOVERSION"]); err != nil {
			return goTool{}, err
		}
	}
	t.version, t.modules = values["GOVERSION"], values["GOMODCACHE"]
	t.env = b.goEnv(environ, values)
	return t, nil
}

// values asks for the settings in force.
func (t goTool) values(ctx context.Context) (map[string]string, error) {
	out, err := t.run(ctx, append([]string{"env", "-json", "GOVERSION"}, asked...)...)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	if err := json.Unmarshal(out, &values); err != nil {
		return nil, fmt.Errorf("reading the output of go env: %w", err)
	}
	return values, nil
}

func (t goTool) switchTo(ctx context.Context, want, have string) (map[string]string, error) {
	mismatch := fault.New(fault.Unavailable, "ashlar.lock names the toolchain %s, but Go here is %s", want, have).
		Mend("install %s, or take over the present one with  ashlar build --update", want)
	if !released.MatchString(want) {
		return nil, mismatch
	}
	t.env = append(without(t.env, "GOTOOLCHAIN"), "GOTOOLCHAIN="+want)
	values, err := t.values(ctx)
	var f *fault.Error
	if errors.As(err, &f) {
		return nil, mismatch.Detail(f.Details...)
	}
	if err != nil {
		return nil, err
	}
	if values["GOVERSION"] != want {
		return nil, mismatch
	}
	return values, nil
}

func (b *Builder) goEnv(environ []string, values map[string]string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		for _, k := range kept {
			if k == name {
				env = append(env, kv)
			}
		}
	}
	for _, name := range asked {
		value := values[name]
		if name == "GOCACHE" && (value == "" || value == "off") {
			value = filepath.Join(b.Dir, "cache", "go-build") // no HOME
		}
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	toolchain := "local"
	if released.MatchString(values["GOVERSION"]) {
		toolchain = values["GOVERSION"]
	}
	return append(append(env, fixed...), "GOARCH="+b.arch(), "GOTOOLCHAIN="+toolchain)
}

func without(env []string, name string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, name+"=") {
			out = append(out, kv)
		}
	}
	return out
}

// stderrLines is how much of the compiler's output is shown.
const stderrLines = 40

// run runs the Go command and gives its standard output. What it wrote to standard
// error when it failed becomes the fault's details, as it is.
func (t goTool) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, t.path, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = t.dir, t.env, 5*time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil {
		return stdout.Bytes(), nil
	}
	lines := strings.Split(strings.TrimRight(stderr.String(), "\n"), "\n")
	if len(lines) > stderrLines {
		lines = append(lines[:stderrLines], fmt.Sprintf("… and %d lines more", len(lines)-stderrLines))
	}
	return nil, fault.New(fault.Invalid, "go %s failed: %w", args[0], err).Detail(lines...).
		Mend("correct what the compiler complains about; in %s run  go %s %s", t.dir, args[0], args[len(args)-1])
}
