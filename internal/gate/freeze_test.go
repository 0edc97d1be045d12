package gate_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ashlar-infra/ashlar/internal/gate"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse("2006-01-02 15:04 -0700", text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestFrozen(t *testing.T) {
	weekend := gate.Window{Days: []string{"fri"}, From: "16:00", To: "00:00", Zone: "Europe/Berlin"}
	saturday := gate.Window{Days: []string{"sat", "sun"}, From: "00:00", To: "00:00", Zone: "Europe/Berlin"}
	night := gate.Window{From: "22:00", To: "06:00", Zone: "America/New_York"}
	holidays := gate.Window{From: "00:00", To: "00:00", Zone: "UTC", Until: "2027-01-03"}
	for name, c := range map[string]struct {
		windows  []gate.Window
		now      string
		want     string // until; empty: not frozen
		contains string
	}{
		"before":                      {[]gate.Window{weekend}, "2026-11-27 15:59 +0100", "", ""},
		"at its first instant":        {[]gate.Window{weekend}, "2026-11-27 16:00 +0100", "2026-11-28 00:00 +0100", "fri from 16:00 to 00:00 Europe/Berlin"},
		"in another zone":             {[]gate.Window{weekend}, "2026-11-27 15:30 +0000", "2026-11-28 00:00 +0100", "fri"},
		"at its end":                  {[]gate.Window{weekend}, "2026-11-28 00:00 +0100", "", ""},
		"one follows another":         {[]gate.Window{saturday, weekend}, "2026-11-27 17:00 +0100", "2026-11-30 00:00 +0100", "fri from"},
		"over midnight, the evening":  {[]gate.Window{night}, "2026-11-24 23:00 -0500", "2026-11-25 06:00 -0500", "every day"},
		"over midnight, the morning":  {[]gate.Window{night}, "2026-11-25 05:59 -0500", "2026-11-25 06:00 -0500", "every day"},
		"by day":                      {[]gate.Window{night}, "2026-11-25 12:00 -0500", "", ""},
		"until a day":                 {[]gate.Window{holidays}, "2026-12-24 12:00 +0000", "2027-01-04 00:00 +0000", "until 2027-01-03"},
		"after it":                    {[]gate.Window{holidays}, "2027-01-04 00:00 +0000", "", ""},
		"the night before the change": {[]gate.Window{night}, "2027-03-14 00:30 -0500", "2027-03-14 06:00 -0400", "every day"},
		"none":                        {nil, "2027-01-04 00:00 +0000", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			until, why, err := gate.Frozen(c.windows, at(t, c.now), time.LoadLocation)
			switch {
			case err != nil:
				t.Fatal(err)
			case c.want == "" && (!until.IsZero() || why != ""):
				t.Errorf("frozen until %v: %s", until, why)
			case c.want != "" && !until.Equal(at(t, c.want)):
				t.Errorf("until %v, want %v (%s)", until, c.want, why)
			case len(c.contains) > 0 && (len(why) < len(c.contains) || why[:len(c.contains)] != c.contains && why[len(why)-len(c.contains):] != c.contains):
				t.Errorf("%q, want %q", why, c.contains)
			}
		})
	}
}

func TestWindowsThatCannotBeRead(t *testing.T) {
	good := gate.Window{From: "10:00", To: "11:00", Zone: "UTC"}
	for name, mar := range map[string]func(*gate.Window){
		"from": func(w *gate.Window) { w.From = "25:00" }, "to": func(w *gate.Window) { w.To = "x" },
		"zone": func(w *gate.Window) { w.Zone = "Mars/Olympus" }, "no zone": func(w *gate.Window) { w.Zone = "" },
		"the host's zone": func(w *gate.Window) { w.Zone = "Local" }, "day": func(w *gate.Window) { w.Days = []string{"monday"} },
		"until": func(w *gate.Window) { w.Until = "2026-02-30" },
	} {
		w := good
		mar(&w)
		if until, why, err := gate.Frozen([]gate.Window{good, w}, time.Unix(0, 0), time.LoadLocation); err == nil || !until.IsZero() || why != "" {
			t.Errorf("%s: %v, %q, %v", name, until, why, err)
		}
	}
}

// TestFrozenProperties compares with what the words say: a window of a zone without
// changes of the clock, minute by minute.
func TestFrozenProperties(t *testing.T) {
	days := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	rapid.Check(t, func(t *rapid.T) {
		var windows []gate.Window
		for range rapid.IntRange(0, 3).Draw(t, "windows") {
			minute := rapid.IntRange(0, 24*60-1)
			clock := func(label string) string {
				return time.Unix(int64(minute.Draw(t, label))*60, 0).UTC().Format("15:04")
			}
			windows = append(windows, gate.Window{
				Days: rapid.SliceOfNDistinct(rapid.SampledFrom(days), 0, 7, rapid.ID[string]).Draw(t, "days"),
				From: clock("from"), To: clock("to"), Zone: "Etc/GMT-5"})
		}
		zone := time.FixedZone("", 5*3600)
		within := func(at time.Time) bool {
			local := at.In(zone)
			for _, w := range windows {
				on := func(d time.Weekday) bool {
					for _, name := range w.Days {
						if name == days[d] {
							return true
						}
					}
					return len(w.Days) == 0
				}
				now := local.Format("15:04")
				today, yesterday := local.Weekday(), (local.Weekday()+6)%7
				if w.From < w.To && on(today) && now >= w.From && now < w.To ||
					w.From >= w.To && (on(today) && now >= w.From || on(yesterday) && now < w.To) {
					return true
				}
			}
			return false
		}
		now := time.Date(2026, 11, 24, 0, rapid.IntRange(0, 7*24*60).Draw(t, "now"), 0, 0, time.UTC)
		until, why, err := gate.Frozen(windows, now, time.LoadLocation)
		if err != nil {
			t.Fatal(err)
		}
		if within(now) != !until.IsZero() || within(now) != (why != "") {
			t.Fatalf("%v is within %v: %v, says %v (%s)", now, windows, within(now), until, why)
		}
		if until.IsZero() || until.Sub(now) > 30*24*time.Hour {
			return
		}
		if within(until) {
			t.Fatalf("frozen until %v, where it is frozen", until)
		}
		for m := now; m.Before(until); m = m.Add(time.Minute) {
			if !within(m) {
				t.Fatalf("frozen from %v until %v, but not at %v", now, until, m)
			}
		}
	})
}

func FuzzFrozen(f *testing.F) {
	f.Add("mon", "10:00", "11:00", "Europe/Berlin", "2026-12-24", int64(1e9))
	f.Add("", "02:30", "03:00", "America/New_York", "", int64(1806000000))
	f.Fuzz(func(t *testing.T, day, from, to, zone, until string, now int64) {
		w := gate.Window{Days: []string{day}, From: from, To: to, Zone: zone, Until: until}
		if day == "" {
			w.Days = nil
		}
		when := time.Unix(now%(1<<34), 0)
		end, why, err := gate.Frozen([]gate.Window{w}, when, time.LoadLocation)
		if err == nil && !end.IsZero() && (!end.After(when) || why == "") {
			t.Fatalf("%v at %v: until %v (%s)", w, when, end, why)
		}
	})
}
