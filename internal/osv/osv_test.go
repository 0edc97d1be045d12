package osv

import (
	"archive/zip"
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

const debianRecord = `{"id":"DEBIAN-CVE-1","aliases":["CVE-1"],"modified":"2026-11-02T00:00:00Z","published":"2026-10-01T00:00:00Z",
"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
"affected":[{"package":{"ecosystem":"Debian:12","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"3.0.11-1~deb12u2"}]}]}]}`

const goRecord = `{"id":"GO-1","modified":"2026-11-01T00:00:00Z","published":"2026-09-01T00:00:00Z","affected":[{"package":{"ecosystem":"Go","name":"golang.org/x/net"},
"ranges":[{"type":"SEMVER","events":[{"introduced":"0.5.0"},{"fixed":"0.17.0"},{"introduced":"0.20.0"},{"last_affected":"0.21.0"}]}],"database_specific":{"severity":"MODERATE"}}]}`

func database(t testing.TB, text string) *Database {
	t.Helper()
	d, err := Parse("db", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestMatch(t *testing.T) {
	d := database(t, "["+debianRecord+","+goRecord+`,{"id":"W","modified":"2026-11-03T00:00:00Z","withdrawn":"2026-11-03T00:00:00Z","affected":[{"package":{"ecosystem":"Go","name":"golang.org/x/net"},"versions":["0.16.0"]}]},
	{"id":"V","modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"Debian:12","name":"zlib"},"versions":["1:1.2.13"]}]}]`)
	if d.Records != 4 || !d.Date.Equal(time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC)) || !strings.HasPrefix(string(d.Digest), "sha256:") {
		t.Errorf("%d records of %s", d.Records, d.Date)
	}
	for _, c := range []struct{ ecosystem, name, version, want string }{
		{"Debian:12", "openssl", "3.0.11-1~deb12u1", "DEBIAN-CVE-1 critical 3.0.11-1~deb12u2"},
		{"Debian:12", "openssl", "3.0.11-1~deb12u2", ""},
		{"Debian:12", "openssl", "1:1.0", ""}, // an epoch is newer than everything without
		{"Debian:12", "openssl", "3.0.9-1", "DEBIAN-CVE-1 critical 3.0.11-1~deb12u2"},
		{"Debian:11", "openssl", "3.0.9-1", ""},
		{"Debian:12", "zlib", "1:1.2.13", "V unknown "},
		{"Go", "golang.org/x/net", "v0.4.0", ""},
		{"Go", "golang.org/x/net", "v0.16.0", "GO-1 medium 0.17.0"},
		{"Go", "golang.org/x/net", "v0.18.0", ""},
		{"Go", "golang.org/x/net", "v0.21.0", "GO-1 medium "},
		{"Go", "golang.org/x/net", "v0.22.0", ""},
		{"Go", "golang.org/x/net", "what is this", "GO-1 medium 0.17.0"},
	} {
		var got []string
		for _, f := range d.Match(Name{c.ecosystem, c.name}, c.version) {
			got = append(got, fmt.Sprint(f.ID, " ", f.Severity, " ", f.Fixed))
		}
		if strings.Join(got, ",") != c.want {
			t.Errorf("%s %s: %q, want %q", c.name, c.version, got, c.want)
		}
	}
}

// The scores are those of the specification's examples.
func TestScores(t *testing.T) {
	for vector, want := range map[string]float64{
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H": 9.8,
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H": 10,
		"CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N": 6.1,
		"CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H": 7.8,
		"CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N": 3.1,
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N": 0,
	} {
		if got, ok := cvss3(vector); !ok || got != want {
			t.Errorf("%s: %v %v, want %v", vector, got, ok, want)
		}
	}
	for _, bad := range []string{"", "CVSS:4.0/AV:N", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:X/C:H/I:H/A:H", "CVSS:3.1/AV:Z/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"} {
		if _, ok := cvss3(bad); ok {
			t.Errorf("%q has a score", bad)
		}
	}
}

func archive(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i, text := range files {
		f, err := w.Create(fmt.Sprintf("../%d.json", i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestForms(t *testing.T) {
	for name, file := range map[string][]byte{
		"lines": []byte(strings.ReplaceAll(debianRecord, "\n", "") + "\n" + strings.ReplaceAll(goRecord, "\n", "") + "\n"),
		"array": []byte(" [" + debianRecord + "," + goRecord + "] "), "zip": archive(t, debianRecord, goRecord),
	} {
		if d, err := Parse(name, file); err != nil || d.Records != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, file := range map[string]string{
		"empty": "", "no records": "[]", "cut": "[" + debianRecord, "more": "[" + debianRecord + "] 1", "no id": `[{"modified":"2026-11-03T00:00:00Z"}]`, "no JSON": "hello",
		"no time": `{"id":"x"}`, "half a zip": string(archive(t, debianRecord)[:100]), "a bad record": debianRecord + "\n{",
	} {
		if _, err := Parse(name, []byte(file)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[" + debianRecord + "]"))
	f.Add([]byte(strings.ReplaceAll(goRecord, "\n", "")))
	f.Add(archive(f, goRecord))
	f.Fuzz(func(t *testing.T, file []byte) {
		d, err := Parse("f", file)
		if err != nil {
			return
		}
		for n := range d.affected {
			d.Match(n, "1.2.3-4")
			d.Match(n, "")
		}
	})
}
