package definition

import "testing"

func TestInTheClear(t *testing.T) {
	for address, want := range map[string]bool{
		"http://127.0.0.1:9/x": false, "http://127.8.0.1": false, "http://[::1]:9090": false, "http://[::1]/": false, "http://localhost:80/?a:b": false,
		"https://10.0.0.1": false, "http://10.0.0.1/": true, "http://127.example.test": true, "http://localhost.example.test/": true,
		"http://example.test#127.0.0.1": true, "http://a@10.0.0.1": true, "http://[fe80::1]:80": true, "http://127.0.0.1@example.test/": true,
	} {
		if got := inTheClear(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
