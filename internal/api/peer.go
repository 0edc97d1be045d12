package api

import (
	"context"
	"errors"
	"net"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

type peerKey struct{}

// withPeer keeps who is at the other end of a connection, as the kernel tells
// (SO_PEERCRED, unix(7)): nothing in a request can say otherwise.
func (s *Server) withPeer(ctx context.Context, c net.Conn) context.Context {
	name := "unknown"
	if uid, err := peerUID(c); err == nil {
		name = userName(uid)
	}
	if s.Host != "" {
		name += "@" + s.Host
	}
	return context.WithValue(ctx, peerKey{}, name)
}

// actor is who asks: "root@host".
func actor(ctx context.Context) string {
	name, ok := ctx.Value(peerKey{}).(string)
	if !ok {
		return "unknown"
	}
	return name
}

func peerUID(c net.Conn) (uint32, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, errors.New("not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if got != nil {
		return 0, got
	}
	return cred.Uid, nil
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}
