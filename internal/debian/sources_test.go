package debian

import (
	"errors"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

func TestHostArchives(t *testing.T) {
	apt := fstest.MapFS{
		"sources.list": {Data: []byte("# old\ndeb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-trixie.gpg] https://a.test/debian/ trixie main contrib # x\n" +
			"deb-src http://a.test/debian trixie main\ndeb http://docker.test/debian bookworm stable\ndeb [signed-by=/k/docker.gpg] http://docker.test/d bookworm main\n" +
			"deb http://a.test/debian/ bookworm main\n")},
		"sources.list.d/debian.sources": {Data: []byte("Types: deb deb-src\n# comment\nURIs: http://a.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n" +
			"Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb\nURIs: http://a.test/debian-security\nSuites: bookworm-security\nComponents: main\n\n" +
			"Types: deb\nEnabled: no\nURIs: http://off.test\nSuites: bookworm\nComponents: main\n")},
		"sources.list.d/skipped.disabled": {Data: []byte("deb http://no.test bookworm main\n")},
		"sources.list.d/inline.sources":   {Data: []byte("Types: deb\nURIs: http://i.test\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n x\n")},
	}
	read := func(p string) ([]byte, error) { return []byte(p), nil }
	got, err := HostArchives(apt, read, "bookworm")
	if err != nil {
		t.Fatal(err)
	}
	key := []byte(DefaultKeyring)
	want := []Archive{
		{"http://a.test/debian", "bookworm", []string{"main"}, key},
		{"http://a.test/debian", "bookworm-updates", []string{"main"}, key},
		{"http://a.test/debian-security", "bookworm-security", []string{"main"}, key},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got, err = HostArchives(apt, read, "trixie")
	want = []Archive{{"https://a.test/debian", "trixie", []string{"main", "contrib"}, []byte("/usr/share/keyrings/debian-archive-trixie.gpg")}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	_, err = HostArchives(apt, read, "sid")
	wantFault(t, err, fault.NotFound, "no Debian archive of suite sid", "known: bookworm")
	_, err = HostArchives(apt, func(string) ([]byte, error) { return nil, errors.New("gone") }, "bookworm")
	wantFault(t, err, fault.Unavailable, "debian-archive-keyring")
	_, err = HostArchives(fstest.MapFS{"sources.list": {Data: []byte("deb [x http://a b\n")}}, read, "bookworm")
	wantFault(t, err, fault.Invalid, "/etc/apt/sources.list", "bracket")
}
