// Package debian is the path from a signed Debian archive to an [image.Tree],
// in Go and executing nothing: no maintainer script, no dpkg, no apt.
//
//	InRelease (OpenPGP) -> Packages.xz (by digest) -> closure -> Lock
//	Lock -> .debs (by digest) -> ar, tar -> usrmerge -> rules -> image.Tree
//
// Every byte that is read is named by a digest that a signature vouches for, and
// is kept as an object, so that what a [Lock] names can be built again offline
// and after the mirror dropped it.
//
// What maintainer scripts would have done is told by a fixed table of named,
// versioned, declarative rules ([Rules]). A package whose preinst or postinst has
// neither a rule nor a waiver, and is not made of debhelper's well-known harmless
// blocks alone, fails the build by name.
//
// It is not a package manager: it neither upgrades nor removes, adds no
// Essential packages that nobody asked for, and follows no Recommends.
//
// Set-user-id and set-group-id bits of regular files are stripped: instances run
// with no_new_privs, so the bits could only matter to somebody who takes the tree
// elsewhere. Directories keep theirs (/var/mail is 2775), with the sticky bit.
//
// The formats are those of Debian's policy and deb(5), deb-control(5),
// https://wiki.debian.org/DebianRepository/Format and sources.list(5).
//
// Start at [HostArchives], then [Resolve], [Fetch] and [Tree]. The test that
// proves the whole path on the real archive is TestNginxFromTheArchive.
package debian
