// Package registry speaks OCI distribution: a server over the local object store, and
// a client that brings artifacts to other registries and from them.
//
// The server ([New], an http.Handler; [Serve] listens) has two kinds of content.
// What was pushed lies in the object store under references of its own, see
// repository.go. What Ashlar built is told by a [Catalog] and served without being
// copied: a layer is a tar that is written from its tree and objects while it is
// read, from any offset on. Statements beside either (package referrer) are its
// referrers.
//
// Nothing that is pushed is believed: content has to be what its digest says before it
// gets a name, manifests have to be of a known kind, and all sizes are bounded. What is
// refused leaves nothing.
//
// It follows https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md;
// tools/conformance has the suite of that specification judge it. TestAttacks has what
// it refuses.
package registry
