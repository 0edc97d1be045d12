package trust

import "slices"

// Role is what a key may speak about. One key has one role: whoever checks only the
// key would otherwise take one kind of statement for another.
type Role string

// The roles.
const (
	RoleRoot      Role = "root"      // signs the trust root
	RoleRelease   Role = "release"   // says that an artifact is meant to be run
	RoleBuilder   Role = "builder"   // says what an artifact was made of
	RoleRebuilder Role = "rebuilder" // says that it got the same bytes
	RoleApprover  Role = "approver"  // says that a release may go somewhere
	RoleDeployer  Role = "deployer"  // says what was verified before it ran
)

// Roles are all roles.
func Roles() []Role {
	return []Role{RoleRoot, RoleRelease, RoleBuilder, RoleRebuilder, RoleApprover, RoleDeployer}
}

// own begins the types of predicates that nobody else has.
const own = "https://github.com/ashlar-infra/ashlar/predicate/"

// Kind is one kind of statement.
type Kind struct {
	Name          string // short, for people
	PredicateType string
	Role          Role // who may make it
}

// kinds are all kinds of statements.
var kinds = []Kind{
	{"signature", "https://sigstore.dev/cosign/sign/v1", RoleRelease},
	{"vex", "https://openvex.dev/ns", RoleRelease},
	{"provenance", "https://slsa.dev/provenance/v1", RoleBuilder},
	{"spdx", "https://spdx.dev/Document", RoleBuilder},
	{"cyclonedx", "https://cyclonedx.org/bom", RoleBuilder},
	{"test-result", "https://in-toto.io/attestation/test-result/v0.1", RoleBuilder},
	{"rebuild", own + "rebuild/v1", RoleRebuilder},
	{"approval", own + "approval/v1", RoleApprover},
	{"summary", "https://slsa.dev/verification_summary/v1", RoleDeployer},
}

// KindNames are the short names of all kinds.
func KindNames() []string {
	var out []string
	for _, k := range kinds {
		out = append(out, k.Name)
	}
	return out
}

// KindOf finds a kind by its short name or its predicate type.
func KindOf(name string) (Kind, bool) {
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name || k.PredicateType == name })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}
