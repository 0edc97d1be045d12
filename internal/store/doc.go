// Package store keeps releases, environments and the record in one SQLite
// database, D/ashlar.db. It is no cache and no queue: everything that must not be
// lost is here, and every change is one transaction with the entries that tell of
// it, so that no change can be without its entries nor an entry without its change.
//
// One server owns the database ([Lock]); it has one writing connection and a few
// reading ones (write-ahead log, synchronous=FULL: what was acknowledged survives
// a power failure). Entries are append-only, which triggers in the database insist on.
//
// Start at [Open]. The promises are those of engine.Store, shown by package
// conformance; the tests here add what only a disk can do: a full one, a damaged
// file, a kill -9 in the middle of a commit.
package store
