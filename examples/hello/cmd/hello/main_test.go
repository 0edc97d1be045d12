package main

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAnswers(t *testing.T) {
	for path, want := range map[string]string{"/healthz": "ok", "/": "hello " + version} {
		w := httptest.NewRecorder()
		handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("GET %s: %d %q, want %q in it", path, w.Code, w.Body.String(), want)
		}
	}
}
