package debian

import "slices"

// Rules is the table of all rules in the order they are applied.
func Rules() []Rule { return slices.Concat(commonRules(), baseRules(), serviceRules(), lastRules()) }

// commonRules apply to every tree.
func commonRules() []Rule {
	return []Rule{{
		Name: "usrmerge/1",
		Why:  "the root has links to the directories that were merged into /usr, and /var/run and /var/lock lead to /run",
		Dirs: []Dir{{Path: "usr/bin", Mode: 0o755}, {Path: "usr/lib", Mode: 0o755}, {Path: "usr/sbin", Mode: 0o755}},
		Links: []Link{
			{Path: "bin", To: "usr/bin"}, {Path: "lib", To: "usr/lib"}, {Path: "sbin", To: "usr/sbin"},
			{Path: "lib32", To: "usr/lib32", If: "usr/lib32"}, {Path: "lib64", To: "usr/lib64", If: "usr/lib64"},
			{Path: "libo32", To: "usr/libo32", If: "usr/libo32"}, {Path: "libx32", To: "usr/libx32", If: "usr/libx32"},
			{Path: "var/run", To: "/run"}, {Path: "var/lock", To: "/run/lock"},
		},
	}, {
		Name: "directories/1",
		Why:  "the directories of the Filesystem Hierarchy Standard that every program may count on, and mount points",
		Dirs: []Dir{
			{Path: "dev", Mode: 0o755}, {Path: "proc", Mode: 0o555}, {Path: "sys", Mode: 0o555},
			{Path: "run", Mode: 0o755}, {Path: "run/lock", Mode: 0o1777}, {Path: "tmp", Mode: 0o1777}, {Path: "var/tmp", Mode: 0o1777},
			{Path: "root", Mode: 0o700}, {Path: "home", Mode: 0o755}, {Path: "etc", Mode: 0o755}, {Path: "var/cache", Mode: 0o755},
			{Path: "var/lib", Mode: 0o755}, {Path: "var/log", Mode: 0o755}, {Path: "var/spool", Mode: 0o755},
		},
	}, {
		Name: ruleAccounts,
		Why:  "base-passwd's accounts, of which every program finds root, nobody and www-data, and those of other rules",
	}, {
		Name: "os-release/1",
		Why:  "which Debian release this is, unless base-files tells it",
		Make: "os-release",
	}, {
		Name: ruleDebhelper,
		Why:  "alternatives, tmpfiles.d and sysusers.d as debhelper's blocks in scripts declare them, see recognise",
	}}
}

// baseRules are for packages that most closures have.
func baseRules() []Rule {
	return []Rule{{
		Name: "nothing/1",
		Packages: []string{
			"adduser", "base-passwd", "coreutils", "debconf", "dpkg", "git", "init-system-helpers", "iproute2", "iputils-ping", "libc6",
			"libgcrypt20", "libgssapi-krb5-2", "libpam0g", "libpython3.11-minimal", "nginx", "openssl", "perl", "perl-base",
			"python3-minimal", "python3.11", "usrmerge",
		},
		Why: "their scripts mend upgrades, ask debconf, start services, set file capabilities or compile bytecode; a first " +
			"installation into an image needs none of it",
	}, {
		Name:     "base-files/1",
		Packages: []string{"base-files"},
		Why:      "copies of the defaults, directories and log files; /usr/local belongs to root",
		Dirs: []Dir{
			{Path: "mnt", Mode: 0o755}, {Path: "srv", Mode: 0o755}, {Path: "opt", Mode: 0o755}, {Path: "etc/opt", Mode: 0o755},
			{Path: "var/opt", Mode: 0o755}, {Path: "media", Mode: 0o755}, {Path: "var/mail", Mode: 0o2775, Group: "mail"},
			{Path: "usr/local", Mode: 0o755}, {Path: "usr/local/share", Mode: 0o755}, {Path: "usr/local/share/man", Mode: 0o755},
			{Path: "usr/local/bin", Mode: 0o755}, {Path: "usr/local/games", Mode: 0o755}, {Path: "usr/local/lib", Mode: 0o755},
			{Path: "usr/local/include", Mode: 0o755}, {Path: "usr/local/sbin", Mode: 0o755}, {Path: "usr/local/src", Mode: 0o755},
			{Path: "usr/local/etc", Mode: 0o755},
		},
		Files: []File{
			{Path: "root/.profile", Mode: 0o644, Copy: "usr/share/base-files/dot.profile"},
			{Path: "root/.bashrc", Mode: 0o644, Copy: "usr/share/base-files/dot.bashrc"},
			{Path: "etc/profile", Mode: 0o644, Copy: "usr/share/base-files/profile"},
			{Path: "etc/motd", Mode: 0o644, Copy: "usr/share/base-files/motd"},
			{Path: "var/log/wtmp", Mode: 0o664, Group: "utmp"}, {Path: "var/log/btmp", Mode: 0o660, Group: "utmp"},
			{Path: "var/log/lastlog", Mode: 0o664, Group: "utmp"},
		},
		Links: []Link{
			{Path: "etc/dpkg/origins/default", To: "debian", If: "etc/dpkg/origins/debian"},
			{Path: "var/spool/mail", To: "../mail"}, {Path: "usr/local/man", To: "share/man"},
		},
	}, {
		Name:     "bash/1",
		Packages: []string{"bash"},
		Why:      "the manual page's alternative, and /bin/sh where dash is not",
		Links:    []Link{{Path: "usr/bin/sh", To: "bash"}},
		Alternatives: []Alternative{{
			Link: "/usr/share/man/man7/builtins.7.gz", Name: "builtins.7.gz", Path: "/usr/share/man/man7/bash-builtins.7.gz", Priority: "10",
		}},
	}, {
		Name:     "dash/1",
		Packages: []string{"dash"},
		Why:      "/bin/sh and its manual page; the diversions they need on a living system are left out",
		Links:    []Link{{Path: "usr/bin/sh", To: "dash"}, {Path: "usr/share/man/man1/sh.1.gz", To: "dash.1.gz", If: "usr/share/man/man1/dash.1.gz"}},
	}, {
		Name:     "ca-certificates/1",
		Packages: []string{"ca-certificates"},
		Why:      "every shipped certificate is trusted: the bundle, the links by name and by OpenSSL's subject hash, the list",
		Dirs:     []Dir{{Path: "usr/local/share/ca-certificates", Mode: 0o755}, {Path: "etc/ssl/certs", Mode: 0o755}},
		Make:     "ca-certificates",
	}, {
		Name:     "debianutils/1",
		Packages: []string{"debianutils"},
		Why:      "/etc/shells of the shells that are there, and which",
		Make:     "shells",
		Alternatives: []Alternative{{
			Link: "/usr/bin/which", Name: "which", Path: "/usr/bin/which.debianutils", Priority: "0",
			Slaves: []Alternative{{Link: "/usr/share/man/man1/which.1.gz", Name: "which.1.gz", Path: "/usr/share/man/man1/which.debianutils.1.gz"}},
		}},
	}, {
		Name:     "libc-bin/1",
		Packages: []string{"libc-bin"},
		Why:      "nsswitch.conf; no ld.so.cache, since libraries are found in the linker's own directories without it",
		Files:    []File{{Path: "etc/nsswitch.conf", Mode: 0o644, Copy: "usr/share/libc-bin/nsswitch.conf"}},
	}, {
		Name:     "libpam-modules/1",
		Packages: []string{"libpam-modules"},
		Why:      "the list of old passwords and the environment file",
		Files:    []File{{Path: "etc/security/opasswd", Mode: 0o600}, {Path: "etc/environment", Mode: 0o644}},
	}, {
		Name:     "login/1",
		Packages: []string{"login"},
		Why:      "empty files that programs want to exist",
		Files:    []File{{Path: "var/log/faillog", Mode: 0o644}, {Path: "etc/subuid", Mode: 0o644}, {Path: "etc/subgid", Mode: 0o644}},
	}, {
		Name:     "netbase/1",
		Packages: []string{"netbase"},
		Why:      "the networks file; /etc/hosts belongs to the platform that runs an instance",
		Files:    []File{{Path: "etc/networks", Mode: 0o644, Text: "default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n\n"}},
	}, {
		Name:     "openssh-client/1",
		Packages: []string{"openssh-client"},
		Why:      "the agent's group; its set-group-id bit is stripped as all are",
		Groups:   []Group{{Name: "_ssh", GID: 110}},
		Owners:   []Owner{{Path: "usr/bin/ssh-agent", Mode: 0o755, Group: "_ssh"}},
	}, {
		Name:     "passwd/1",
		Packages: []string{"passwd"},
		Why:      "shadow passwords",
		Shadow:   true,
	}, {
		Name:     "procps/1",
		Packages: []string{"procps"},
		Why:      "its alternatives exist for names it ships itself; the rest mends upgrades",
	}, {
		Name:     "python3/1",
		Packages: []string{"python3"},
		Why:      "its configuration; modules are not compiled ahead",
		Files:    []File{{Path: "etc/python3/debian_config", Mode: 0o644, Text: "[DEFAULT]\n# how to byte-compile (comma separated: standard, optimize)\nbyte-compile = standard\n"}},
	}, {
		Name:     "python3.11/1",
		Packages: []string{"python3.11-minimal"},
		Why:      "the directory for local modules; modules are not compiled ahead",
		Dirs:     []Dir{{Path: "usr/local/lib/python3.11/dist-packages", Mode: 0o755}},
	}, {
		Name:     "readline/1",
		Packages: []string{"readline-common"},
		Why:      "inputrc",
		Files:    []File{{Path: "etc/inputrc", Mode: 0o644, Copy: "usr/share/readline/inputrc"}},
	}, {
		Name:     "tar/1",
		Packages: []string{"tar"},
		Why:      "the alternative of rmt",
		Alternatives: []Alternative{{
			Link: "/usr/sbin/rmt", Name: "rmt", Path: "/usr/sbin/rmt-tar", Priority: "50",
			Slaves: []Alternative{{Link: "/usr/share/man/man8/rmt.8.gz", Name: "rmt.8.gz", Path: "/usr/share/man/man8/rmt-tar.8.gz"}},
		}},
	}, {
		Name:     "tzdata/1",
		Packages: []string{"tzdata"},
		Why:      "the time zone is UTC",
		Links:    []Link{{Path: "etc/localtime", To: "/usr/share/zoneinfo/Etc/UTC"}},
		Files:    []File{{Path: "etc/timezone", Mode: 0o644, Text: "Etc/UTC\n"}},
	}, {
		Name:     "ucf/1",
		Packages: []string{"ucf"},
		Why:      "its empty databases",
		Files:    []File{{Path: "var/lib/ucf/hashfile", Mode: 0o644}, {Path: "var/lib/ucf/registry", Mode: 0o644}},
	}, {
		Name:     "util-linux/1",
		Packages: []string{"util-linux"},
		Why:      "the alternative of pager",
		Alternatives: []Alternative{{
			Link: "/usr/bin/pager", Name: "pager", Path: "/usr/bin/more", Priority: "50",
			Slaves: []Alternative{{Link: "/usr/share/man/man1/pager.1.gz", Name: "pager.1.gz", Path: "/usr/share/man/man1/more.1.gz"}},
		}},
	}}
}

// serviceRules are for servers. Numbers from 101 to 199 are the table's own and never
// change, so that files on volumes keep their owners.
func serviceRules() []Rule {
	return []Rule{{
		Name:     "haproxy/1",
		Packages: []string{"haproxy"},
		Why:      "its account and run directory",
		Users:    []User{{Name: "haproxy", UID: 101, Home: "/var/lib/haproxy"}},
		Tmpfiles: []string{"haproxy.conf"},
	}, {
		Name:     "memcached/1",
		Packages: []string{"memcached"},
		Why:      "its account, configuration and run directory",
		Users:    []User{{Name: "memcache", UID: 102, Gecos: "Memcached", Shell: "/bin/false"}},
		Files:    []File{{Path: "etc/memcached.conf", Mode: 0o644, Copy: "usr/share/memcached/memcached.conf.default"}},
		Tmpfiles: []string{"memcached.conf"},
	}, {
		Name:     "nginx/1",
		Packages: []string{"nginx-common"},
		Why:      "log files, the default site and its page",
		Dirs:     []Dir{{Path: "var/log/nginx", Mode: 0o755, Group: "adm"}},
		Owners:   []Owner{{Path: "var/log/nginx", Mode: 0o755, Group: "adm"}},
		Files: []File{
			{Path: "var/log/nginx/access.log", Mode: 0o640, Owner: "www-data", Group: "adm"},
			{Path: "var/log/nginx/error.log", Mode: 0o640, Owner: "www-data", Group: "adm"},
			{Path: "var/www/html/index.nginx-debian.html", Mode: 0o644, Copy: "usr/share/nginx/html/index.html"},
		},
		Links: []Link{{Path: "etc/nginx/sites-enabled/default", To: "/etc/nginx/sites-available/default", If: "etc/nginx/sites-available/default"}},
	}, {
		Name:     "nodejs/1",
		Packages: []string{"nodejs"},
		Why:      "the alternative of js",
		Alternatives: []Alternative{{
			Link: "/usr/bin/js", Name: "js", Path: "/usr/bin/nodejs", Priority: "200",
			Slaves: []Alternative{{Link: "/usr/share/man/man1/js.1.gz", Name: "js.1.gz", Path: "/usr/share/man/man1/nodejs.1.gz"}},
		}},
	}, {
		Name:     "redis/1",
		Packages: []string{"redis-tools", "redis-server"},
		Why:      "the account, its directories and the configuration that only it may read",
		Users:    []User{{Name: "redis", UID: 103, Home: "/var/lib/redis"}},
		Dirs: []Dir{
			{Path: "var/log/redis", Mode: 0o2750, Owner: "redis", Group: "adm"},
			{Path: "var/lib/redis", Mode: 0o750, Owner: "redis", Group: "redis"},
			{Path: "etc/redis", Mode: 0o2770, Owner: "redis", Group: "redis"},
		},
		Owners: []Owner{
			{Path: "etc/redis", Mode: 0o2770, Owner: "redis", Group: "redis"},
			{Path: "etc/redis/redis.conf", Mode: 0o640, Owner: "redis", Group: "redis"},
		},
	}}
}

// lastRules apply to every tree where no other rule or package did.
func lastRules() []Rule {
	return []Rule{{
		Name: "nsswitch/1",
		Why:  "names and accounts come from files and DNS, as libc-bin has it",
		Files: []File{{Path: "etc/nsswitch.conf", Mode: 0o644, Text: "passwd:         files\ngroup:          files\nshadow:         files\n" +
			"hosts:          files dns\nnetworks:       files\nprotocols:      files\nservices:       files\n"}},
	}}
}
