package gate

import (
	"math/big"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// ParseDecimal reads a decimal number exactly: digits, then perhaps a point and
// digits, at most 20 characters, a minus before it allowed. Anything else, an
// exponent too, is a fault of kind Invalid.
func ParseDecimal(text string) (*big.Rat, error) {
	whole, frac, point := strings.Cut(strings.TrimPrefix(text, "-"), ".")
	if len(text) > 20 || !digits(whole) || point && !digits(frac) {
		return nil, fault.New(fault.Invalid, "%q is no decimal number", text).Mend("write  a number such as 1.5")
	}
	value, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, fault.New(fault.Internal, "%q cannot be read as a number", text)
	}
	return value, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
