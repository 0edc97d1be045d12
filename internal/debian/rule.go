package debian

// Rule stands in for the maintainer scripts of some packages: it says, as data,
// what they would have done when the packages are first installed into an empty
// system. Paths are relative to the root and as they are after usrmerge. What a
// rule adds is added only where nothing is, as the scripts do; Owners alone change
// what a package shipped.
//
// The number in a name is raised whenever the rule's effect changes, so that trees
// which were cached under the old one are made again.
type Rule struct {
	Name     string   // e.g. nginx/1
	Packages []string // whose scripts it stands for; empty: it applies to every tree
	Why      string   // what the scripts do, and what of it is left out

	Users        []User
	Groups       []Group
	Dirs         []Dir
	Files        []File
	Links        []Link
	Owners       []Owner
	Alternatives []Alternative
	Tmpfiles     []string // names below usr/lib/tmpfiles.d whose lines apply
	Shadow       bool     // passwords move to /etc/shadow
	Make         string   // a derivation that data cannot tell; see derive
}

// User is a system account with a group of the same name and number unless Group
// is set.
type User struct {
	Name  string
	UID   int    // 0: derived from the name, see accounts.free
	Group string // primary group that exists; empty: one of its own
	Gecos string
	Home  string // default /nonexistent
	Shell string // default /usr/sbin/nologin
}

// Group is a system group.
type Group struct {
	Name string
	GID  int // 0: derived from the name
}

// Dir is a directory.
type Dir struct {
	Path         string
	Mode         uint32
	Owner, Group string // names; default root
}

// File is a file with fixed content or a copy of another one.
type File struct {
	Path         string
	Mode         uint32
	Owner, Group string
	Text         string
	Copy         string // path to copy from; must exist
}

// Link is a symbolic link.
type Link struct {
	Path string
	To   string
	If   string // only if this path exists; empty: always
}

// Owner changes mode and owner of what is there; nothing happens when it is not.
type Owner struct {
	Path         string
	Mode         uint32
	Owner, Group string
}

// Alternative is one provider of a name that several packages may provide
// (update-alternatives(1)). Paths are absolute, as scripts write them.
type Alternative struct {
	Link, Name, Path string
	Priority         string // decimal; the highest wins
	Slaves           []Alternative
}
