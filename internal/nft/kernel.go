package nft

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// environment is what the kernel has of one environment.
type environment struct {
	stamp    stamp // zero: nothing
	services []placed
	members  map[netip.AddrPort]member
}

func (e environment) service(name string) (placed, bool) {
	for _, p := range e.services {
		if p.name == name {
			return p, true
		}
	}
	return placed{}, false
}

// read asks the kernel for an environment.
func (r *ruleset) read(key rollout.Key) (env environment, err error) {
	env.members = map[netip.AddrPort]member{}
	if env.stamp, env.services, err = r.readServices(key); err != nil || env.stamp == (stamp{}) {
		return env, err
	}
	var elements []nftables.SetElement
	err = r.kernel.ask(func(conn *nftables.Conn) (err error) {
		elements, err = conn.GetSetElements(r.register(key))
		return err
	})
	for _, e := range elements {
		at, ok := parseSocket(e.Key)
		m, known := parseMember(e.Comment)
		if ok && known {
			env.members[at] = m
		}
	}
	return env, err
}

// readServices asks for the generation and the services alone.
func (r *ruleset) readServices(key rollout.Key) (s stamp, services []placed, err error) {
	var rules []*nftables.Rule
	err = r.kernel.ask(func(conn *nftables.Conn) (err error) {
		rules, err = conn.GetRules(r.table, &nftables.Chain{Table: r.table, Name: registerName(key)})
		return err
	})
	if absent(err) {
		return s, nil, nil
	}
	for _, rule := range rules {
		text, _ := userdata.GetString(rule.UserData, userdata.TypeComment)
		if found, ok := parseStamp(text); ok {
			s = found
		} else if p, ok := parsePlaced(text); ok {
			services = append(services, p)
		}
	}
	return s, services, err
}

func (r *ruleset) register(key rollout.Key) *nftables.Set {
	return &nftables.Set{Table: r.table, Name: registerName(key), KeyType: socketKey, Concatenation: true}
}

// inForce gives the backends that get new connections.
func (r *ruleset) inForce(key rollout.Key, services []placed) (map[netip.AddrPort]bool, error) {
	out := map[netip.AddrPort]bool{}
	for _, p := range services {
		err := r.kernel.ask(func(conn *nftables.Conn) error {
			elements, err := conn.GetSetElements(r.backends(chainName(key, p.name), p.turn, true))
			for _, e := range elements {
				if at, ok := parseSocket(e.Val); ok {
					out[at] = true
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// note writes the generation and the services into the register.
func (r *ruleset) note(b *batch, key rollout.Key, next environment) {
	c := &nftables.Chain{Table: r.table, Name: registerName(key)}
	b.FlushChain(c)
	b.comment(c, next.stamp.String())
	for _, p := range next.services {
		b.comment(c, p.String())
	}
}

// noteMembers writes what became of backends.
func (r *ruleset) noteMembers(b *batch, key rollout.Key, prev, next map[netip.AddrPort]member) {
	var gone, fresh []nftables.SetElement
	for at, m := range prev {
		if now, kept := next[at]; !kept || now != m {
			gone = append(gone, nftables.SetElement{Key: socketBytes(at)})
		}
	}
	for at, m := range next {
		if was, there := prev[at]; !there || was != m {
			fresh = append(fresh, nftables.SetElement{Key: socketBytes(at), Comment: m.String()})
		}
	}
	b.remove(r.register(key), gone)
	b.elements(r.register(key), fresh)
}

// erase removes everything of an environment.
func (r *ruleset) erase(b *batch, key rollout.Key, env environment) {
	for _, p := range env.services {
		r.removeService(b, key, p)
	}
	c := &nftables.Chain{Table: r.table, Name: registerName(key)}
	b.FlushChain(c)
	b.DelChain(c)
	b.DelSet(r.register(key))
}

// absent says that the kernel has no such thing. The library tells the cause of some
// errors by its text alone.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || err != nil && strings.HasSuffix(err.Error(), unix.ENOENT.Error())
}

// present says whether the server's table is there.
func (r *ruleset) present() (bool, error) {
	err := r.kernel.ask(func(conn *nftables.Conn) error {
		_, err := conn.ListTableOfFamily(r.table.Name, r.table.Family)
		return err
	})
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

// links gives the links that forward because of us.
func (r *ruleset) links() ([]string, error) {
	var out []string
	err := r.kernel.ask(func(conn *nftables.Conn) error {
		elements, err := conn.GetSetElements(r.opened)
		for _, e := range elements {
			out = append(out, linkName(e.Key))
		}
		return err
	})
	if absent(err) {
		return nil, nil
	}
	return out, err
}

// atOnce is how many elements one message takes: its attributes are at most 64 KiB.
const atOnce = 180

func (b *batch) addSet(s *nftables.Set, elements []nftables.SetElement) {
	b.errs = append(b.errs, b.AddSet(s, nil))
	b.elements(s, elements)
}

func (b *batch) elements(s *nftables.Set, elements []nftables.SetElement) {
	for len(elements) > 0 {
		n := min(atOnce, len(elements))
		b.errs = append(b.errs, b.SetAddElements(s, elements[:n]))
		elements = elements[n:]
	}
}

func (b *batch) remove(s *nftables.Set, elements []nftables.SetElement) {
	for len(elements) > 0 {
		n := min(atOnce, len(elements))
		b.errs = append(b.errs, b.SetDeleteElements(s, elements[:n]))
		elements = elements[n:]
	}
}

// comment adds a rule that says something and does nothing.
func (b *batch) comment(c *nftables.Chain, text string) {
	b.AddRule(&nftables.Rule{
		Table: c.Table, Chain: c, Exprs: []expr.Any{&expr.Counter{}},
		UserData: userdata.AppendString(nil, userdata.TypeComment, text),
	})
}

// linkName and linkBytes translate the names of links, as sets have them.
func linkName(key []byte) string {
	for i, c := range key {
		if c == 0 {
			return string(key[:i])
		}
	}
	return string(key)
}

func linkBytes(name string) []byte {
	key := make([]byte, 16)
	copy(key, name)
	return key
}
