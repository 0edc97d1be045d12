package debian

import (
	"regexp"
	"strings"
	"sync"
)

// effect is what a recognised maintainer script would do on a first installation.
type effect struct {
	alternatives []Alternative
	links        []Link
	tmpfiles     []string // names below usr/lib/tmpfiles.d to apply
	sysusers     []string // names below usr/lib/sysusers.d to apply
}

// recognise reads a preinst or postinst that is made of nothing but well-known
// lines: it says what it would do, or which line it does not know.
//
// It is strict and line by line. Outside debhelper's blocks only lines count that
// do nothing (comments, set -e, exit 0, the empty case that dh_make writes).
// Inside a block "# Automatically added by dh_X/…" each line must be one that
// debhelper's dh_X is known to write, with plain words where the package's own
// names stand: no variable, quote or substitution of any other form passes. So a
// changed or unknown block is never taken for a known one, and the package fails
// by name until a person wrote a rule or a waiver.
//
// Nothing runs here, so blocks that only talk to a running system (systemd,
// init scripts, menus, bytecode compilers, dpkg's clean-up of old conffiles) have
// no effect; the others are told by the effect.
func recognise(script string) (effect, string) {
	var out effect
	var block lineSet
	tool, lines := "", joinLines(script)
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "# Automatically added by "):
			tool, _, _ = strings.Cut(strings.TrimPrefix(line, "# Automatically added by "), "/")
			if block = blocks[tool]; block == nil {
				return out, line
			}
		case line == "# End automatically added section":
			block = nil
		case line == "" || line[0] == '#':
		case block != nil && block().MatchString(line):
			out.note(tool, line)
		case block == nil && idle().MatchString(line):
		default:
			return out, line
		}
	}
	return out, ""
}

// joinLines trims every line and joins those that end in a backslash.
func joinLines(script string) []string {
	script = strings.ReplaceAll(script, "\\\n", " ")
	lines := strings.Split(script, "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	return lines
}

// word is a name or path that means itself to a shell.
const word = `[A-Za-z0-9@%_./:+,-]+`

// quoted is a word that debhelper puts in quotes.
const quoted = `['"]?` + word + `['"]?`

// when is the condition that every block starts with.
const when = `if (\[ "\$1" = "[a-z-]+" \]( \|\| )?)+ ?(&& \[ -n "\$2" \] ?)?; then`

// idle matches the lines that do nothing, outside any block.
var idle = linesLike(
	`set -[eu]+`, `exit 0`, `:`, `#DEBHELPER#`,
	`case "\$1" in`, `esac`, `;;`, `\(?configure\)`, `\(?(install|upgrade|install\|upgrade)\)`,
	`\(?(abort-upgrade|abort-remove|abort-deconfigure|\|)+\)`, `\(?\*\)`,
	"echo \"(preinst|postinst) called with unknown argument .?.?\\$1.\" >&2", `exit [01]`,
)

// blocks are the lines that each debhelper tool writes.
var blocks = map[string]lineSet{
	"dh_installdeb": linesLike(
		`dpkg-maintscript-helper (rm_conffile|mv_conffile|symlink_to_dir|dir_to_symlink)( [A-Za-z0-9@%_./:+,\\~-]+)+ -- "\$@"`),
	"dh_installsystemd":     linesLike(when, systemdLines, tmpfilesLines),
	"dh_installsystemduser": linesLike(when, `if \[ -z "\$\{DPKG_ROOT:-\}" \] ; then`, systemdLines),
	"dh_systemd_enable":     linesLike(when, systemdLines),
	"dh_systemd_start":      linesLike(when, systemdLines),
	"dh_installinit": linesLike(when, systemdLines,
		`if \[ "\$1" = "install" \] && \[ -n "\$2" \] && \[ -e "`+word+`" \] ; then`,
		`chmod \+x "`+word+`" >/dev/null \|\| true`,
		`if (\[ -z "\$\{DPKG_ROOT:-\}" \] && )?\[ -x "`+word+`" \]; then`,
		`update-rc\.d `+word+` (defaults|defaults-disabled)( \d+)* >/dev/null( \|\| exit 1)?`,
		`invoke-rc\.d (--skip-systemd-native )?`+word+` (\$_dh_action|start|restart) (\|\| exit 1|\|\| true)`),
	"dh_installmenu": linesLike(
		"if \\[ \"\\$1\" = \"configure\" \\] && \\[ -x \"`command -v update-menus`\" \\] (&& \\[ -x \"\\$DPKG_ROOT`command -v update-menus`\" \\])?; then",
		`update-menus`, `fi`),
	"dh_python3": linesLike(
		`if command -v py3compile >/dev/null 2>&1; then`, `py3compile -p `+word+`( `+word+`)*( -V [0-9.-]+)?`,
		`if command -v pypy3compile >/dev/null 2>&1; then`, `pypy3compile -p `+word+`( `+word+`)* \|\| true`, `fi`),
	"dh_installalternatives": linesLike(when,
		`update-alternatives --install( `+word+`){4}( --slave( `+word+`){3})*`, `fi`),
	"dh_installtmpfiles": linesLike(when, tmpfilesLines, `fi`),
	"dh_installsysusers": linesLike(when,
		`systemd-sysusers (\$\{DPKG_ROOT:\+--root="\$DPKG_ROOT"\} )?`+quoted+`( `+quoted+`)*`, `fi`),
	"dh_nginx": linesLike(
		`for confpair in( `+word+`:`+word+`)+ ?; do`, `from=\$\(echo \$confpair \| cut -d: -f1\)`, `to=\$\(echo \$confpair \| cut -d: -f2\)`,
		`if \[ -L /etc/nginx/modules-enabled/\$to\.removed \]; then`, `rm /etc/nginx/modules-enabled/\$to\.removed`,
		`removed_link=(true|false)`, `else`, `fi`, `done`, `if \[ -z "\$2" -o "\$removed_link" = "true" \]; then`,
		`ln -sf /usr/share/nginx/modules-available/\$from /etc/nginx/modules-enabled/\$to`,
		`if \[ "\$1" = "configure" \] ; then`, `if which dpkg-trigger >/dev/null 2>&1 ; then`, `dpkg-trigger --no-await nginx-reload`),
}

const tmpfilesLines = `if \[ -x "\$\(command -v systemd-tmpfiles\)" \]; then` +
	`|systemd-tmpfiles (\$\{DPKG_ROOT:\+--root="\$DPKG_ROOT"\} )?--create( ` + quoted + `)+ (>/dev/null )?\|\| true`

const systemdLines = `else|fi|if \[ -d /run/systemd/system \]; then|if \[ -n "\$2" \]; then|_dh_action=(restart|start|try-restart|reload)` +
	`|if deb-systemd-helper( --[a-z]+)* (was-enabled|debian-installed) ` + quoted + `; then` +
	`|deb-systemd-helper( --[a-z]+)* (unmask|enable|update-state)( ` + quoted + `)+ >/dev/null \|\| true` +
	`|systemctl (--system |--user )?daemon-reload >/dev/null \|\| true` +
	`|deb-systemd-invoke( --[a-z-]+)* (\$_dh_action|start|restart|try-restart|daemon-reload)( ` + quoted + `)* >/dev/null \|\| true`

// lineSet gives the pattern of a set of lines, compiled when it is first used: most
// commands never read a script.
type lineSet func() *regexp.Regexp

func linesLike(lines ...string) lineSet {
	return sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:` + strings.Join(lines, "|") + `)$`)
	})
}

// note keeps what a recognised line would do.
func (e *effect) note(tool, line string) {
	words := strings.Fields(line)
	switch {
	case strings.HasPrefix(line, "update-alternatives --install"):
		e.alternatives = append(e.alternatives, parseAlternative(words[2:]))
	case tool == "dh_nginx" && words[0] == "for":
		for _, pair := range words[3:] {
			if from, to, ok := strings.Cut(strings.TrimSuffix(pair, ";"), ":"); ok {
				e.links = append(e.links, Link{Path: "etc/nginx/modules-enabled/" + to, To: "/usr/share/nginx/modules-available/" + from})
			}
		}
	case words[0] == "systemd-tmpfiles":
		e.tmpfiles = append(e.tmpfiles, confNames(words)...)
	case words[0] == "systemd-sysusers":
		e.sysusers = append(e.sysusers, confNames(words)...)
	}
}

func confNames(words []string) []string {
	var out []string
	for _, w := range words {
		if w = strings.Trim(w, `'"`); strings.HasSuffix(w, ".conf") {
			out = append(out, w)
		}
	}
	return out
}

// parseAlternative reads LINK NAME PATH PRIORITY [--slave LINK NAME PATH]…
func parseAlternative(w []string) Alternative {
	a := Alternative{Link: w[0], Name: w[1], Path: w[2], Priority: w[3]}
	for w = w[4:]; len(w) >= 4 && w[0] == "--slave"; w = w[4:] {
		a.Slaves = append(a.Slaves, Alternative{Link: w[1], Name: w[2], Path: w[3]})
	}
	return a
}
