// Package notary speaks for the record to the outside. It has the log's key, signs
// checkpoints, remembers the last one outside of the database, asks witnesses to
// cosign it, anchors it where others keep it, and serves the record as files that
// anyone can check (C2SP tlog-tiles, https://c2sp.org/tlog-tiles).
//
// It is not the record: what is appended, and when, is not its business. It reads.
//
// Start at [Open], which compares the database with what was remembered, and at
// [Notary.Publish]. restart_test.go shows what is noticed of a database that was
// exchanged; attack_test.go what an auditor notices of a log that lies.
package notary
