package rollout_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write what happened into testdata/*.txt, to be read and committed")

// TestTranscripts plays testdata/*.txt. A line that begins with # is for the
// reader, any other that is not indented is a command (see stage.run), and the
// indented lines below it are what came of it. Read canary.txt first.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, file, string(want))
			if bytes.Equal(want, []byte(got)) {
				return
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s tells another story (-want +got); if it is the better one: go test ./internal/rollout -rewrite\n%s", file, cmp.Diff(string(want), got))
		})
	}
}

// play gives the transcript anew: its comments and commands with what comes of them.
func play(t *testing.T, file, transcript string) string {
	t.Helper()
	st := newStage()
	var out strings.Builder
	for n, line := range strings.Split(strings.TrimRight(transcript, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, " "):
			continue // what came of it the last time
		case line == "" || strings.HasPrefix(line, "#"):
			fmt.Fprintln(&out, line)
			continue
		}
		fmt.Fprintln(&out, line)
		answer, err := st.run(line)
		if err != nil {
			t.Fatalf("%s:%d: %s: %v", file, n+1, line, err)
		}
		for _, a := range answer {
			fmt.Fprintln(&out, "    "+a)
		}
	}
	return out.String()
}

// clone takes a value through its JSON, as the store does.
func clone[T any](v T) T {
	var c T
	if err := json.Unmarshal(marshal(v), &c); err != nil {
		panic(err)
	}
	return c
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
