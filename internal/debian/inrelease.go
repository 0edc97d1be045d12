package debian

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// maxInRelease bounds an InRelease file; Debian's largest has 0.3 MB.
const maxInRelease = 16 << 20

// errNotSigned and its like say why a signed message is not believed.
var (
	errNotSigned = errors.New("it is not an OpenPGP clear-signed message")
	errBefore    = errors.New("there is data before the signed message")
	errAfter     = errors.New("there is data after the signed message")
)

const beginSigned = "-----BEGIN PGP SIGNED MESSAGE-----"

// verifySigned returns the text of a clear-signed message (RFC 9580 section 7)
// that one of the keys has signed, and the fingerprint of that key. The message
// must be the whole of data: what stands before or after it is not signed, and a
// laxer reader could be made to believe it.
func verifySigned(data, keyring []byte, now time.Time) (text []byte, signer string, err error) {
	if !bytes.HasPrefix(data, []byte(beginSigned)) {
		if bytes.Contains(data, []byte("\n"+beginSigned)) {
			return nil, "", errBefore
		}
		return nil, "", errNotSigned
	}
	keys, err := readKeys(keyring)
	if err != nil {
		return nil, "", err
	}
	block, rest := clearsign.Decode(data)
	if block == nil {
		return nil, "", errNotSigned
	}
	if len(rest) > 0 {
		return nil, "", errAfter
	}
	signer, err = anySignature(block, keys, now)
	if err != nil {
		return nil, "", err
	}
	// Bytes, not Plaintext, is what was signed; they differ in line ends alone.
	return bytes.ReplaceAll(block.Bytes, []byte("\r\n"), []byte("\n")), signer, nil
}

// anySignature checks the signatures one by one: Debian signs with an old and a
// new key for years, and a machine may know only one of them.
func anySignature(block *clearsign.Block, keys openpgp.EntityList, now time.Time) (string, error) {
	config := &packet.Config{Time: func() time.Time { return now }}
	packets := packet.NewReader(block.ArmoredSignature.Body)
	verdict := errors.New("it has no signature")
	for n := 0; n < 16; n++ {
		p, err := packets.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("its signature is malformed: %w", err)
		}
		sig, ok := p.(*packet.Signature)
		if !ok {
			return "", errors.New("its signature block holds something else")
		}
		var one bytes.Buffer
		if err := sig.Serialize(&one); err != nil {
			return "", fmt.Errorf("its signature is malformed: %w", err)
		}
		by, err := openpgp.CheckDetachedSignature(keys, bytes.NewReader(block.Bytes), &one, config)
		if err == nil {
			return strings.ToUpper(hex.EncodeToString(by.PrimaryKey.Fingerprint)), nil
		}
		verdict = fmt.Errorf("key %s: %w", keyID(sig), err)
	}
	return "", verdict
}

func keyID(sig *packet.Signature) string {
	if sig.IssuerKeyId == nil {
		return "unknown"
	}
	return fmt.Sprintf("%016X", *sig.IssuerKeyId)
}

// readKeys reads binary keys, or any number of armoured blocks.
func readKeys(data []byte) (openpgp.EntityList, error) {
	if !bytes.Contains(data, []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----")) {
		keys, err := openpgp.ReadKeyRing(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("the keyring cannot be read: %w", err)
		}
		return keys, nil
	}
	var all openpgp.EntityList
	const end = "-----END PGP PUBLIC KEY BLOCK-----"
	for {
		i := bytes.Index(data, []byte(end))
		if i < 0 {
			break
		}
		block, err := armor.Decode(bytes.NewReader(data[:i+len(end)]))
		if err != nil {
			return nil, fmt.Errorf("the keyring cannot be read: %w", err)
		}
		keys, err := openpgp.ReadKeyRing(block.Body)
		if err != nil {
			return nil, fmt.Errorf("the keyring cannot be read: %w", err)
		}
		all = append(all, keys...)
		data = data[i+len(end):]
	}
	if len(all) == 0 {
		return nil, errors.New("the keyring holds no key")
	}
	return all, nil
}

// readInRelease checks an InRelease file against the archive it is said to be of
// and returns what it says.
func readInRelease(data []byte, a Archive, now time.Time) (*releaseFile, string, error) {
	where := a.URL + "/dists/" + a.Suite + "/InRelease"
	text, signer, err := verifySigned(data, a.Keyring, now)
	if err != nil {
		return nil, "", fault.New(fault.Refused, "the archive's signature is not good: %w", err).At(where).
			Mend("check the mirror in /etc/apt/sources.list.d and, for a new Debian release, upgrade the package debian-archive-keyring")
	}
	rel, err := parseRelease(string(text))
	if err != nil {
		return nil, "", fault.New(fault.Refused, "the signed index is malformed: %w", err).At(where)
	}
	if err := rel.check(a.Suite, now); err != nil {
		err.Where = where
		return nil, "", err
	}
	return rel, signer, nil
}
