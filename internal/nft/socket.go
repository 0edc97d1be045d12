package nft

import (
	"errors"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	ct "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernel keeps a socket to the packet filter and one to connection tracking. Closing one
// right after a change would wait until the kernel has freed what was replaced, 10 to 20 ms.
type kernel struct {
	filter   *nftables.Conn // nil: not opened, or given up after an error
	begun    bool           // a batch was begun on it and not committed
	tracking *ct.Handle
}

// buffer takes a transaction of about 10,000 backends and its acknowledgement, in bytes.
const buffer = 8 << 20

func (k *kernel) open() (*nftables.Conn, error) {
	if k.filter != nil && !k.begun {
		return k.filter, nil
	}
	k.close()
	room := func(c *netlink.Conn) error { return errors.Join(c.SetWriteBuffer(buffer), c.SetReadBuffer(buffer)) }
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(room))
	if err != nil {
		return nil, err
	}
	k.filter, k.begun = conn, false
	return conn, nil
}

// close gives the socket to the packet filter up.
func (k *kernel) close() {
	if k.filter != nil {
		_ = k.filter.CloseLasting() // nothing was written that is not acknowledged
		k.filter = nil
	}
}

// ask reads. After an error the socket is not used again: there may be more to read on it.
func (k *kernel) ask(what func(*nftables.Conn) error) error {
	conn, err := k.open()
	if err != nil {
		return err
	}
	if err = what(conn); err != nil {
		k.close()
	}
	return err
}

// track gives the socket to connection tracking.
func (k *kernel) track() (*ct.Handle, error) {
	if k.tracking != nil {
		return k.tracking, nil
	}
	h, err := ct.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	k.tracking = h
	return h, nil
}

// lost gives the socket to connection tracking up, after an error.
func (k *kernel) lost(err error) error {
	if err == nil || errors.Is(err, ct.ErrDumpInterrupted) { // what is told then is good enough: the next look is soon
		return nil
	}
	k.tracking.Close()
	k.tracking = nil
	return err
}

// end closes both.
func (k *kernel) end() {
	k.close()
	if k.tracking != nil {
		k.tracking.Close()
		k.tracking = nil
	}
}

// batch is one transaction: all of it or nothing, in one instant.
type batch struct {
	*nftables.Conn
	kernel *kernel
	errs   []error
}

// begin opens a transaction. One that was begun and not committed is forgotten.
func (k *kernel) begin() (*batch, error) {
	conn, err := k.open()
	if err != nil {
		return nil, err
	}
	k.begun = true
	return &batch{Conn: conn, kernel: k}, nil
}

func (b *batch) commit() error {
	err := errors.Join(b.errs...)
	if err == nil {
		err = b.Flush()
	}
	if err == nil {
		b.kernel.begun = false
	}
	return err
}
