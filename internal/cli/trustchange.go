package cli

import (
	"crypto/rand"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// trustChange is what flags say of the next version.
type trustChange struct {
	signers     []string
	add, remove []string // ROLE=KEY
	threshold   []string // ROLE=N
	logs        []string // KEY
	witnesses   []string // KEY
	quorum      int
	revoke      string
	reason      string
	from        []string // LOG=INDEX
	expires     time.Duration
	atLog       []string // LOG=INDEX
	expiresSet  bool
}

func (c *trustChange) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&c.signers, "sign", nil, "private root `KEY` that signs; as often as the threshold asks")
	f.StringArrayVar(&c.add, "add", nil, "give a public key a role, as `ROLE=KEY`; roles: root, release, builder, rebuilder, approver, deployer")
	f.StringArrayVar(&c.threshold, "threshold", nil, "how many keys of the role have to agree, as `ROLE=N`")
	f.StringArrayVar(&c.logs, "log", nil, "public `KEY` of a log whose proofs count:  ashlar log key")
	f.StringArrayVar(&c.witnesses, "witness", nil, "public `KEY` of a witness of every log named with --log")
	f.IntVar(&c.quorum, "quorum", 0, "how many of these witnesses have to have seen a log")
	f.DurationVar(&c.expires, "expires", 365*24*time.Hour, "how long nothing newer is needed")
}

func (p *program) trustInitCommand() *cobra.Command {
	var c trustChange
	cmd := &cobra.Command{
		Use:     "init FILE",
		Short:   "Make a trust root",
		Example: "  ashlar trust init trust.json --sign root.key --add root=root.pub --add builder=ci.pub --log \"$(ashlar log key)\"",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err == nil {
				return fault.New(fault.Conflict, "there is a trust root already").At(args[0]).Mend("change it:  ashlar trust rotate %s", args[0])
			}
			c.expiresSet = true
			r := trust.Root{Keys: map[trust.KeyID]trust.Key{}, Roles: map[trust.Role]trust.Holders{}, Logs: map[string]trust.Log{}}
			return p.extend(args[0], nil, r, c)
		},
	}
	c.flags(cmd)
	return cmd
}

func (p *program) trustRotateCommand() *cobra.Command {
	var c trustChange
	cmd := &cobra.Command{
		Use:   "rotate FILE",
		Short: "Make the next version: exchange or revoke keys, go on after an expiry",
		Long: "What was signed and recorded before stays true: a statement is judged by the version that was in force\n" +
			"at its place in the log, which --from-index gives. --revoke reaches back to where --since says.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chain, err := p.trustRoot(args[0])
			if err != nil {
				return err
			}
			c.expiresSet = cmd.Flags().Changed("expires")
			return p.extend(args[0], chain, chain.Latest().Clone(), c)
		},
	}
	c.flags(cmd)
	cmd.Flags().StringArrayVar(&c.remove, "remove", nil, "take a role from a key, by file or ID, as `ROLE=KEY`")
	cmd.Flags().StringArrayVar(&c.atLog, "from-index", nil, "entries of the log from there on are judged by this version, as `LOG=INDEX`")
	cmd.Flags().StringVar(&c.revoke, "revoke", "", "key, by file or ID, that is not to be believed any more")
	cmd.Flags().StringArrayVar(&c.from, "since", nil, "what it said before that entry stays true, as `LOG=INDEX`; without it nothing does")
	cmd.Flags().StringVar(&c.reason, "reason", "", "why it is revoked")
	return cmd
}

// extend makes and signs the next version, and writes the file.
func (p *program) extend(path string, chain *trust.Chain, r trust.Root, c trustChange) error {
	if err := p.change(&r, c); err != nil {
		return err
	}
	if c.expiresSet {
		r.Expires = time.Now().Add(c.expires)
	}
	signers, err := p.signers(c.signers)
	if err != nil {
		return err
	}
	next, err := chain.Extend(r, signers, rand.Reader)
	if err != nil {
		return refusal(err, path)
	}
	text, err := next.Marshal()
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return fault.New(fault.Unavailable, "the trust root cannot be written: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fault.New(fault.Unavailable, "the trust root cannot be written: %w", err)
	}
	if len(c.remove) > 0 && len(c.atLog) == 0 && len(r.Logs) > 0 {
		p.err.linef("what the keys said whose roles were taken away is not believed any more, as it has no --from-index LOG=N, the size of the record now")
	}
	return p.showTrust(next)
}

func (p *program) change(r *trust.Root, c trustChange) error {
	for _, text := range c.remove {
		role, id, err := p.roleKey(*r, text)
		if err != nil {
			return err
		}
		h := r.Roles[role]
		if !slices.Contains(h.KeyIDs, id) {
			return fault.New(fault.NotFound, "the key %s does not have the role %s", id, role)
		}
		h.KeyIDs = slices.DeleteFunc(h.KeyIDs, func(k trust.KeyID) bool { return k == id })
		r.Roles[role] = h
	}
	for _, text := range c.add {
		role, path, _ := strings.Cut(text, "=")
		k, err := p.parts.Keys.Public(path)
		if err != nil {
			return err
		}
		r.Keys[k.ID()] = trust.NewKey(k, ownerOf(path))
		h := r.Roles[trust.Role(role)]
		h.KeyIDs, h.Threshold = append(h.KeyIDs, k.ID()), max(h.Threshold, 1)
		r.Roles[trust.Role(role)] = h
	}
	for _, text := range c.threshold {
		role, n, err := pair(text, "--threshold")
		if err != nil {
			return err
		}
		h := r.Roles[trust.Role(role)]
		h.Threshold = int(n)
		r.Roles[trust.Role(role)] = h
	}
	if err := enough(r, c); err != nil {
		return err
	}
	if err := changeLogs(r, c); err != nil {
		return err
	}
	return p.changeRevoked(r, c)
}

// enough takes away the roles that nobody has any more. A threshold never falls by
// itself: an exchange of keys would lower it unseen.
func enough(r *trust.Root, c trustChange) error {
	for _, text := range c.remove {
		role, _, _ := strings.Cut(text, "=")
		if len(r.Roles[trust.Role(role)].KeyIDs) == 0 {
			delete(r.Roles, trust.Role(role))
		}
	}
	for _, role := range slices.Sorted(maps.Keys(r.Roles)) {
		if h := r.Roles[role]; h.Threshold > len(h.KeyIDs) {
			return fault.New(fault.Invalid, "the role %s would have %d keys, of which %d are needed", role, len(h.KeyIDs), h.Threshold).
				Mend("add another key, or say that fewer are enough:  --threshold %s=%d", role, len(h.KeyIDs))
		}
	}
	return nil
}

func ownerOf(path string) string {
	name := path[strings.LastIndex(path, "/")+1:]
	return strings.TrimSuffix(strings.TrimSuffix(name, ".pub"), ".key")
}

func changeLogs(r *trust.Root, c trustChange) error {
	for _, key := range c.logs {
		v, err := note.NewVerifier(key)
		if err != nil {
			return fault.New(fault.Invalid, "the key of the log is not one: %w", err).Detail("written: " + key).Mend("write  --log KEY  as  ashlar log key  prints it")
		}
		l, known := r.Logs[v.Name()]
		if l.Key = key; !known || len(c.witnesses) > 0 || c.quorum > 0 {
			l.Witnesses, l.Quorum = c.witnesses, c.quorum
		}
		r.Logs[v.Name()] = l
	}
	for _, text := range c.atLog {
		name, n, err := pair(text, "--from-index")
		l, ok := r.Logs[name]
		if err == nil && !ok {
			err = fault.New(fault.NotFound, "the trust root has no log %q", name)
		}
		if err != nil {
			return err
		}
		l.From = n
		r.Logs[name] = l
	}
	return nil
}

func (p *program) changeRevoked(r *trust.Root, c trustChange) error {
	if c.revoke == "" {
		return nil
	}
	id, err := p.keyID(*r, c.revoke)
	if err != nil {
		return err
	}
	if c.reason == "" {
		return fault.New(fault.Invalid, "a key is not revoked without a reason").Mend(`write  --reason "the laptop was stolen"`)
	}
	v := trust.Revocation{Reason: c.reason}
	for _, text := range c.from {
		name, n, err := pair(text, "--since")
		if err != nil {
			return err
		}
		if v.From == nil {
			v.From = map[string]int64{}
		}
		v.From[name] = n
	}
	if r.Revoked == nil {
		r.Revoked = map[trust.KeyID]trust.Revocation{}
	}
	r.Revoked[id] = v
	return nil
}

func pair(text, flag string) (string, int64, error) {
	name, number, _ := strings.Cut(text, "=")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || name == "" {
		return "", 0, fault.New(fault.Invalid, "%q is not NAME=NUMBER", text).Mend("write  %s NAME=NUMBER", flag)
	}
	return name, n, nil
}

func (p *program) roleKey(r trust.Root, text string) (trust.Role, trust.KeyID, error) {
	role, key, ok := strings.Cut(text, "=")
	if !ok {
		return "", "", fault.New(fault.Invalid, "%q is not ROLE=KEY", text)
	}
	id, err := p.keyID(r, key)
	return trust.Role(role), id, err
}

// keyID is a key by its ID, the ID's beginning, or a file.
func (p *program) keyID(r trust.Root, text string) (trust.KeyID, error) {
	var found []trust.KeyID
	for id, k := range r.Keys {
		if len(text) >= 6 && strings.HasPrefix(string(id), text) || k.Owner == text {
			found = append(found, id)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	k, err := p.parts.Keys.Public(text)
	if err != nil {
		return "", fault.New(fault.NotFound, "the trust root has no key %q", text).Mend("list them:  ashlar trust show FILE")
	}
	return k.ID(), nil
}
