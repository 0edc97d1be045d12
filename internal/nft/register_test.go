package nft

import (
	"net/netip"
	"testing"
	"time"
)

func FuzzRegister(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	for _, m := range []member{
		{id: "shop-production-redis-1", drain: time.Minute},
		{id: "shop-production-redis-4", drain: time.Minute, rests: true},
		{id: "shop-production-redis-2", drain: 1500 * time.Millisecond, till: now},
		{id: "shop-production-redis-3", till: now, over: true, cut: 7},
	} {
		f.Add(m.String())
	}
	f.Add(stamp{17, "0123456789abcdef"}.String())
	f.Add(placed{name: "redis", at: netip.MustParseAddrPort("10.214.0.1:6379"), turn: "b", waits: true, digest: "aa"}.String())
	f.Add(placed{name: "redis", at: netip.MustParseAddrPort("10.214.0.1:6379"), listen: netip.MustParseAddrPort("127.0.0.1:1"), turn: "a", digest: "aa"}.String())
	f.Fuzz(func(t *testing.T, text string) {
		if m, ok := parseMember(text); ok {
			if again, ok := parseMember(m.String()); !ok || again.String() != m.String() {
				t.Errorf("%q becomes %q", m, again)
			}
		}
		if s, ok := parseStamp(text); ok {
			if again, ok := parseStamp(s.String()); !ok || again != s {
				t.Errorf("%q becomes %q", s, again)
			}
		}
		if p, ok := parsePlaced(text); ok {
			if again, ok := parsePlaced(p.String()); !ok || again != p {
				t.Errorf("%q becomes %q", p, again)
			}
		}
	})
}

func TestSucceed(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(n byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 213, 0, n}), 6379) }
	prev := map[netip.AddrPort]member{
		at(1): {id: "stays", drain: time.Minute},
		at(2): {id: "leaves", drain: time.Minute},
		at(3): {id: "left", drain: time.Minute, till: now.Add(5 * time.Second)},
		at(4): {id: "comes back", drain: time.Minute, till: now.Add(5 * time.Second)},
		at(5): {id: "cut", over: true, cut: 3, till: now.Add(-time.Minute)},
		at(6): {id: "cut long ago", over: true, cut: 3, till: now.Add(-time.Hour)},
	}
	services := []service{{drain: time.Hour, backends: []backend{{"stays", at(1), 1}, {"comes back", at(4), 0}, {"new", at(7), 1}}}}
	want := map[netip.AddrPort]member{
		at(1): {id: "stays", drain: time.Hour},
		at(2): {id: "leaves", drain: time.Minute, till: now.Add(time.Minute)},
		at(3): prev[at(3)],
		at(4): {id: "comes back", drain: time.Hour, rests: true},
		at(5): prev[at(5)],
		at(7): {id: "new", drain: time.Hour},
	}
	got := succeed(prev, services, now)
	if len(got) != len(want) {
		t.Errorf("%d backends, want %d: %v", len(got), len(want), got)
	}
	for a, m := range want {
		if got[a] != m {
			t.Errorf("%v: got %v, want %v", a, got[a], m)
		}
	}
}
