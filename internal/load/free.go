package load

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports that FreeAddr picks from: below those that systems give to clients
// (net.ipv4.ip_local_port_range begins at 32768), so that no connection under way takes
// the one picked before its server listens.
const (
	firstFree = 10_000
	freePorts = 20_000
)

// FreeAddr finds an address of the loopback on which nobody listens.
func FreeAddr() (string, error) {
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstFree+rand.IntN(freePorts)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", errors.New("load: no port of the loopback is free")
}
