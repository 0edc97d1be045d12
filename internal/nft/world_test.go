package nft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

const (
	bridge = "ash-test"
	inside = "ASHLAR_NFT_TEST" // set in the process that has a network of its own
)

// TestMain runs the tests in a network namespace of their own, which goes with the
// process: nothing of the host is touched and nothing can stay.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make network namespaces: run them as root")
		os.Exit(1)
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var subnet = netip.MustParsePrefix("10.213.0.0/20")

// world is a host with a bridge, instances on it, and a neighbour beyond another link.
type world struct {
	*Router
	t   testing.TB
	dir string
	mu  sync.Mutex
	out []io.Closer
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	before := w.host()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	br, err := netlink.LinkByName(bridge)
	must(t, err)
	must(t, netlink.AddrReplace(br, &netlink.Addr{IPNet: &net.IPNet{IP: subnet.Addr().Next().AsSlice(), Mask: net.CIDRMask(20, 32)}}))
	must(t, netlink.LinkSetUp(br))
	w.reopen()
	t.Cleanup(func() {
		w.mu.Lock()
		for i := len(w.out) - 1; i >= 0; i-- {
			_ = w.out[i].Close()
		}
		w.mu.Unlock()
		must(t, netlink.LinkDel(br))
		must(t, netlink.ConntrackTableFlush(netlink.ConntrackTable))
		if after := w.host(); after != before {
			w.sweep()
			t.Errorf("the host is not as it was before:\n%s\nbefore:\n%s", after, before)
		}
	})
	return w
}

// reopen is what a server does that was killed and started again.
func (w *world) reopen() {
	w.t.Helper()
	if w.Router != nil {
		w.Router.mu.Lock()
		w.Router.ended = true // a killed process has no timers
		w.Router.kernel.end()
		w.Router.mu.Unlock()
	}
	r, err := New(Config{Dir: w.dir, Bridge: bridge, Log: slog.New(slog.DiscardHandler)})
	must(w.t, err)
	w.Router = r
}

// down empties environments and closes the router.
func (w *world) down(generation int64, keys ...rollout.Key) {
	w.t.Helper()
	for _, k := range keys {
		must(w.t, w.Apply(context.Background(), k, rollout.Table{Generation: generation}))
		w.until("nothing is under way in "+k.String(), func() bool {
			s, err := w.Status(context.Background(), k)
			return err == nil && len(s.Kinds) == 0
		})
	}
	must(w.t, w.Close(context.Background()))
}

// sweep takes away what a failed test left, so that the others may pass.
func (w *world) sweep() {
	b, err := w.kernel.begin()
	must(w.t, err)
	b.DelTable(w.table)
	if err := errors.Join(b.commit(), removeLocalRoute(w.book.lower())); err != nil {
		w.t.Log(err)
	}
}

// host tells what the kernel has that a server may leave behind.
func (w *world) host() string {
	var b strings.Builder
	conn, err := nftables.New()
	must(w.t, err)
	tables, err := conn.ListTables()
	must(w.t, err)
	for _, t := range tables {
		fmt.Fprintln(&b, "table", t.Name)
	}
	used, err := usedPrefixes(netip.Prefix{})
	must(w.t, err)
	fmt.Fprintln(&b, "addresses", used)
	links, err := dump(netlink.LinkList)
	must(w.t, err)
	for _, l := range links {
		forwards, _ := readSetting(l.Attrs().Name, "forwarding")
		fmt.Fprintln(&b, "link", l.Attrs().Name, "forwarding", forwards)
	}
	return b.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is a network namespace: the host's own, an instance's or a neighbour's.
type place struct {
	w    *world
	ns   netns.NsHandle // 0: the host's
	addr netip.Addr
}

// run calls do on a thread within the place.
func (p *place) run(do func() error) error {
	if p.ns == 0 {
		return do()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := netns.Set(p.ns); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

func (w *world) hostPlace() *place { return &place{w: w} }

// instance makes a namespace on the bridge, as package local does.
func (w *world) instance(n byte) *place {
	w.t.Helper()
	addr := netip.AddrFrom4([4]byte{10, 213, 1, n})
	p := w.namespace(fmt.Sprintf("ashi%d", n), addr, 20)
	link, err := netlink.LinkByName(fmt.Sprintf("ashi%d", n))
	must(w.t, err)
	br, err := netlink.LinkByName(bridge)
	must(w.t, err)
	must(w.t, netlink.LinkSetMaster(link, br))
	must(w.t, netlink.LinkSetHairpin(link, true))
	p.route(Pool, subnet.Addr().Next())
	return p
}

// neighbour makes a namespace that reaches the host by a link of its own.
func (w *world) neighbour() *place {
	w.t.Helper()
	p := w.namespace("ashout", netip.MustParseAddr("192.0.2.9"), 24)
	link, err := netlink.LinkByName("ashout")
	must(w.t, err)
	must(w.t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1).To4(), Mask: net.CIDRMask(24, 32)}}))
	return p
}

func (w *world) namespace(link string, addr netip.Addr, bits int) *place {
	w.t.Helper()
	p := &place{w: w, addr: addr}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var err error
		p.ns, err = netns.New()
		made <- err
	}()
	must(w.t, <-made)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Flags = link, net.FlagUp
	must(w.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.ns)}))
	h, err := netlink.NewHandleAt(p.ns)
	must(w.t, err)
	defer h.Close()
	for _, name := range []string{"lo", "eth0"} {
		l, err := h.LinkByName(name)
		must(w.t, err)
		if name == "eth0" {
			must(w.t, h.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, 32)}}))
		}
		must(w.t, h.LinkSetUp(l))
	}
	w.closes(closer(func() error {
		l, err := netlink.LinkByName(link)
		if err == nil {
			err = netlink.LinkDel(l)
		}
		return errors.Join(err, p.ns.Close())
	}))
	return p
}

func (p *place) route(to netip.Prefix, via netip.Addr) {
	p.w.t.Helper()
	h, err := netlink.NewHandleAt(p.ns)
	must(p.w.t, err)
	defer h.Close()
	must(p.w.t, h.RouteAdd(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}))
}

// loopbackOutside makes the instance send what goes to 127.0.0.0/8 to the bridge, and lets it be
// 127.0.0.9 there, as one that may change its network can.
func (p *place) loopbackOutside() {
	p.w.t.Helper()
	h, err := netlink.NewHandleAt(p.ns)
	must(p.w.t, err)
	defer h.Close()
	lo, err := h.LinkByName("lo")
	must(p.w.t, err)
	own, err := h.AddrList(lo, netlink.FAMILY_V4)
	must(p.w.t, err)
	for _, a := range own { // a link that is down keeps its addresses' routes
		must(p.w.t, h.AddrDel(lo, &a))
	}
	out, err := h.LinkByName("eth0")
	must(p.w.t, err)
	must(p.w.t, h.AddrAdd(out, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(127, 0, 0, 9).To4(), Mask: net.CIDRMask(32, 32)}}))
	must(p.w.t, p.run(func() error { return os.WriteFile(setting("eth0", "route_localnet"), []byte("1"), 0) }))
	p.route(netip.MustParsePrefix("127.0.0.0/8"), subnet.Addr().Next())
}

// hears says whether a datagram to an address of the place gets there from another one, as
// an address that it has; zero: whichever the kernel takes.
func (p *place) hears(to string, from *place, as netip.Addr) bool {
	p.w.t.Helper()
	var in net.PacketConn
	must(p.w.t, p.run(func() (err error) { in, err = net.ListenPacket("udp4", to); return err }))
	defer in.Close() //nolint:errcheck // a test's
	must(p.w.t, from.run(func() error {
		c, err := (&net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(as, 0))}).Dial("udp4", to)
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("hello"))
		return errors.Join(err, c.Close())
	}))
	must(p.w.t, in.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	n, _, err := in.ReadFrom(make([]byte, 16))
	return n == 5 && err == nil
}

type closer func() error

func (c closer) Close() error { return c() }

func (w *world) closes(c io.Closer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = append(w.out, c)
}

// serve answers connections in the place with its name and who asks, then echoes lines.
func (p *place) serve(port int) rollout.Backend {
	p.w.t.Helper()
	var l net.Listener
	must(p.w.t, p.run(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", p.addr, port))
		return err
	}))
	p.w.closes(l)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.w.closes(c)
			go func() {
				defer c.Close() //nolint:errcheck // a test's
				if _, err := fmt.Fprintf(c, "%s %s\n", p.addr, c.RemoteAddr()); err == nil {
					_, _ = io.Copy(c, c)
				}
			}()
		}
	}()
	return rollout.Backend{ID: "shop-production-redis-" + strings.ReplaceAll(p.addr.String(), ".", "-"), Address: l.Addr().String(), Weight: 1}
}

// dial connects from the place and gives who answered and whom that saw.
func (p *place) dial(to string, limit time.Duration) (c net.Conn, who, saw string, err error) {
	err = p.run(func() (err error) {
		c, err = (&net.Dialer{Timeout: limit, KeepAlive: -1}).DialContext(context.Background(), "tcp4", to)
		return err
	})
	if err != nil {
		return nil, "", "", err
	}
	must(p.w.t, c.SetDeadline(time.Now().Add(limit)))
	if _, err := fmt.Fscanf(c, "%s %s\n", &who, &saw); err != nil {
		return nil, "", "", errors.Join(err, c.Close())
	}
	return c, who, saw, c.SetDeadline(time.Time{})
}

// ask connects, says who answered, and hangs up.
func (p *place) ask(to string) (who, saw string, err error) {
	c, who, saw, err := p.dial(to, 20*time.Second)
	if err == nil {
		err = c.Close()
	}
	return who, saw, err
}

func refused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

var production = rollout.Key{App: "shop", Env: "production"}

// redis is a table of one TCP service.
func redis(generation int64, backends ...rollout.Backend) rollout.Table {
	return rollout.Table{Generation: generation, Services: []rollout.Service{{
		Name: "redis", TCP: 6379, Hold: 20 * time.Second, Drain: time.Minute, Backends: backends,
	}}}
}

// address is where the service is reached.
func (w *world) address(key rollout.Key, name string, port int) string {
	w.t.Helper()
	at, err := w.Addresses(key, []string{name})
	must(w.t, err)
	return netip.AddrPortFrom(at[name], uint16(port)).String()
}

func (w *world) apply(table rollout.Table) {
	w.t.Helper()
	must(w.t, w.Apply(w.t.Context(), production, table))
}

func (w *world) status() rollout.RouterStatus {
	w.t.Helper()
	s, err := w.Status(w.t.Context(), production)
	must(w.t, err)
	return s
}

// until waits for something that the kernel does by itself.
func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited 20 s in vain: %s", what)
		}
	}
}

func write(t testing.TB, path, value string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(value), 0))
}
