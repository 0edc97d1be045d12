package registry

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// SetUser puts a line for a user into a file of users, in place of the one that is
// there; an empty line takes it out. The file appears whole or not at all.
func SetUser(path, name, line string) error {
	raw, err := os.ReadFile(path)
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || line == "") {
		return fault.New(fault.NotFound, "the file of users cannot be read: %w", err).At(path)
	}
	var kept []string
	found := false
	for l := range strings.Lines(string(raw)) {
		l = strings.TrimRight(l, "\r\n")
		if strings.HasPrefix(strings.TrimSpace(l), name+":") {
			found = true
			continue
		}
		kept = append(kept, l)
	}
	switch {
	case line != "":
		kept = append(kept, line)
	case !found:
		return fault.New(fault.NotFound, "there is no user %q", name).At(path)
	}
	text := strings.Join(kept, "\n") + "\n"
	if _, err := parseUsers([]byte(text)); err != nil {
		return fault.Of(err).At(path)
	}
	if err := durable.Replace(path, []byte(text), 0o600); err != nil {
		return fault.New(fault.Unavailable, "the file of users cannot be written: %w", err).At(path)
	}
	return nil
}
