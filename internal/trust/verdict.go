package trust

import "fmt"

// Verdict is why something is not believed, in one word.
type Verdict string

// The verdicts.
const (
	Malformed      Verdict = "malformed"       // it cannot be read as what it should be
	BadSignature   Verdict = "bad-signature"   // the signature is not of the key over the content
	UnknownKey     Verdict = "unknown-key"     // the trust root does not know the key, or did not then
	WrongRole      Verdict = "wrong-role"      // the key is known and may not say that
	WrongPredicate Verdict = "wrong-predicate" // it says something else than what was asked for
	OtherArtifact  Verdict = "other-artifact"  // it is about something else
	Revoked        Verdict = "revoked"         // the key was revoked before the statement was recorded, or it was never recorded
	Expired        Verdict = "expired"         // the trust root is too old to rely on
	NotLogged      Verdict = "not-logged"      // it is not proven to be in a record that the trust root knows
	Unwitnessed    Verdict = "unwitnessed"     // too few witnesses saw that record
	TooFew         Verdict = "too-few"         // fewer keys than the role's threshold say so
	RolledBack     Verdict = "rolled-back"     // the trust root is older than one that was used before
	OtherRoot      Verdict = "other-root"      // the trust root does not go on from the one that was used before
)

// Refusal is a verdict with what led to it.
type Refusal struct {
	Verdict Verdict
	What    string // one sentence without a final dot
}

// Error gives the sentence.
func (r *Refusal) Error() string { return r.What }

func refuse(v Verdict, format string, args ...any) *Refusal {
	return &Refusal{v, fmt.Sprintf(format, args...)}
}
