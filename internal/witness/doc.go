// Package witness is a witness of logs, and how a log asks one, by
// https://c2sp.org/tlog-witness. A witness remembers the last checkpoint of each log
// that it cosigned and cosigns only what provably begins with it. So nobody can be
// shown a log that was cut, or two different ones, with its cosignature.
//
// It knows no entries: it sees sizes, roots and proofs. It is worth something when
// somebody else runs it, on another machine.
//
// Start at [decide]. witness_test.go is the protocol, answer by answer; package
// record has the formats.
package witness
