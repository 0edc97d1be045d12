package gate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ashlar-infra/ashlar/internal/gate"
)

func TestSchedule(t *testing.T) {
	for _, c := range []struct{ schedule, after, want string }{
		{"* * * * *", "2026-11-24 10:00 +0000", "2026-11-24 10:01 +0000"},
		{"0 3 * * *", "2026-11-24 03:00 +0000", "2026-11-25 03:00 +0000"},
		{"0 3 * * *", "2026-11-24 03:59 +0100", "2026-11-24 03:00 +0000"},
		{"*/15 9-17 * * mon-fri", "2026-11-27 17:45 +0000", "2026-11-30 09:00 +0000"},
		{"30 4 1,15 * 5", "2026-11-16 00:00 +0000", "2026-11-20 04:30 +0000"}, // crontab(5): one of the two days is enough
		{"30 4 1,15 * 5", "2026-11-28 00:00 +0000", "2026-12-01 04:30 +0000"},
		{"0 0 */2 * 1", "2026-11-24 00:00 +0000", "2026-12-07 00:00 +0000"}, // begins with *: both have to match
		{"0 0 * * 7", "2026-11-24 00:00 +0000", "2026-11-29 00:00 +0000"},
		{"0 0 * * 5-7", "2026-11-28 00:00 +0000", "2026-11-29 00:00 +0000"},
		{"0 0 29 feb *", "2096-03-01 00:00 +0000", "2104-02-29 00:00 +0000"}, // 2100 has none
		{"59 23 31 12 *", "2026-12-31 23:59 +0000", "2027-12-31 23:59 +0000"},
		{"0 0 31 * *", "2026-11-24 00:00 +0000", "2026-12-31 00:00 +0000"},
		{"5-5/2 0 1 JAN *", "2026-11-24 00:00 +0000", "2027-01-01 00:05 +0000"},
	} {
		s, err := gate.ParseSchedule(c.schedule)
		if err != nil {
			t.Errorf("%s: %v", c.schedule, err)
			continue
		}
		if got := s.Next(at(t, c.after)); !got.Equal(at(t, c.want)) {
			t.Errorf("%s after %s is %v, want %s", c.schedule, c.after, got, c.want)
		}
	}
	if got := (gate.Schedule{}).Next(time.Unix(0, 0)); !got.IsZero() {
		t.Errorf("the zero schedule is due at %v", got)
	}
}

func TestSchedulesThatCannotBeRead(t *testing.T) {
	for schedule, want := range map[string]string{
		"": "0 fields", "* * * *": "4 fields", "* * * * * *": "6 fields", "@daily": "1 fields",
		"60 * * * *": `minute "60"`, "* 24 * * *": `hour "24"`, "* * 0 * *": `day of the month "0"`, "* * * 13 *": `month "13"`,
		"* * * * 8": `day of the week "8"`, "5-1 * * * *": `minute "5-1"`, "*/0 * * * *": `minute "*/0"`, "5/2 * * * *": `minute "5/2"`,
		"1,, * * * *": `minute "1,,"`, "-1 * * * *": `minute "-1"`, "* * * anf *": `month "anf"`, "* * L * *": `"L"`,
		"0 0 30 feb *": "never comes", "0 0 31 4,6,9,11 *": "never comes", "+1 * * * *": `minute "+1"`,
	} {
		if _, err := gate.ParseSchedule(schedule); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", schedule, err, want)
		}
	}
}

// TestScheduleProperties draws sets, prints them, and compares with a search minute
// by minute.
func TestScheduleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, low, high int) (string, []int) {
			if rapid.Bool().Draw(t, name+" any") {
				var all []int
				for i := low; i <= high; i++ {
					all = append(all, i)
				}
				return "*", all
			}
			set := rapid.SliceOfNDistinct(rapid.IntRange(low, high), 1, 3, rapid.ID[int]).Draw(t, name)
			return strings.Trim(strings.ReplaceAll(fmt.Sprint(set), " ", ","), "[]"), set
		}
		minute, minutes := draw("minute", 0, 59)
		hour, hours := draw("hour", 0, 23)
		day, days := draw("day", 1, 31)
		weekday, weekdays := draw("weekday", 0, 6)
		s, err := gate.ParseSchedule(strings.Join([]string{minute, hour, day, "*", weekday}, " "))
		if err != nil {
			t.Fatal(err)
		}
		after := time.Unix(rapid.Int64Range(1.7e9, 2.0e9).Draw(t, "after"), 0).UTC()
		next := s.Next(after)
		due := func(m time.Time) bool {
			d, w := slices.Contains(days, m.Day()), slices.Contains(weekdays, int(m.Weekday()))
			on := d && w
			if day != "*" && weekday != "*" {
				on = d || w
			}
			return on && slices.Contains(hours, m.Hour()) && slices.Contains(minutes, m.Minute())
		}
		for m := after.Truncate(time.Minute).Add(time.Minute); ; m = m.Add(time.Minute) {
			if due(m) {
				if !m.Equal(next) {
					t.Fatalf("next is %v, want %v", next, m)
				}
				return
			}
		}
	})
}

func FuzzSchedule(f *testing.F) {
	for _, s := range []string{"* * * * *", "*/5 0-6,20 1 jan-mar sun", "0 0 29 2 */3", "1-59/7 * * * 7", "0 0 30 2 *"} {
		f.Add(s, int64(1.8e9))
	}
	f.Fuzz(func(t *testing.T, text string, after int64) {
		s, err := gate.ParseSchedule(text)
		if err != nil {
			return
		}
		when := time.Unix(after%(1<<34), 0)
		if next := s.Next(when); !next.After(when) || next.Second() != 0 {
			t.Fatalf("%q after %v is %v", text, when, next)
		}
	})
}
