// Package trust says who is believed about what. A statement (in-toto, in a DSSE
// envelope, in a Sigstore bundle) is believed when a key signed it that has the role
// for that kind of statement, in the version of the trust root that was in force
// where the statement stands in the record. So keys can be exchanged and revoked
// without what was signed before becoming false, and without believing a clock.
//
// This package is pure: it neither reads files nor holds private keys. A private key
// is a crypto.Signer, which key files (package keyfile), PKCS#11 libraries and clouds'
// key services all are.
//
// Start at [Chain.Verify]; the verdicts are in verdict.go, and mutation_test.go shows
// what leads to each. The formats are others': in-toto Statement v1, DSSE, Sigstore
// bundle v0.3 and trusted root, Rekor v2's hashedrekord, and the shape of TUF's root.
package trust
