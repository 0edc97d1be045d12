// Package nft routes TCP services in the kernel, by nftables. It is an
// engine.Router for the services of a table that have a TCP port; the others are
// package router's.
//
// Each service has a stable address that never changes ([Router.Addresses]). A new
// connection to it, or to the service's address on the host (Service.Listen), goes to
// one of the backends, in turn by weight; what is established stays where it is, as
// connection tracking remembers it. A change of an environment's backends is one
// netlink transaction.
//
// What is in force is in the kernel and nowhere else: one table for each server, named
// after its bridge. The generation of an environment and its backends, also those that
// left and drain, are comments in it (register.go), so a server that returns goes on
// with what it finds, and a table that somebody flushed shows as generation 0 and is
// applied again. Only the addresses are in a file, as they must outlive the kernel.
//
// While a service has no backend its new connections wait: their SYN is dropped, and
// the client's TCP sends it again, after 1, 2, 3 and 4 s and then in growing steps (Linux 6.5
// or newer). A connection that is asked for longer than the service's Hold is refused
// with a reset. The kernel keeps these times by itself (service.go).
//
// When a backend's drain time is over, what it still has is cut (cut.go): forgotten by
// connection tracking and reset at both ends, and counted.
//
// Nothing at all is done as long as no table has a TCP service. IPv4 only, as the
// bridge is. It does not look after instances, names or http.
//
// Start at [Router.Apply]. TestRouter runs the suite of package conformance; the tests
// run in a network namespace of their own, with instances in further ones.
package nft
