package admission

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/ledger"
)

func TestPackagesOf(t *testing.T) {
	book := func(origins ...ledger.Origin) *ledger.Book {
		return &ledger.Book{Chapters: []ledger.Chapter{{Origins: origins}}}
	}
	ssl := ledger.Origin{Kind: ledger.KindDebian, Name: "libssl3", Version: "3.0.1-1", Distribution: "bookworm-security", Source: "openssl", SourceVersion: "3.0.1-1"}
	tool := ssl
	tool.Name = "openssl"
	program := ledger.Origin{Kind: ledger.KindGo, Name: "x/cmd/web", Version: "go1.26.8", Go: &ledger.Program{Modules: []ledger.Module{{Path: "golang.org/x/net", Version: "v0.1.0"}}}}
	for name, c := range map[string]struct {
		book  *ledger.Book
		want  string
		known bool
	}{
		"packages":                  {book(ssl, tool, program, ledger.Origin{Kind: ledger.KindFile}, ledger.Origin{Kind: ledger.KindArchive}), "Debian:12 openssl 3.0.1-1, Go golang.org/x/net v0.1.0, Go stdlib 1.26.8", true},
		"nothing but files":         {book(ledger.Origin{Kind: ledger.KindFile}), "", true},
		"an image":                  {book(program, ledger.Origin{Kind: ledger.KindImage}), "Go golang.org/x/net v0.1.0, Go stdlib 1.26.8", false},
		"a release nobody numbered": {book(ledger.Origin{Kind: ledger.KindDebian, Name: "a", Version: "1", Distribution: "warty"}), "Debian: a 1", false},
	} {
		got, known := PackagesOf(c.book)
		var words []string
		for _, p := range got {
			words = append(words, fmt.Sprint(p.Name.Ecosystem, " ", p.Name.Package, " ", p.Version))
		}
		if text := strings.Join(words, ", "); text != c.want || known != c.known {
			t.Errorf("%s: %q %v", name, text, known)
		}
	}
}
