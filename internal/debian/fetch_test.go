package debian

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

func simpleDebs() []deb {
	return []deb{
		{name: "app", version: "1.0-1", fields: "Depends: lib (>= 2)\n", data: []member{{name: "./usr/bin/app", mode: 0o755, body: "app"}}},
		{name: "lib", version: "2.0", data: []member{{name: "./lib/lib.so", body: "lib"}, {name: "./lib/empty"}}},
	}
}

func TestLockNamesEveryInput(t *testing.T) {
	a := newArchive(t, simpleDebs()...)
	store := openStore(t)
	src := a.source("app")
	lock := a.fetched(t, store, src)
	if got := len(lock.Inputs()); got != 4 {
		t.Errorf("%d inputs, want InRelease, Packages and two .debs", got)
	}
	refs, err := store.Refs(inputRef)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range lock.Inputs() {
		if !store.Has(d) || refs[d.Encoded()] != d {
			t.Errorf("input %s is not kept", d)
		}
	}
	if lock.Epoch != testNow.Unix()-3600 || len(lock.Archives[0].Signer) != 40 || lock.Archives[0].Version != "1.2" {
		t.Errorf("lock %+v", lock)
	}
	if !lock.Matches([]string{"app", "app"}, nil, "amd64") || lock.Matches([]string{"lib"}, nil, "amd64") {
		t.Error("Matches")
	}
	b, err := json.Marshal(lock)
	if err != nil {
		t.Fatal(err)
	}
	var back Lock
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lock, back); diff != "" || back.Digest() != lock.Digest() {
		t.Errorf("the lock changes in JSON: %s", diff)
	}
	// With everything on hand, a build asks for nothing.
	if err := Fetch(t.Context(), store, lock, offline{t}, nil); err != nil {
		t.Error(err)
	}
	if _, err := Tree(t.Context(), store, lock, src); err != nil {
		t.Error(err)
	}
}

func TestIndexComesByHashAndElseByName(t *testing.T) {
	a := newArchive(t, simpleDebs()...)
	var hashed string
	for url := range a.files {
		if strings.Contains(url, "by-hash") {
			hashed = url
		}
	}
	plain := testURL + "/dists/test/main/binary-amd64/Packages.gz"
	a.files[plain] = a.files[hashed]
	if _, err := Resolve(t.Context(), openStore(t), a.source("app"), a); err != nil || slices.Contains(a.asked, plain) {
		t.Errorf("by hash: %v, asked %v", err, a.asked)
	}
	delete(a.files, hashed)
	if _, err := Resolve(t.Context(), openStore(t), a.source("app"), a); err != nil {
		t.Errorf("by name: %v", err)
	}
	a.files[plain] = bytes.Repeat([]byte("x"), len(a.files[plain]))
	_, err := Resolve(t.Context(), openStore(t), a.source("app"), a)
	wantFault(t, err, fault.Refused, "Packages.gz", "want: sha256:", "got:  sha256:")
}

func TestOtherBytesThanTheLockAreRefused(t *testing.T) {
	url := testURL + "/" + simpleDebs()[0].path()
	for name, change := range map[string]func([]byte) []byte{
		"a flipped bit": func(b []byte) []byte { b = bytes.Clone(b); b[100] ^= 1; return b },
		"too long":      func(b []byte) []byte { return append(bytes.Clone(b), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchive(t, simpleDebs()...)
			store := openStore(t)
			lock, err := Resolve(t.Context(), store, a.source("app"), a)
			if err != nil {
				t.Fatal(err)
			}
			a.files[url] = change(a.files[url])
			err = Fetch(t.Context(), store, lock, a, nil)
			wantFault(t, err, fault.Refused, "package app 1.0-1", "want: "+lock.Packages[0].SHA256.String(), "got:  sha256:", url)
			if store.Has(lock.Packages[0].SHA256) {
				t.Error("it was stored all the same")
			}
		})
	}
}

func TestFetchTriesAgain(t *testing.T) {
	a := newArchive(t, simpleDebs()...)
	store := openStore(t)
	a.faults[testURL+"/dists/test/InRelease"] = 1
	lock, err := Resolve(t.Context(), store, a.source("app"), a)
	if err != nil {
		t.Fatal(err)
	}
	url := testURL + "/" + lock.Packages[1].Path
	a.faults[url] = 1
	var told []string
	if err := Fetch(t.Context(), store, lock, a, func(p Progress) { told = append(told, p.What) }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(told)
	if diff := cmp.Diff([]string{"app 1.0-1", "lib 2.0"}, told); diff != "" {
		t.Error(diff)
	}
}

func TestFetchSaysWhatToDo(t *testing.T) {
	a := newArchive(t, simpleDebs()...)
	store := openStore(t)
	lock, err := Resolve(t.Context(), store, a.source("app"), a)
	if err != nil {
		t.Fatal(err)
	}
	full := a.files[testURL+"/"+lock.Packages[0].Path]
	a.files[testURL+"/"+lock.Packages[0].Path] = full[:len(full)-10]
	wantFault(t, Fetch(t.Context(), store, lock, a, nil), fault.Unavailable, "package app 1.0-1", "ended after")
	delete(a.files, testURL+"/"+lock.Packages[0].Path)
	wantFault(t, Fetch(t.Context(), store, lock, a, nil), fault.Unavailable, "no longer has package app 1.0-1", "--update")
	_, err = Tree(t.Context(), store, lock, a.source("app"))
	wantFault(t, err, fault.Unavailable, "package app 1.0-1", "not on hand")
	lock.Packages[0].Path = "../../etc/passwd"
	wantFault(t, Fetch(t.Context(), store, lock, a, nil), fault.Invalid, "../../etc/passwd")
}
