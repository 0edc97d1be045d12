package definition

import (
	"strings"
	"time"
	_ "time/tzdata" // so that a zone is known on every machine, or on none

	"github.com/ashlar-infra/ashlar/internal/release"
)

func (c *converter) freeze(n *node) []release.Window {
	if n == nil {
		return nil
	}
	var out []release.Window
	for _, item := range n.items {
		if item.kind != kindMap {
			continue
		}
		item = c.s.fill(item, c.s.root.Defs.get("window"))
		w := release.Window{
			Days: c.texts(item.get("days")), From: c.text(item.get("from")), To: c.text(item.get("to")),
			Zone: c.text(item.get("zone")), Until: c.text(item.get("until")),
		}
		c.zone(item.get("zone"))
		if until := item.get("until"); usable(until) {
			if _, err := time.Parse(time.DateOnly, w.Until); err != nil {
				c.f.add(until.at, []string{"want:  a date that is in the calendar"}, `write it like  until: "2030-01-06"`, "until %q is no day", short(w.Until))
			}
		}
		out = append(out, w)
	}
	return out
}

// zone checks that a time zone is known. The name has no dots, so nothing outside
// the time zone data is looked at.
func (c *converter) zone(n *node) {
	if !usable(n) {
		return
	}
	if _, err := time.LoadLocation(n.raw); err != nil || n.raw == "Local" {
		c.f.add(n.at, []string{"want:  the IANA name of a time zone"}, "write it like  zone: Europe/Berlin", "zone %q is not known", short(n.raw))
	}
}

func (c *converter) events(n *node) []release.Webhook {
	if n == nil {
		return nil
	}
	var out []release.Webhook
	for _, item := range n.items {
		if at := item.get("url"); usable(at) && inTheClear(c.text(at)) {
			c.f.add(at.at, []string{"want:  https://, or http:// to this machine itself"}, "write  https://", "the webhook would be told in the clear")
		}
		out = append(out, release.Webhook{URL: c.text(item.get("url")), Secret: c.text(item.get("secret"))})
	}
	return out
}

// inTheClear says whether what is sent to an address can be read on its way: whether it
// is http, and not to this machine itself.
func inTheClear(address string) bool {
	rest, plain := strings.CutPrefix(address, "http://")
	host := rest
	if at := strings.IndexAny(rest, "/?#"); at >= 0 {
		host = rest[:at]
	}
	if at := strings.LastIndexByte(host, ':'); at >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:at]
	}
	here := host == "localhost" || host == "[::1]" || strings.HasPrefix(host, "127.") && strings.Trim(host, "0123456789.") == ""
	return plain && !here
}

func (c *converter) tls(n *node) *release.TLS {
	if n == nil || n.kind != kindMap {
		return nil
	}
	out := &release.TLS{Certificate: c.absolute(n.get("certificate")), Key: c.absolute(n.get("key")), ACME: c.text(n.get("acme")), Domains: sorted(c.texts(n.get("domains")))}
	if n.broken || n.holes {
		return out
	}
	files, acme := n.get("certificate") != nil || n.get("key") != nil, n.get("acme") != nil || n.get("domains") != nil
	switch {
	case files && acme:
		c.f.add(n.at, nil, "keep certificate and key, or acme and domains", "tls has both files and acme")
	case acme && (n.get("acme") == nil || n.get("domains") == nil):
		c.f.add(n.at, []string{"want:  acme and domains together"}, "add  domains: [example.test]  and  acme: and the directory URL", "tls by acme needs both acme and domains")
	case !acme && (n.get("certificate") == nil || n.get("key") == nil):
		c.f.add(n.at, []string{"want:  certificate and key together, or acme and domains"}, "add  certificate: /etc/ssl/site.pem  and  key: /etc/ssl/site.key", "tls has no certificate and key")
	}
	return out
}
