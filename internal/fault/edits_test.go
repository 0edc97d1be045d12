package fault

import "testing"

func TestEdits(t *testing.T) {
	for _, tt := range []struct {
		a, b        string
		limit, want int
	}{
		{"", "", 3, 0}, {"web", "web", 3, 0}, {"", "web", 9, 3}, {"cannary", "canary", 3, 1}, {"canray", "canary", 3, 1},
		{"kitten", "sitting", 9, 3}, {"kitten", "sitting", 2, 2}, {"a", "abcdef", 3, 3},
	} {
		for _, swapped := range []bool{false, true} {
			a, b := tt.a, tt.b
			if swapped {
				a, b = b, a
			}
			if got := Edits(a, b, tt.limit); got != tt.want {
				t.Errorf("Edits(%q, %q, %d) = %d, want %d", a, b, tt.limit, got, tt.want)
			}
		}
	}
}
