package debian

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // OpenSSL names files by it; nothing is secured
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"path"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

const shippedCerts = "usr/share/ca-certificates/"

// certificates does what update-ca-certificates(8) does with every shipped
// certificate enabled: one bundle in the order of the names, and links by name and
// by subject hash.
func (a *assembly) certificates() error {
	var bundle bytes.Buffer
	var list strings.Builder
	list.WriteString("# Every certificate that ca-certificates ships is trusted; update-ca-certificates(8) reads this.\n")
	for _, p := range sortedPaths(a.entries) {
		name, ok := strings.CutPrefix(p, shippedCerts)
		if !ok || path.Ext(p) != ".crt" || a.entries[p].Type != image.File {
			continue
		}
		text, err := a.read(p)
		if err != nil {
			return err
		}
		bundle.Write(bytes.TrimRight(text, "\n"))
		bundle.WriteByte('\n')
		list.WriteString(name + "\n")
		hash, err := subjectHash(text)
		if err != nil {
			return fault.New(fault.Refused, "the certificate /%s is malformed: %w", p, err)
		}
		byName := strings.NewReplacer(" ", "_", "(", "=", ")", "=", ",", "_").Replace(strings.TrimSuffix(path.Base(p), ".crt")) + ".pem"
		a.link(Link{Path: "etc/ssl/certs/" + byName, To: "/" + p})
		a.link(Link{Path: a.freeHash(hash), To: byName})
	}
	if err := a.file(File{Path: "etc/ca-certificates.conf", Mode: 0o644, Text: list.String()}); err != nil {
		return err
	}
	return a.file(File{Path: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Text: bundle.String()})
}

func (a *assembly) freeHash(hash string) string {
	for i := 0; ; i++ {
		if p := fmt.Sprintf("etc/ssl/certs/%s.%d", hash, i); !a.has(p) {
			return p
		}
	}
}

// nameSET is one relative distinguished name; the suffix makes encoding/asn1 treat
// it as a SET.
type nameSET []struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// subjectHash is OpenSSL's X509_NAME_hash: the first 4 bytes, little-endian, of
// the SHA-1 of the subject's canonical form, in which text is UTF-8, lower case,
// trimmed, and its blanks are single (x509_name_canon in crypto/x509/x_name.c).
func subjectHash(text []byte) (string, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return "", fmt.Errorf("it is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	var names []nameSET
	if _, err := asn1.Unmarshal(cert.RawSubject, &names); err != nil {
		return "", err
	}
	var canon []byte
	for _, set := range names {
		for i := range set {
			set[i].Value = canonical(set[i].Value)
		}
		b, err := asn1.Marshal(set)
		if err != nil {
			return "", err
		}
		canon = append(canon, b...)
	}
	sum := sha1.Sum(canon) //nolint:gosec // as above
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:4])), nil
}

func canonical(v asn1.RawValue) asn1.RawValue {
	var text string
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, 26: // 26: VisibleString
		text = string(v.Bytes)
	case asn1.TagT61String: // taken as Latin-1, as OpenSSL does
		for _, b := range v.Bytes {
			text += string(rune(b))
		}
	case asn1.TagBMPString:
		for i := 0; i+1 < len(v.Bytes); i += 2 {
			text += string(rune(binary.BigEndian.Uint16(v.Bytes[i:])))
		}
	default:
		return v
	}
	lower := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, strings.Join(strings.Fields(text), " "))
	return asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagUTF8String, Bytes: []byte(lower)}
}
