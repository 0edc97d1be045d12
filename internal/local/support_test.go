package local

import "testing"

func TestSupport(t *testing.T) {
	for _, c := range Support(t.Context(), programs.runc, programs.shim) {
		if !c.OK || c.Detail == "" || c.Name == "" {
			t.Errorf("%+v", c)
		}
	}
	for _, c := range Support(t.Context(), "/nowhere/runc", "/nowhere/shim") {
		if bad := c.Name == "runc" || c.Name == "seccomp" || c.Name == "shim"; c.OK == bad || bad && c.Fix == "" {
			t.Errorf("%+v", c)
		}
	}
}
