package e2e

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/load"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// The example guestbook through its life, under load all the time: Redis is replaced
// 20 times and the book keeps every entry; the password changes without a build and
// without an interruption; a rollback brings the old configuration back; and no value of
// a secret is anywhere on the disk.
func TestGuestbook(t *testing.T) {
	a := newHost(t).example("guestbook")
	a.edit("ashlar.yaml", "pause: 2s", "pause: 100ms")
	a.edit("ashlar.yaml", "bake: 2s", "bake: 100ms")
	a.ashlar("deploy", a.env, "--yes").failed(3, "redis-acl", "ashlar secret set")
	a.password(">marble-one")
	a.deploy()
	a.sign("the first entry")

	readers := a.begin(load.Config{
		URL: "http://" + a.address + "/", KeepAlive: 2, NewConn: 2, Rate: 40, Timeout: patience,
		Check: func(status int, body []byte) error {
			if status != http.StatusOK || !strings.Contains(string(body), "the first entry") {
				return fmt.Errorf("status %d without the first entry", status)
			}
			return nil
		},
	})
	for n := 1; n <= 20; n++ {
		a.edit("redis.conf", fmt.Sprintf("tcp-keepalive %d\n", 299+n), fmt.Sprintf("tcp-keepalive %d\n", 300+n))
		a.deploy()
		a.sign(fmt.Sprintf("entry %d", n))
	}
	a.book("the first entry", "entry 1", "entry 10", "entry 20")

	a.rotates()
	a.reconfigures()
	a.unharmed(readers)
	a.book("the first entry", "entry 20", "after the rotation", "after the rollback")
	a.ashlar("log", "verify").ok()
	a.nowhere("marble-one", "marble-two")
}

// rotates changes the password in two deploys; neither builds anything.
func (a *app) rotates() {
	a.t.Helper()
	before := a.artifacts()
	for _, acl := range []string{">marble-two >marble-one", ">marble-two"} {
		a.password(acl)
		if r := a.deploy(); strings.Contains(r.stderr+r.stdout, "unpack  debian redis-server (bookworm)  1") {
			a.t.Errorf("a rotation built something: %s", r)
		}
	}
	if after := a.artifacts(); fmt.Sprint(before) != fmt.Sprint(after) {
		a.t.Errorf("a rotation changed artifacts: %v to %v", before, after)
	}
	a.sign("after the rotation")
}

// artifacts are those of the live release, by component.
func (a *app) artifacts() map[string]string {
	a.t.Helper()
	rel := a.live()
	out := map[string]string{}
	for name, c := range rel.Environments[a.env].Components {
		out[name] = string(c.Spec.Artifact)
	}
	return out
}

// live is the document of the live release.
func (a *app) live() release.Release {
	a.t.Helper()
	s := a.settled()
	found, err := a.client.Release(a.t.Context(), a.name, s.State.Current.Release.String())
	if err != nil {
		a.t.Fatal(err)
	}
	return found.Release
}

// reconfigures changes a config file and goes back.
func (a *app) reconfigures() {
	a.t.Helper()
	a.book("Welcome.")
	a.edit("ashlar.yaml", `"Welcome.\n"`, `"Sign here.\n"`)
	a.deploy()
	a.book("Sign here.")
	a.ashlar("rollback", a.env, "--yes").ok()
	a.book("Welcome.")
	a.sign("after the rollback")
}

// password sets the guestbook's secret: the users of its Redis.
func (a *app) password(acl string) {
	a.t.Helper()
	a.secret("user default on " + acl + " ~* &* +@all\nuser probe on nopass -@all +ping\n")
}

// secret sets the guestbook's secret.
func (a *app) secret(value string) {
	a.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "ashlar"), "secret", "set", a.env, "redis-acl")
	cmd.Stdin = strings.NewReader(value)
	a.run(cmd)().ok()
}

func (a *app) sign(text string) {
	a.t.Helper()
	resp, err := http.PostForm("http://"+a.address+"/sign", url.Values{"text": {text}})
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		a.t.Fatalf("sign %q: %s, %v: %s", text, resp.Status, err, body)
	}
}

// book expects texts on the page.
func (a *app) book(texts ...string) {
	a.t.Helper()
	page := a.get("/")
	for _, text := range texts {
		if !strings.Contains(page, text) {
			a.t.Errorf("the book lacks %q:\n%s", text, page)
		}
	}
}

// nowhere expects that no file of the state directory holds any of the texts.
func (a *app) nowhere(secrets ...string) {
	a.t.Helper()
	err := filepath.WalkDir(a.host.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, s := range secrets {
			if strings.Contains(string(b), s) {
				a.t.Errorf("%s holds the secret %q", path, s)
			}
		}
		return nil
	})
	if err != nil {
		a.t.Error(err)
	}
}
