package debian

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

func TestInReleaseIsBelievedOnlyWhole(t *testing.T) {
	key, ring := testKey(t)
	other, _ := testKey(t)
	good := releaseText([]byte("x"), "")
	signed := sign(t, key, good)
	a := Archive{URL: testURL, Suite: "test", Areas: []string{"main"}, Keyring: ring}

	rel, signer, err := readInRelease(signed, a, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if len(signer) != 40 || rel.codename != "test" || len(rel.files) != 1 {
		t.Errorf("signer %q, release %+v", signer, rel)
	}
	flip := bytes.Replace(signed, []byte("Codename: test"), []byte("Codename: tesu"), 1)
	second := append(bytes.Clone(signed), signed...)
	suffixed := bytes.Replace(signed, []byte("-----END PGP SIGNATURE-----"), []byte("-----END PGP SIGNATURE-----evil"), 1)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"data after":          {append(bytes.Clone(signed), "SHA256:\n evil\n"...), "data after"},
		"data before":         {append([]byte("Suite: evil\n"), signed...), "data before"},
		"a second message":    {second, "data after"},
		"a suffix at the end": {suffixed, "signature is not good"},
		"a flipped byte":      {flip, "signature is not good"},
		"another key":         {sign(t, other, good), "signature is not good"},
		"no signature":        {[]byte(good), "not an OpenPGP clear-signed message"},
		"nothing":             {nil, "not an OpenPGP clear-signed message"},
		"cut short":           {signed[:len(signed)-40], "not an OpenPGP clear-signed message"},
		"expired":             {sign(t, key, releaseText([]byte("x"), "Valid-Until: Sun, 01 Mar 2026 11:59:00 UTC\n")), "expired"},
		"another suite":       {sign(t, key, strings.Replace(good, "Codename: test", "Codename: sid", 1)), "another suite: sid"},
		"from the future":     {sign(t, key, strings.Replace(good, "Date: Sun, 01 Mar 2026 11", "Date: Mon, 02 Mar 2026 11", 1)), "future"},
		"no date":             {sign(t, key, strings.Replace(good, "Date:", "Data:", 1)), "Date"},
		"a doubled field":     {sign(t, key, "Suite: stable\n"+good), "stands twice"},
		"a bad digest":        {sign(t, key, strings.Replace(good, "SHA256:\n ", "SHA256:\n zz", 1)), "SHA256"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := readInRelease(c.data, a, testNow)
			wantFault(t, err, fault.Refused, c.want)
		})
	}
	t.Run("every flipped bit", func(t *testing.T) {
		text, _, err := verifySigned(signed, ring, testNow)
		if err != nil {
			t.Fatal(err)
		}
		for i := range signed {
			bad := bytes.Clone(signed)
			bad[i] ^= 1
			got, _, err := verifySigned(bad, ring, testNow)
			if err == nil && !bytes.Equal(got, text) {
				t.Fatalf("byte %d flipped gives another text that is believed", i)
			}
		}
	})
	t.Run("an expired key", func(t *testing.T) {
		_, _, err := verifySigned(signed, ring, testNow.AddDate(-2, 0, 0))
		if err == nil {
			t.Error("a signature from before the key was made is believed")
		}
	})
	t.Run("valid until later", func(t *testing.T) {
		data := sign(t, key, releaseText([]byte("x"), "Valid-Until: Sun, 01 Mar 2026 12:01:00 UTC\n"))
		if _, _, err := readInRelease(data, a, testNow); err != nil {
			t.Error(err)
		}
	})
}

func TestKeyringsAreReadInEveryForm(t *testing.T) {
	key, err := os.ReadFile(DefaultKeyring)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := readKeys(key)
	if err != nil || len(keys) < 3 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	if _, err := readKeys([]byte("no key")); err == nil {
		t.Error("text is taken for a keyring")
	}
}

func FuzzInRelease(f *testing.F) {
	key, ring := testKey(f)
	text := releaseText([]byte("x"), "")
	signed := sign(f, key, text)
	f.Add(signed)
	f.Add(append(bytes.Clone(signed), "trailing"...))
	f.Add(bytes.Replace(signed, []byte("\n\n"), []byte("\nHash: SHA1\n\n"), 1))
	a := Archive{URL: testURL, Suite: "test", Keyring: ring}
	want, _, err := verifySigned(signed, ring, testNow)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, _, err := readInRelease(data, a, testNow); err != nil {
			return
		}
		got, _, _ := verifySigned(data, ring, testNow)
		if !bytes.Equal(got, want) {
			t.Fatalf("a text that nobody signed is believed: %q", got)
		}
	})
}
