package debian

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// accounts are the lines of passwd(5) and group(5) under way.
type accounts struct {
	users  []user
	groups []Group
	member map[string][]string // group to members, in order
	shadow bool
}

type user struct {
	User
	gid int
}

// Numbers of system accounts that have none of their own: above the rules' own
// (101 to 199), below 1000 (policy 9.2.2).
const (
	firstFree = 200
	lastFree  = 998
)

// basePasswd and baseGroup are the accounts that Debian allocates for ever
// (policy 9.2.2), for trees without the package base-passwd.
const basePasswd = `root:*:0:0:root:/root:/bin/bash
daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:*:2:2:bin:/bin:/usr/sbin/nologin
sys:*:3:3:sys:/dev:/usr/sbin/nologin
sync:*:4:65534:sync:/bin:/bin/sync
games:*:5:60:games:/usr/games:/usr/sbin/nologin
man:*:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:*:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:*:8:8:mail:/var/mail:/usr/sbin/nologin
news:*:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:*:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:*:13:13:proxy:/bin:/usr/sbin/nologin
www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin
backup:*:34:34:backup:/var/backups:/usr/sbin/nologin
list:*:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin
irc:*:39:39:ircd:/run/ircd:/usr/sbin/nologin
_apt:*:42:65534::/nonexistent:/usr/sbin/nologin
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`

const baseGroup = `root:*:0:
daemon:*:1:
bin:*:2:
sys:*:3:
adm:*:4:
tty:*:5:
disk:*:6:
lp:*:7:
mail:*:8:
news:*:9:
uucp:*:10:
man:*:12:
proxy:*:13:
kmem:*:15:
dialout:*:20:
fax:*:21:
voice:*:22:
cdrom:*:24:
floppy:*:25:
tape:*:26:
sudo:*:27:
audio:*:29:
dip:*:30:
www-data:*:33:
backup:*:34:
operator:*:37:
list:*:38:
irc:*:39:
src:*:40:
shadow:*:42:
utmp:*:43:
video:*:44:
sasl:*:45:
plugdev:*:46:
staff:*:50:
games:*:60:
users:*:100:
nogroup:*:65534:
`

// newAccounts reads a passwd and a group file.
func newAccounts(passwd, group string) (*accounts, error) {
	a := &accounts{member: map[string][]string{}}
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 7 {
			return nil, fmt.Errorf("passwd: line %s has not 7 fields", clip(line))
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("passwd: line %s has no numbers", clip(line))
		}
		a.users = append(a.users, user{User{Name: f[0], UID: uid, Gecos: f[4], Home: f[5], Shell: f[6]}, gid})
	}
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 4 {
			return nil, fmt.Errorf("group: line %s has not 4 fields", clip(line))
		}
		gid, err := strconv.Atoi(f[2])
		if err != nil {
			return nil, fmt.Errorf("group: line %s has no number", clip(line))
		}
		a.groups = append(a.groups, Group{f[0], gid})
		if f[3] != "" {
			a.member[f[0]] = strings.Split(f[3], ",")
		}
	}
	return a, nil
}

func (a *accounts) uid(name string) (int, bool) {
	for _, u := range a.users {
		if u.Name == name {
			return u.UID, true
		}
	}
	return 0, false
}

func (a *accounts) gid(name string) (int, bool) {
	for _, g := range a.groups {
		if g.Name == name {
			return g.GID, true
		}
	}
	return 0, false
}

func (a *accounts) taken(id int) bool {
	return slices.ContainsFunc(a.users, func(u user) bool { return u.UID == id }) ||
		slices.ContainsFunc(a.groups, func(g Group) bool { return g.GID == id })
}

// free derives a number from a name: the same in every tree unless two names of
// one tree collide, when the later one takes the next.
func (a *accounts) free(name string) int {
	h := fnv.New32a()
	h.Write([]byte(name)) //nolint:errcheck // a hash never fails
	const room = lastFree - firstFree + 1
	for i := range room {
		if id := firstFree + (int(h.Sum32()%room)+i)%room; !a.taken(id) {
			return id
		}
	}
	return lastFree // 799 accounts are more than any closure has
}

func (a *accounts) addGroup(g Group) error {
	if _, ok := a.gid(g.Name); ok {
		return nil
	}
	if g.GID == 0 {
		g.GID = a.free(g.Name)
	}
	for _, other := range a.groups {
		if other.GID == g.GID {
			return fault.New(fault.Invalid, "the groups %s and %s have the same number %d", other.Name, g.Name, g.GID)
		}
	}
	a.groups = append(a.groups, g)
	return nil
}

func (a *accounts) addUser(u User) error {
	if _, ok := a.uid(u.Name); ok {
		return nil
	}
	if u.UID == 0 {
		u.UID = a.free(u.Name)
	}
	for _, other := range a.users {
		if other.UID == u.UID {
			return fault.New(fault.Invalid, "the users %s and %s have the same number %d", other.Name, u.Name, u.UID)
		}
	}
	if u.Group == "" {
		if err := a.addGroup(Group{u.Name, u.UID}); err != nil {
			return err
		}
		u.Group = u.Name
	}
	if u.Home == "" {
		u.Home = "/nonexistent"
	}
	if u.Shell == "" {
		u.Shell = "/usr/sbin/nologin"
	}
	gid, ok := a.gid(u.Group)
	if !ok {
		return fault.New(fault.Invalid, "user %s wants the group %s, which no package makes", u.Name, u.Group)
	}
	a.users = append(a.users, user{u, gid})
	return nil
}

// files renders the databases. A locked password is "*", in shadow where it is on.
func (a *accounts) files(epoch int64) map[string]File {
	password := "*"
	if a.shadow {
		password = "x"
	}
	var passwd, group, shadow, gshadow strings.Builder
	for _, u := range a.users {
		fmt.Fprintf(&passwd, "%s:%s:%d:%d:%s:%s:%s\n", u.Name, password, u.UID, u.gid, u.Gecos, u.Home, u.Shell)
		fmt.Fprintf(&shadow, "%s:*:%d:0:99999:7:::\n", u.Name, epoch/86400)
	}
	for _, g := range a.groups {
		members := strings.Join(a.member[g.Name], ",")
		fmt.Fprintf(&group, "%s:%s:%d:%s\n", g.Name, password, g.GID, members)
		fmt.Fprintf(&gshadow, "%s:*::%s\n", g.Name, members)
	}
	out := map[string]File{
		"etc/passwd": {Mode: 0o644, Text: passwd.String()},
		"etc/group":  {Mode: 0o644, Text: group.String()},
	}
	if a.shadow {
		out["etc/shadow"] = File{Mode: 0o640, Group: "shadow", Text: shadow.String()}
		out["etc/gshadow"] = File{Mode: 0o640, Group: "shadow", Text: gshadow.String()}
	}
	return out
}
