package shim

import (
	"net"
	"testing"
)

// A server that finds an instance whose shim is just leaving has to be able to
// start all the same.
func TestCloseWhatHasEnded(t *testing.T) {
	ours, theirs := net.Pipe()
	c := NewClient(ours, func(Message) {})
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if err := c.Close(); err != nil {
		t.Errorf("closing a connection that the shim has ended: %v", err)
	}
}
