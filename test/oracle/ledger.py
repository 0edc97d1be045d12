#!/usr/bin/env python3
"""A second implementation of the Debian path, to hold the first one against.

It computes what the root file system of a component made of Debian packages and
copied files must be: every entry with type, mode, owner, time, size, SHA-256, link,
and with the package member or rule that it comes from. It shares nothing with
Ashlar but this knowledge: packages are unpacked by dpkg-deb(1) and read by Python's
tarfile, rules are written again below, from what docs/security.md and
`ashlar explain` say of them. The outcome is compared with an exported image, and
with a ledger as `ashlar explain COMPONENT --output json` prints it.

    ledger.py --lock ashlar.lock --component web --objects STATE/objects
              [--copy DIR:/TO]... [--image LAYOUT] [--ledger FILE]

Exit status 0 when both agree in every entry; 1 and a list when they do not. It
knows the rules that examples/site and examples/guestbook need; a package whose
scripts would need another shows as a difference.
"""

import argparse
import hashlib
import io
import json
import os
import posixpath
import re
import subprocess
import sys
import tarfile

# Directories that became links to others (Debian policy, UsrMerge; file-hierarchy(7)).
MOVED = {
    "bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib32": "usr/lib32", "lib64": "usr/lib64",
    "libo32": "usr/libo32", "libx32": "usr/libx32", "var/run": "run", "var/lock": "run/lock",
}

USERS = """root 0 0 root /root /bin/bash
daemon 1 1 daemon /usr/sbin /usr/sbin/nologin
bin 2 2 bin /bin /usr/sbin/nologin
sys 3 3 sys /dev /usr/sbin/nologin
sync 4 65534 sync /bin /bin/sync
games 5 60 games /usr/games /usr/sbin/nologin
man 6 12 man /var/cache/man /usr/sbin/nologin
lp 7 7 lp /var/spool/lpd /usr/sbin/nologin
mail 8 8 mail /var/mail /usr/sbin/nologin
news 9 9 news /var/spool/news /usr/sbin/nologin
uucp 10 10 uucp /var/spool/uucp /usr/sbin/nologin
proxy 13 13 proxy /bin /usr/sbin/nologin
www-data 33 33 www-data /var/www /usr/sbin/nologin
backup 34 34 backup /var/backups /usr/sbin/nologin
list 38 38 Mailing_List_Manager /var/list /usr/sbin/nologin
irc 39 39 ircd /run/ircd /usr/sbin/nologin
_apt 42 65534  /nonexistent /usr/sbin/nologin
nobody 65534 65534 nobody /nonexistent /usr/sbin/nologin"""

GROUPS = (
    "root 0 daemon 1 bin 2 sys 3 adm 4 tty 5 disk 6 lp 7 mail 8 news 9 uucp 10 man 12 proxy 13 kmem 15 dialout 20 fax 21 "
    "voice 22 cdrom 24 floppy 25 tape 26 sudo 27 audio 29 dip 30 www-data 33 backup 34 operator 37 list 38 irc 39 src 40 "
    "shadow 42 utmp 43 video 44 sasl 45 plugdev 46 staff 50 games 60 users 100 nogroup 65534"
)

FIELDS = ("type", "mode", "uid", "gid", "mtime", "size", "digest", "link", "xattrs")


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def moved(path):
    """Where a path lies once the merged directories are links."""
    for old, new in MOVED.items():
        if path == old or path.startswith(old + "/"):
            return new + path[len(old):]
    return path


def absolute(path, link):
    """What a link at path leads to by its text, moved."""
    target = link if link.startswith("/") else posixpath.join("/", posixpath.dirname(path), link)
    return moved(posixpath.normpath(target).lstrip("/"))


# -- ashlar.lock ------------------------------------------------------------------

def read_lock(name, component):
    """Packages, archives and epoch of a component's first Debian source.

    The file is YAML as Ashlar writes it, one "key: value" a line; this reads no other.
    """
    found, here, section, packages, archives, epoch = False, None, None, [], [], None
    for line in open(name, encoding="utf-8"):
        if re.match(r"  [^ ].*:$", line):
            found = line.strip() == component + ":"
        if not found:
            continue
        text = line.strip()
        if text in ("archives:", "packages:", "indexes:", "requested:", "areas:"):
            section = text[:-1]
            continue
        m = re.match(r"(- )?([A-Za-z0-9]+): (.*)$", text)
        if not m:
            continue
        key, value = m.group(2), m.group(3).strip('"')
        if key == "epoch":
            epoch = int(value)
        elif section == "archives" or section == "indexes":
            if key == "url":
                here, section = {}, "archives"
                archives.append(here)
            if section == "archives":
                here[key] = value
        elif section == "packages":
            if m.group(1):
                here = {}
                packages.append(here)
            here[key] = value
    if not packages or epoch is None:
        sys.exit(f"{name} locks no packages for {component}")
    return packages, archives, epoch


# -- packages ---------------------------------------------------------------------

class Entry(dict):
    """One entry: the attributes of FIELDS, and origin, member and amended."""


def entry(kind, mode, mtime, uid=0, gid=0, data=None, link="", origin="", member=""):
    e = Entry(type=kind, mode=mode, uid=uid, gid=gid, mtime=mtime, size=0, digest="", link=link, xattrs={},
              origin=origin, member=member, amended=set())
    if kind == "file":
        e["size"], e["digest"], e["data"] = len(data), sha256(data), data
    return e


def members(deb, origin):
    """The entries of one package by where they lie, and its postinst."""
    out = {}
    raw = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        for m in tar:
            shipped = posixpath.normpath(m.name).lstrip("/")
            if shipped == ".":
                continue
            path, mode, amended = moved(shipped), m.mode & 0o7777, set()
            if m.isdir():
                e = entry("dir", mode, m.mtime, m.uid, m.gid)
            elif m.issym():
                if shipped in MOVED or absolute(shipped, m.linkname) == path:
                    continue  # the link that a merged directory is, or one from /usr/bin/x to /bin/x
                e = entry("symlink", 0o777, m.mtime, m.uid, m.gid, link=m.linkname)
            elif m.isreg() or m.islnk():
                data = tar.extractfile(m).read()
                if m.islnk():
                    m = tar.getmember(m.linkname)
                    mode = m.mode & 0o7777
                if mode & 0o6000:
                    amended = {"set-id/1"}
                e = entry("file", mode & 0o1777, m.mtime, m.uid, m.gid, data)
            else:
                sys.exit(f"{deb}: {m.name} is of another type")
            e["origin"], e["member"], e["amended"] = origin, shipped, amended
            if path not in out:
                out[path] = e
    script = subprocess.run(["dpkg-deb", "--info", deb, "postinst"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return out, script.decode()


def lay(tree, name, new):
    """Puts one package, in order of name, over those before it."""
    for path, e in new.items():
        have = tree.get(path)
        if have is None:
            tree[path] = e
        elif have["type"] == e["type"] == "dir":
            # Whoever says other than 0755 root means it, and the first of these; else the last.
            if (have["mode"], have["uid"], have["gid"]) == (0o755, 0, 0):
                tree[path] = e
        elif any(have[f] != e[f] for f in ("type", "digest", "link", "mode", "uid", "gid")):
            sys.exit(f"/{path} is in two packages, {have['origin']} and {name}: this needs Replaces, which is not written here")


# -- rules ------------------------------------------------------------------------

class Rules:
    """What stands in for maintainer scripts. Nothing is put where something is."""

    def __init__(self, tree, epoch, packages, archives, scripts):
        self.tree, self.epoch, self.archives, self.scripts = tree, epoch, archives, scripts
        self.names = {p["name"] for p in packages}
        self.users = [line.split(" ") for line in USERS.splitlines()]
        words = GROUPS.split()
        self.groups = list(zip(words[::2], map(int, words[1::2])))

    def put(self, rule, path, e, over=False):
        if path in self.tree and not over:
            return
        e["origin"], e["mtime"] = "rule " + rule, self.epoch
        self.tree[path] = e
        up = posixpath.dirname(path)
        while up and up not in self.tree:
            self.tree[up] = entry("dir", 0o755, self.epoch, origin="rule parents/1")
            up = posixpath.dirname(up)

    def dir(self, rule, path, mode, owner="root", group="root"):
        self.put(rule, path, entry("dir", mode, 0, self.uid(owner), self.gid(group)))

    def file(self, rule, path, mode, text="", owner="root", group="root", copy=None, over=False):
        data = self.tree[copy]["data"] if copy else text.encode()
        self.put(rule, path, entry("file", mode, 0, self.uid(owner), self.gid(group), data), over)

    def link(self, rule, path, to):
        self.put(rule, path, entry("symlink", 0o777, 0, link=to))

    def own(self, rule, path, mode, owner="root", group="root"):
        e = self.tree.get(path)
        if e is None:
            return
        want = (mode, self.uid(owner), self.gid(group))
        if (e["mode"], e["uid"], e["gid"]) != want:
            e["mode"], e["uid"], e["gid"] = want
            e["amended"].add(rule)

    def uid(self, name):
        return next(int(u[1]) for u in self.users if u[0] == name)

    def gid(self, name):
        return next(g for n, g in self.groups if n == name)

    def apply(self):
        if {"redis-server", "redis-tools"} & self.names:
            self.groups.append(("redis", 103))
            self.users.append(["redis", "103", "103", "", "/var/lib/redis", "/usr/sbin/nologin"])
        self.common()
        if "libpam-modules" in self.names:
            self.file("libpam-modules/1", "etc/security/opasswd", 0o600)
            self.file("libpam-modules/1", "etc/environment", 0o644)
        if "nginx-common" in self.names:
            self.nginx()
        if {"redis-server", "redis-tools"} & self.names:
            self.redis()
        self.file("nsswitch/1", "etc/nsswitch.conf", 0o644, (
            "passwd:         files\ngroup:          files\nshadow:         files\nhosts:          files dns\n"
            "networks:       files\nprotocols:      files\nservices:       files\n"))
        self.nginx_modules()
        if "tar" in self.names:
            for name, at, to in (("rmt", "usr/sbin/rmt", "/usr/sbin/rmt-tar"),
                                 ("rmt.8.gz", "usr/share/man/man8/rmt.8.gz", "/usr/share/man/man8/rmt-tar.8.gz")):
                self.link("tar/1", "etc/alternatives/" + name, to)
                self.link("tar/1", at, "/etc/alternatives/" + name)
        self.accounts()
        for e in self.tree.values():
            if e["mtime"] > self.epoch:
                e["mtime"] = self.epoch
                e["amended"].add("times/1")
        self.tree["."] = entry("dir", 0o755, self.epoch, origin="rule parents/1")
        for path in list(self.tree):
            up = posixpath.dirname(path)
            while up and up not in self.tree:
                self.tree[up] = entry("dir", 0o755, self.epoch, origin="rule parents/1")
                up = posixpath.dirname(up)

    def common(self):
        for path in ("usr/bin", "usr/lib", "usr/sbin"):
            self.dir("usrmerge/1", path, 0o755)
        for old, new in MOVED.items():
            if old in ("bin", "sbin", "lib") or (old.startswith("lib") and new in self.tree):
                self.link("usrmerge/1", old, new)
        self.link("usrmerge/1", "var/run", "/run")
        self.link("usrmerge/1", "var/lock", "/run/lock")
        for path, mode in (("dev", 0o755), ("proc", 0o555), ("sys", 0o555), ("run", 0o755), ("run/lock", 0o1777), ("tmp", 0o1777),
                           ("var/tmp", 0o1777), ("root", 0o700), ("home", 0o755), ("etc", 0o755), ("var/cache", 0o755),
                           ("var/lib", 0o755), ("var/log", 0o755), ("var/spool", 0o755)):
            self.dir("directories/1", path, mode)
        version, codename = self.archives[0]["version"].split(".")[0], self.archives[0]["codename"]
        self.file("os-release/1", "usr/lib/os-release", 0o644, (
            f'PRETTY_NAME="Debian GNU/Linux {version} ({codename})"\nNAME="Debian GNU/Linux"\nVERSION_ID="{version}"\n'
            f'VERSION="{version} ({codename})"\nVERSION_CODENAME={codename}\nID=debian\n'))
        self.link("os-release/1", "etc/os-release", "../usr/lib/os-release")

    def nginx(self):
        self.dir("nginx/1", "var/log/nginx", 0o755, group="adm")
        for log in ("access", "error"):
            self.file("nginx/1", f"var/log/nginx/{log}.log", 0o640, owner="www-data", group="adm")
        self.file("nginx/1", "var/www/html/index.nginx-debian.html", 0o644, copy="usr/share/nginx/html/index.html")
        self.link("nginx/1", "etc/nginx/sites-enabled/default", "/etc/nginx/sites-available/default")
        self.own("nginx/1", "var/log/nginx", 0o755, group="adm")

    def nginx_modules(self):
        """What dh_nginx writes into postinst: for confpair in FROM:TO ... ; do."""
        for name in sorted(self.scripts):
            for words in re.findall(r"for confpair in (.*?);? do", self.scripts[name]):
                for pair in words.split():
                    source, to = pair.strip(";").split(":")
                    self.link("debhelper/1", "etc/nginx/modules-enabled/" + to, "/usr/share/nginx/modules-available/" + source)

    def redis(self):
        self.dir("redis/1", "var/log/redis", 0o2750, "redis", "adm")
        self.dir("redis/1", "var/lib/redis", 0o750, "redis", "redis")
        self.dir("redis/1", "etc/redis", 0o2770, "redis", "redis")
        self.own("redis/1", "etc/redis", 0o2770, "redis", "redis")
        self.own("redis/1", "etc/redis/redis.conf", 0o640, "redis", "redis")

    def accounts(self):
        """passwd(5), group(5), and with the package passwd shadow(5) and gshadow(5)."""
        shadow = "passwd" in self.names
        lock, day = "x" if shadow else "*", self.epoch // 86400
        lines = lambda rows: "".join(":".join(map(str, r)) + "\n" for r in rows)
        users = [[u[0], u[1], u[2], u[3].replace("_", " "), u[4], u[5]] for u in self.users]
        texts = {
            "etc/passwd": (0o644, "root", lines([u[0], lock] + u[1:] for u in users)),
            "etc/group": (0o644, "root", lines([n, lock, g, ""] for n, g in self.groups)),
        }
        if shadow:
            texts["etc/shadow"] = (0o640, "shadow", lines([u[0], "*", day, 0, 99999, 7, "", "", ""] for u in users))
            texts["etc/gshadow"] = (0o640, "shadow", lines([n, "*", "", ""] for n, _ in self.groups))
        for path, (mode, group, text) in texts.items():
            self.file("accounts/1", path, mode, text, group=group, over=True)


# -- copied files -----------------------------------------------------------------

def copy(tree, source, to):
    """A files source: bytes as they are, 0644 or 0755, root, time 0. Parents keep what they are."""
    to = to.strip("/")
    base = os.path.dirname(os.path.abspath(source))
    for top, dirs, names in os.walk(source):
        dirs.sort()
        for name in names:
            full = os.path.join(top, name)
            path = posixpath.join(to, os.path.relpath(full, source))
            with open(full, "rb") as f:
                data = f.read()
            mode = 0o755 if os.stat(full).st_mode & 0o100 else 0o644
            tree[path] = entry("file", mode, 0, data=data, origin="file", member=os.path.relpath(full, base))
            up = posixpath.dirname(path)
            while up and up not in tree:
                tree[up] = entry("dir", 0o755, 0, origin="rule parents/1")
                up = posixpath.dirname(up)


# -- comparing --------------------------------------------------------------------

def read_image(layout):
    """The root of an OCI layout whose layers are uncompressed and without whiteouts."""
    blob = lambda d: os.path.join(layout, "blobs", *d.split(":"))
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as f:
        manifest = json.load(f)["manifests"][0]["digest"]
    root = {}
    with open(blob(manifest), encoding="utf-8") as f:
        layers = json.load(f)["layers"]
    for layer in layers:
        with tarfile.open(blob(layer["digest"]), "r:") as tar:
            for m in tar:
                path = posixpath.normpath(m.name)
                if m.isdir():
                    e = entry("dir", m.mode, m.mtime, m.uid, m.gid)
                elif m.issym():
                    e = entry("symlink", m.mode, m.mtime, m.uid, m.gid, link=m.linkname)
                elif m.isreg():
                    e = entry("file", m.mode, m.mtime, m.uid, m.gid, tar.extractfile(m).read())
                else:
                    e = entry("type " + repr(m.type), m.mode, m.mtime, m.uid, m.gid)
                e["xattrs"] = {k[len("SCHILY.xattr."):]: v for k, v in m.pax_headers.items() if k.startswith("SCHILY.xattr.")}
                root[path] = e
    return root


def read_ledger(name):
    """The entries of `ashlar explain COMPONENT --output json`."""
    with open(name, encoding="utf-8") as f:
        doc = json.load(f)
    root = {}
    for e in doc["entries"]:
        o = e["from"]
        origin = {"rule": "rule " + o["name"], "file": "file"}.get(o["kind"]) or f"{o['kind']} {o['name']} {o['version']} {o['digest']}"
        root[e["path"]] = Entry(
            type=e["type"], mode=e["mode"], uid=e.get("uid", 0), gid=e.get("gid", 0), mtime=e.get("mtime", 0), size=e.get("size", 0),
            digest=e.get("digest", ""), link=e.get("link", ""), xattrs=e.get("xattrs", {}), origin=origin, member=e.get("member", ""),
            amended=set(e.get("amended", [])))
    return root


def compare(what, want, got, fields):
    """Prints each entry that is not the same, and counts."""
    unexplained = sorted(set(got) - set(want))
    missing = sorted(set(want) - set(got))
    different = []
    for path in sorted(set(want) & set(got)):
        off = [f"{f} {got[path][f]!r}, not {want[path][f]!r}" for f in fields if got[path][f] != want[path][f]]
        if off:
            different.append(f"/{path}: " + "; ".join(off))
    for word, paths in (("unexplained", unexplained), ("missing", missing), ("different", different)):
        for p in paths[:50]:
            print(f"{what}: {word}: {p}")
    print(f"{what}: {len(got)} entries, {len(unexplained)} unexplained, {len(missing)} missing, {len(different)} different")
    return not (unexplained or missing or different)


def main():
    a = argparse.ArgumentParser(description="holds an image and its ledger against a second implementation")
    for name in ("lock", "component", "objects"):
        a.add_argument("--" + name, required=True)
    a.add_argument("--copy", action="append", default=[])
    a.add_argument("--image")
    a.add_argument("--ledger")
    args = a.parse_args()

    packages, archives, epoch = read_lock(args.lock, args.component)
    tree, scripts = {}, {}
    for p in sorted(packages, key=lambda p: p["name"]):
        digest = p["sha256"].split(":")[1]
        deb = os.path.join(args.objects, digest[:2], digest[2:])
        with open(deb, "rb") as f:
            if sha256(f.read()) != p["sha256"]:
                sys.exit(f"{deb} is not package {p['name']}")
        found, scripts[p["name"]] = members(deb, f"debian {p['name']} {p['version']} {p['sha256']}")
        lay(tree, p["name"], found)
    Rules(tree, epoch, packages, archives, scripts).apply()
    for c in args.copy:
        source, to = c.split(":")
        copy(tree, source, to)

    good = True
    if args.image:
        good &= compare("image", tree, read_image(args.image), FIELDS)
    if args.ledger:
        good &= compare("ledger", tree, read_ledger(args.ledger), FIELDS + ("origin", "member", "amended"))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
