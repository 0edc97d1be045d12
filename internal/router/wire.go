package router

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// readTable reads the table that a server sends, and gives its text too.
func readTable(w http.ResponseWriter, req *http.Request) (rollout.Table, []byte, error) {
	body := http.MaxBytesReader(w, req.Body, maxTableBytes)
	text := bytes.NewBuffer(make([]byte, 0, min(max(req.ContentLength, 0), maxTableBytes)+bytes.MinRead)) // read in one go
	if _, err := io.Copy(text, body); err != nil {
		return rollout.Table{}, nil, unreadable(err)
	}
	table, err := decodeTable(text.Bytes())
	return table, text.Bytes(), err
}

// decodeTable reads one table as JSON. Unknown keys, from a newer server, are
// ignored; anything after the table is refused.
func decodeTable(text []byte) (rollout.Table, error) {
	var in struct {
		rollout.Table
		Services []struct {
			rollout.Service
			Backends json.RawMessage `json:"backends"`
		} `json:"services"`
	}
	short, lists := lift(text)
	if err := json.Unmarshal(short, &in); err != nil {
		return rollout.Table{}, unreadable(err)
	}
	out := in.Table
	for _, s := range in.Services {
		svc := s.Service
		if list, lifted := lists[string(s.Backends)]; lifted {
			svc.Backends = list
		} else if s.Backends != nil {
			if err := json.Unmarshal(s.Backends, &svc.Backends); err != nil {
				return rollout.Table{}, unreadable(err)
			}
		}
		out.Services = append(out.Services, svc)
	}
	return out, nil
}

func unreadable(err error) error {
	return fault.New(fault.Invalid, "the routing table is not readable: %w", err)
}

// lift takes lists of backends out of a table, as far as they are spelled as package json
// spells them, and puts a word in the place of each. A switch of a thousand waits for
// them to be read, and package json takes ten times as long. What is left is valid JSON
// if the text was, and only then.
func lift(text []byte) (short []byte, lists map[string][]rollout.Backend) {
	key := []byte(`"backends":`)
	word := `"lifted`
	for bytes.Contains(text, []byte(word)) {
		word += "-"
	}
	lists = map[string][]rollout.Backend{}
	for {
		at := bytes.Index(text, key)
		if at < 1 {
			return append(short, text...), lists
		}
		begin := at + len(key)
		list, rest, plain := plainList(text[begin:])
		// A quote after one of these begins a key, or the text is no JSON.
		if plain = plain && (text[at-1] == ',' || text[at-1] == '{'); !plain {
			short, text = append(short, text[:begin]...), text[begin:]
			continue
		}
		name := word + strconv.Itoa(len(lists)) + `"`
		short, text = append(append(short, text[:begin]...), name...), rest
		lists[name] = list
	}
}

// plainList reads a list at the beginning of the text, and gives what follows it.
func plainList(text []byte) (list []rollout.Backend, rest []byte, plain bool) {
	for before := byte('['); ; before = ',' {
		end := bytes.IndexByte(text, '}')
		if end < 0 || text[0] != before {
			return nil, nil, false
		}
		s := spelling{rest: string(text[1 : end+1]), plain: true}
		list = append(list, s.backend())
		if text = text[end+1:]; !s.plain || len(text) == 0 {
			return nil, nil, false
		}
		if text[0] == ']' {
			return list, text[1:], true
		}
	}
}

// spelling is what is left to read of an object, and whether all of it was as expected.
type spelling struct {
	rest  string
	plain bool
}

func (s *spelling) backend() (b rollout.Backend) {
	b.ID = s.text(`{"id":"`)
	b.Address = s.text(`,"address":"`)
	b.Weight = s.number(`,"weight":`)
	if strings.HasPrefix(s.rest, ",") {
		b.Release = s.text(`,"release":"`)
	}
	s.plain = s.plain && s.rest == "}"
	return b
}

// text reads a key, and the string after it, in which nothing needs to be escaped.
func (s *spelling) text(key string) string {
	rest, found := strings.CutPrefix(s.rest, key)
	value, rest, ended := strings.Cut(rest, `"`)
	s.plain = s.plain && found && ended && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' || r == '\\' })
	s.rest = rest
	return value
}

// number reads a key, and the whole number after it.
func (s *spelling) number(key string) int {
	rest, found := strings.CutPrefix(s.rest, key)
	end := max(strings.IndexAny(rest, ",}"), 0)
	n, _ := strconv.Atoi(rest[:end])
	s.plain = s.plain && found && strconv.Itoa(n) == rest[:end]
	s.rest = rest[end:]
	return n
}
