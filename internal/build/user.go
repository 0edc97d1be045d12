package build

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// nobody is the user and group of a component that names none: nobody's files
// are theirs.
const nobody = 65532

// accountLimit is the largest /etc/passwd or /etc/group that is read, in bytes.
const accountLimit = 4 << 20

// reader gives the bytes of an object, checked: an object.Store or an object.Batch.
type reader interface {
	ReadAll(d digest.Digest, limit int64) ([]byte, error)
}

// resolveUser turns "name", "uid", "name:group" or "uid:gid" into numbers, looking
// names up in the artifact's own /etc/passwd and /etc/group. Without a group it
// is the user's primary one; of a number that is not in /etc/passwd, the same number.
func resolveUser(objects reader, root image.Tree, user string) (uid, gid int, err error) {
	if user == "" {
		return nobody, nobody, nil
	}
	name, group, withGroup := strings.Cut(user, ":")
	users, err := accounts(objects, root, "etc/passwd", 4)
	if err != nil {
		return 0, 0, err
	}
	u, known := users.find(name)
	if !known {
		if u.id, err = strconv.Atoi(name); err != nil {
			return 0, 0, users.unknown("user", name)
		}
		u.group = u.id
	}
	if !withGroup {
		return u.id, u.group, nil
	}
	if gid, err := strconv.Atoi(group); err == nil {
		return u.id, gid, nil
	}
	groups, err := accounts(objects, root, "etc/group", 3)
	if err != nil {
		return 0, 0, err
	}
	g, known := groups.find(group)
	if !known {
		return 0, 0, groups.unknown("group", group)
	}
	return u.id, g.id, nil
}

type account struct {
	name      string
	id, group int
}

type accountFile struct {
	path string
	list []account
}

// accounts reads passwd(5) or group(5). Lines that are not in the format are passed over.
func accounts(objects reader, root image.Tree, name string, fields int) (accountFile, error) {
	file := accountFile{path: "/" + name}
	at, err := root.Resolve(name)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	if err != nil {
		return file, err
	}
	e, ok := root.Lookup(at)
	if !ok || e.Type != image.File {
		return file, nil
	}
	b, err := objects.ReadAll(e.Digest, accountLimit)
	if err != nil {
		return file, err
	}
	for line := range strings.Lines(string(b)) {
		part := strings.Split(strings.TrimSpace(line), ":")
		if len(part) < fields {
			continue
		}
		a := account{name: part[0]}
		if a.id, err = strconv.Atoi(part[2]); err != nil {
			continue
		}
		if fields > 3 {
			if a.group, err = strconv.Atoi(part[3]); err != nil {
				continue
			}
		}
		file.list = append(file.list, a)
	}
	return file, nil
}

// find looks for a name, then for a number.
func (f accountFile) find(name string) (account, bool) {
	for _, a := range f.list {
		if a.name == name {
			return a, true
		}
	}
	id, err := strconv.Atoi(name)
	if err != nil {
		return account{}, false
	}
	for _, a := range f.list {
		if a.id == id {
			return a, true
		}
	}
	return account{}, false
}

func (f accountFile) unknown(what, name string) error {
	e := fault.New(fault.Invalid, "there is no %s %q in the artifact's %s", what, name, f.path)
	if len(f.list) == 0 {
		return e.Detail("the artifact has no " + f.path).
			Mend("write a number, as in  user: \"65532:65532\"")
	}
	names := make([]string, len(f.list))
	for i, a := range f.list {
		names[i] = a.name
	}
	slices.Sort(names)
	return e.Detail("known: " + strings.Join(slices.Compact(names), ", ")).
		Mend("choose one of them, or write a number")
}
