package witness

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

const origin = "example.com/log"

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// tree is a log in memory that signs whatever it is told to.
type tree struct {
	signer note.Signer
	key    note.Verifier
	hashes []tlog.Hash
	size   int64
}

func newTree(t testing.TB) *tree {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return &tree{signer: signer, key: key}
}

// fork is another tree of the same log.
func (l *tree) fork() *tree { return &tree{signer: l.signer, key: l.key} }

func (l *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		if i >= int64(len(l.hashes)) {
			return nil, record.ErrNoHash
		}
		out = append(out, l.hashes[i])
	}
	return out, nil
}

func (l *tree) grow(t testing.TB, what string, n int) *tree {
	t.Helper()
	var leaves [][]byte
	for i := range n {
		leaves = append(leaves, fmt.Appendf(nil, "%s %d", what, i))
	}
	hashes, _, err := record.Append(l.size, leaves, l)
	if err != nil {
		t.Fatal(err)
	}
	l.hashes, l.size = append(l.hashes, hashes...), l.size+int64(n)
	return l
}

func (l *tree) signed(t testing.TB) []byte {
	t.Helper()
	root, err := record.Root(l.size, l)
	if err != nil {
		t.Fatal(err)
	}
	out, err := record.Checkpoint{Origin: origin, Size: l.size, Root: root}.Sign(l.signer)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (l *tree) proof(t testing.TB, old int64) record.ConsistencyProof {
	t.Helper()
	hashes, err := record.ProveConsistency(old, l.size, l)
	if err != nil {
		t.Fatal(err)
	}
	return record.ConsistencyProof{Old: old, Hashes: hashes, Checkpoint: l.signed(t)}
}

// start makes a witness in dir, with the key that is there, or a new one.
func start(t testing.TB, dir string, logs ...note.Verifier) (*httptest.Server, note.Verifier) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, keyFile)); err != nil {
		if _, err := Init(dir, "w.example/1"); err != nil {
			t.Fatal(err)
		}
	}
	key, err := LoadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(dir, key, logs, func() time.Time { return epoch }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	public, err := record.NewWitnessVerifier(key.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return server, public
}

func post(t testing.TB, server *httptest.Server, body []byte) (int, string, http.Header) {
	t.Helper()
	resp, err := http.Post(server.URL+"/add-checkpoint", "text/plain", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer), resp.Header
}

// The answers of https://c2sp.org/tlog-witness, after the witness has cosigned a log
// of 5 entries.
func TestProtocol(t *testing.T) {
	l := newTree(t).grow(t, "x", 5)
	forked := l.fork().grow(t, "y", 9)
	stranger := newTree(t).grow(t, "x", 9)
	server, key := start(t, t.TempDir(), l.key)
	first := l.signed(t)
	status, answer, _ := post(t, server, l.proof(t, 0).Marshal())
	got := record.Cosignatures(record.AddCosignatures(first, []byte(answer)), []note.Verifier{key})
	if status != 200 || len(got) != 1 || !got[0].Time.Equal(epoch) {
		t.Fatalf("%d %q: %+v", status, answer, got)
	}
	l.grow(t, "x", 4)
	tampered := l.proof(t, 5)
	tampered.Hashes = append(tlog.TreeProof{}, tampered.Hashes...)
	tampered.Hashes[0][3] ^= 1
	long := l.proof(t, 5)
	long.Hashes = make(tlog.TreeProof, 64)
	other := l.proof(t, 5)
	other.Checkpoint = bytes.Replace(other.Checkpoint, []byte(origin), []byte("example.com/lob"), 1)
	ahead := l.proof(t, 5)
	ahead.Old = 10
	for name, c := range map[string]struct {
		body   []byte
		status int
		answer string
	}{
		"nothing":                       {nil, 400, ""},
		"no proof":                      {[]byte("hello\n"), 400, ""},
		"more hashes than there can be": {long.Marshal(), 400, ""},
		"larger than any request":       {bytes.Repeat([]byte("x"), maxBody+1), 400, ""},
		"older than it says":            {ahead.Marshal(), 400, ""},
		"a log that is not known":       {other.Marshal(), 404, ""},
		"signed by another":             {stranger.proof(t, 5).Marshal(), 403, ""},
		"from another size":             {l.proof(t, 3).Marshal(), 409, "5\n"},
		"from nothing":                  {l.proof(t, 0).Marshal(), 409, "5\n"},
		"a proof that does not hold":    {tampered.Marshal(), 422, ""},
		"a fork":                        {forked.proof(t, 5).Marshal(), 422, ""},
		"a fork of the same size":       {l.fork().grow(t, "y", 5).proof(t, 5).Marshal(), 409, "5\n"},
		"rolled back":                   {l.fork().grow(t, "x", 3).proof(t, 3).Marshal(), 409, "5\n"},
	} {
		status, answer, header := post(t, server, c.body)
		if status != c.status || c.answer != "" && answer != c.answer {
			t.Errorf("%s: %d %q, want %d %q", name, status, answer, c.status, c.answer)
		}
		if status == 409 && header.Get("Content-Type") != "text/x.tlog.size" {
			t.Errorf("%s: %s", name, header.Get("Content-Type"))
		}
		if strings.Contains(answer, "—") {
			t.Errorf("%s was cosigned", name)
		}
		t.Attr("refused", fmt.Sprintf("status %d <- %s", status, name))
	}
	if status, _, _ := post(t, server, l.proof(t, 5).Marshal()); status != 200 {
		t.Errorf("after all that the true one gets %d", status)
	}
	if status, _, _ := post(t, server, l.proof(t, 9).Marshal()); status != 200 {
		t.Errorf("the same again gets %d", status)
	}
}

// A witness that starts again knows what it saw; one whose memory was touched does
// not start.
func TestWitnessRemembers(t *testing.T) {
	dir := t.TempDir()
	l := newTree(t).grow(t, "x", 5)
	server, _ := start(t, dir, l.key)
	if status, _, _ := post(t, server, l.proof(t, 0).Marshal()); status != 200 {
		t.Fatal(status)
	}
	server, _ = start(t, dir, l.key)
	if status, answer, _ := post(t, server, l.fork().grow(t, "y", 8).proof(t, 0).Marshal()); status != 409 || answer != "5\n" {
		t.Errorf("a fork after a restart: %d %q", status, answer)
	}
	resp, err := http.Get(server.URL + "/seen/" + origin)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is only read
	if seen, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(seen, l.signed(t)) {
		t.Errorf("monitors see %q, %v", seen, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "seen", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte(strings.Replace(string(l.signed(t)), "\n5\n", "\n3\n", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	key, err := LoadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(dir, key, []note.Verifier{l.key}, time.Now, slog.New(slog.DiscardHandler)); fault.Of(err) == nil || fault.Of(err).Kind != fault.Refused {
		t.Errorf("a witness with a changed memory: %v", err)
	}
	t.Attr("refused", "does not start <- a witness with a changed memory")
}

// Requests at the same moment cannot make a witness cosign backwards, or two logs
// of one size.
func TestRace(t *testing.T) {
	l := newTree(t)
	server, _ := start(t, t.TempDir(), l.key)
	var wait sync.WaitGroup
	cosigned := make(chan int64, 100)
	for i := range 20 {
		fork := l.fork().grow(t, fmt.Sprint("fork ", i), 1+i%4)
		body := fork.proof(t, 0).Marshal()
		wait.Go(func() {
			if status, _, _ := post(t, server, body); status == 200 {
				cosigned <- fork.size
			}
		})
	}
	wait.Wait()
	if len(cosigned) != 1 {
		t.Errorf("%d logs were cosigned from nothing", len(cosigned))
	}
}

func TestClient(t *testing.T) {
	l := newTree(t).grow(t, "x", 5)
	server, key := start(t, t.TempDir(), l.key)
	dir := t.TempDir()
	if _, err := Init(dir, "w.example/2"); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir, "w.example/2"); fault.Of(err) == nil || fault.Of(err).Kind != fault.Conflict {
		t.Errorf("a witness is made anew: %v", err)
	}
	ask := func(l *tree, known *int64) error {
		c := &Client{key: key, url: server.URL, http: http.DefaultClient}
		_, err := c.Cosign(t.Context(), l.signed(t), known, func(old int64) (record.ConsistencyProof, error) {
			hashes, err := record.ProveConsistency(old, l.size, l)
			return record.ConsistencyProof{Old: old, Hashes: hashes}, err
		})
		return err
	}
	known := int64(0)
	if err := ask(l, &known); err != nil || known != 5 {
		t.Fatalf("%d, %v", known, err)
	}
	l.grow(t, "x", 3)
	known = 0 // as after a restart of the server: it learns what the witness knows
	if err := ask(l, &known); err != nil || known != 8 {
		t.Errorf("%d, %v", known, err)
	}
	if err := ask(l.fork().grow(t, "y", 8), &known); err == nil || !strings.Contains(err.Error(), "forked") {
		t.Errorf("a fork: %v", err)
	}
	if err := ask(l.fork().grow(t, "x", 2), &known); err == nil {
		t.Error("a log that was rolled back is cosigned")
	}
	for _, bad := range []string{"", "key http://a", "w.example/1+00000000+AAAA http://a", "ftp://a"} {
		if _, err := NewClient(bad, http.DefaultClient); fault.Of(err) == nil || fault.Of(err).Kind != fault.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzAddCheckpoint(f *testing.F) {
	l := newTree(f).grow(f, "x", 5)
	f.Add(l.proof(f, 0).Marshal())
	f.Add(l.proof(f, 3).Marshal())
	dir := f.TempDir()
	if _, err := Init(dir, "w.example/1"); err != nil {
		f.Fatal(err)
	}
	key, err := LoadKey(dir)
	if err != nil {
		f.Fatal(err)
	}
	s, err := New(dir, key, []note.Verifier{l.key}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	good := l.signed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/add-checkpoint", bytes.NewReader(body)))
		if text, _, _ := bytes.Cut(good, []byte("\n\n")); w.Code == 200 && !bytes.Contains(body, text) {
			t.Errorf("%q was cosigned", body)
		}
	})
}
