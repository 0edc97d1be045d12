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

// TestEventsInAnyOrder: a record need not have the ends of its ranges in order.
func TestEventsInAnyOrder(t *testing.T) {
	const events = `{"introduced":"0.5.0"},{"fixed":"0.17.0"},{"introduced":"0.20.0"},{"last_affected":"0.21.0"}`
	d := database(t, strings.Replace(goRecord, events, `{"last_affected":"0.21.0"},{"fixed":"0.17.0"},{"introduced":"0.20.0"},{"introduced":"0.5.0"}`, 1))
	for version, want := range map[string]string{"v0.4.0": "", "v0.16.0": "mended in 0.17.0", "v0.18.0": "", "v0.21.0": "mended in ", "v0.22.0": ""} {
		got := ""
		for _, f := range d.Match(Name{"Go", "golang.org/x/net"}, version) {
			got += "mended in " + f.Fixed
		}
		if got != want {
			t.Errorf("%s: %q, want %q", version, got, want)
		}
	}
}

// The scores are those of the specifications' examples (https://www.first.org/cvss/examples)
// and of FIRST's calculators.
func TestScores(t *testing.T) {
	for vector, want := range map[string]float64{
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H":                    9.8,
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H":                    10,
		"CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N":                    6.1,
		"CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H":                    7.8,
		"CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N":                    3.1,
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N":                    0,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H": 10,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N": 9.3,
		"CVSS:4.0/AV:L/AC:L/AT:P/PR:L/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N": 7.3,
		"CVSS:4.0/AV:N/AC:L/AT:P/PR:N/UI:P/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N": 7.7,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:N/VI:N/VA:N/SC:N/SI:N/SA:N": 0,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:N/VA:N/SC:N/SI:N/SA:N": 8.7,
		"AV:N/AC:L/Au:N/C:C/I:C/A:C":                                      10,
		"AV:N/AC:L/Au:N/C:P/I:P/A:P":                                      7.5,
	} {
		if got, ok := cvss(vector); !ok || got != want {
			t.Errorf("%s: %v %v, want %v", vector, got, ok, want)
		}
	}
	for _, bad := range []string{
		"", "9.8", "CVSS:4.0/AV:N", "CVSS:5.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:X/C:H/I:H/A:H",
		"CVSS:3.1/AV:Z/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:Z", "CVSS:3.1",
	} {
		if _, ok := cvss(bad); ok {
			t.Errorf("%q has a score", bad)
		}
	}
}

// The worst of several scores counts, and what cannot be read is unknown, not low.
func TestSeverity(t *testing.T) {
	const v4, v3, v2 = `{"type":"CVSS_V4","score":"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}`,
		`{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N"}`, `{"type":"CVSS_V2","score":"AV:N/AC:L/Au:N/C:P/I:P/A:P"}`
	for scores, want := range map[string]string{
		v4: "critical", v3: "low", v2: "high", v3 + "," + v4: "critical", v4 + "," + v3: "critical", v3 + "," + v2: "high",
		`{"type":"Ubuntu","score":"negligible"}`: "low", `{"type":"Ubuntu","score":"critical"}`: "critical",
		``: "unknown", `{"type":"CVSS_V4","score":"CVSS:4.0/AV:N"}`: "unknown", `{"type":"CVSS_V5","score":"CVSS:5.0/AV:N"}`: "unknown",
		`{"type":"Ubuntu","score":"untriaged"}`: "unknown", `{"type":"CVSS_V4","score":"CVSS:4.0/AV:N"},` + v3: "low",
	} {
		for _, place := range []string{`"severity":[` + scores + `],"affected":[{%s}]`, `"affected":[{"severity":[` + scores + `],%s}]`} {
			d := database(t, `[{"id":"V","modified":"2026-11-02T00:00:00Z",`+fmt.Sprintf(place, `"package":{"ecosystem":"Go","name":"m"},"versions":["1.0.0"]`)+`}]`)
			if got := d.Match(Name{"Go", "m"}, "1.0.0"); len(got) != 1 || got[0].Severity != want {
				t.Errorf("%s: %+v, want %s", scores, got, want)
			}
		}
	}
}

func FuzzCVSS(f *testing.F) {
	f.Add("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N/E:P/MAV:A/S:P/AU:Y/R:A/V:D/RE:L/U:Red")
	f.Add("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H/E:P/RL:O/RC:C/CR:H/MAV:N")
	f.Add("AV:N/AC:L/Au:N/C:P/I:P/A:P/E:U/RL:OF/RC:UC")
	f.Fuzz(func(t *testing.T, vector string) {
		if score, ok := cvss(vector); ok && (score < 0 || score > 10) {
			t.Errorf("%q: %v", vector, score)
		}
	})
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
