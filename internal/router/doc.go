// Package router is the http data plane: a process of its own that accepts
// requests and passes them on to the instances of a release. It outlives the
// server, which tells it through a unix socket what to route; without the server
// it goes on with the last tables, also after a restart of its own.
//
// All of the routing state is one immutable snapshot behind one atomic pointer.
// Applying a table makes the next snapshot, swaps the pointer and then shuts the
// backends that left. A request counts as in flight at its backend before it
// knows that the backend is still open (see backend.acquire), so once Apply has
// returned no new request reaches a backend that is not in the table, and none
// that is under way escapes the count.
//
// It is not a general proxy: no rewriting, no caching. What a proxy does to
// headers is net/http/httputil.ReverseProxy's work; connections to the backends are
// this package's own (send.go, conn.go): HTTP/1.1, and HTTP/2 for gRPC (grpc.go).
//
// A router of another version takes over from one that runs, without closing a
// connection (handover.go, follow.go). Certificates come from files or by ACME
// (tls.go, acme.go).
//
// Start at [Serve] for the process and [Dial] for its client; router.apply is
// the heart. TestSwitchUnderLoadLosesNothing and
// TestHandoverUnderLoadLosesNothing prove the promises; TestRouter runs the suite of
// package conformance.
package router
