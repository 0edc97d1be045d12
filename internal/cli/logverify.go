package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// logKeys say whose signatures count.
type logKeys struct {
	log       string
	witnesses []string
	quorum    int
}

func (k *logKeys) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.log, "log-key", "", "public key of the log; without it: that of the state directory")
	cmd.Flags().StringArrayVar(&k.witnesses, "witness-key", nil, "public `KEY` of a witness that has to have cosigned; may be given again")
	cmd.Flags().IntVar(&k.quorum, "quorum", 0, "how many of the witnesses are enough; 0: all")
}

// auditor reads the keys.
func (p *program) auditor(k logKeys) (record.Auditor, error) {
	var a record.Auditor
	if k.log == "" {
		dir, err := p.stateDir()
		if err != nil {
			return a, err
		}
		if k.log, err = p.parts.Log.Key(dir); err != nil {
			return a, err
		}
	}
	log, err := note.NewVerifier(k.log)
	if err != nil {
		return a, fault.New(fault.Invalid, "the key of the log is not one: %w", err).Detail("written: " + k.log).Mend("write  --log-key KEY  as  ashlar log key  prints it")
	}
	a.Log = log
	for _, text := range k.witnesses {
		w, err := record.NewWitnessVerifier(text)
		if err != nil {
			return a, fault.New(fault.Invalid, "%w", err).Detail("written: " + text).Mend("write  --witness-key KEY  as  ashlar-witness init  printed it")
		}
		a.Witnesses = append(a.Witnesses, w)
	}
	a.Quorum = k.quorum
	if k.quorum == 0 {
		a.Quorum = len(a.Witnesses)
	}
	if a.Quorum < 0 || a.Quorum > len(a.Witnesses) {
		return a, fault.New(fault.Invalid, "%d of %d witnesses cannot have cosigned", a.Quorum, len(a.Witnesses)).Mend("name the witnesses:  --witness-key KEY")
	}
	return a, nil
}

// logAudit is what `log verify` found.
type logAudit struct {
	record.Report
	Checkpoint record.Seen `json:"checkpoint"`
	Compared   int         `json:"compared"` // checkpoints of before that the log begins with
}

func (p *program) logVerifyCommand() *cobra.Command {
	var keys logKeys
	var address, file string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Recompute the record, compare every hash, and check what it signed",
		Long: "Has the server recompute its record, then checks the record's signed checkpoint. With --checkpoint\n" +
			"the record has to begin with every checkpoint that was seen before, so that a record that was cut or\n" +
			"written anew is found; what is new is appended to the file. With --url nothing of the server is\n" +
			"believed: every entry and every hash is read from there and recomputed here.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var audit logAudit
			a, err := p.audit(cmd.Context(), &audit, keys, address)
			if err == nil && file != "" && audit.OK() {
				err = p.compareSeen(&audit, a, file)
			}
			if err != nil {
				return err
			}
			return p.showAudit(audit, file)
		},
	}
	keys.flags(cmd)
	cmd.Flags().StringVar(&address, "url", "", "read the record where it is served, such as http://127.0.0.1:8441/")
	cmd.Flags().StringVar(&file, "checkpoint", "", "file of the checkpoints that were seen before")
	return cmd
}

// audit looks at the record from outside, or has the server recompute it.
func (p *program) audit(ctx context.Context, l *logAudit, keys logKeys, address string) (a record.Auditor, err error) {
	if address != "" {
		if a, err = p.auditor(keys); err != nil {
			return a, err
		}
		if a.Source, err = api.NewLogSource(ctx, address); err != nil {
			return a, err
		}
		return a, l.outside(a)
	}
	c, err := p.client()
	if err != nil {
		return a, err
	}
	if l.Report, err = c.VerifyLog(ctx); err != nil || !l.OK() {
		return a, err
	}
	if a, err = p.auditor(keys); err != nil {
		return a, err
	}
	a.Source = c.Log(ctx)
	return a, l.inside(ctx, c, a)
}

// inside checks what the server signed against what it recomputed.
func (l *logAudit) inside(ctx context.Context, c *api.Client, a record.Auditor) error {
	signed, err := c.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if l.Checkpoint, l.Finding = a.Open(signed); l.Finding != nil {
		return nil
	}
	// The record has grown since, or is what was verified.
	l.Finding, err = a.Compare(l.Checkpoint.Checkpoint, record.Checkpoint{Origin: l.Checkpoint.Origin, Size: l.Size, Root: l.Root})
	return err
}

// outside reads everything.
func (l *logAudit) outside(a record.Auditor) error {
	seen, finding, err := a.Latest()
	l.Checkpoint, l.Size, l.Root, l.Finding = seen, seen.Size, seen.Root, finding
	if err != nil || finding != nil {
		return err
	}
	l.Report, err = a.Audit(seen.Checkpoint)
	return err
}

// compareSeen checks the log against the file's checkpoints and appends the new one.
func (p *program) compareSeen(l *logAudit, a record.Auditor, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Unavailable, "the checkpoints that were seen cannot be read: %w", err).At(file)
	}
	notes, err := record.SplitCheckpoints(raw)
	if err != nil {
		return fault.New(fault.Invalid, "%w", err).At(file)
	}
	last := int64(-1)
	for _, signed := range notes {
		earlier, err := record.OpenCheckpoint(signed, a.Log)
		if err != nil {
			return fault.New(fault.Refused, "a checkpoint that was seen is not of this log: %w", err).At(file).
				Detail("verdict: " + string(record.Unsigned)).
				Mend("name the log's key:  --log-key KEY;  a log that was renewed says so in its entry record.renewed and needs a new file")
		}
		if l.Finding, err = a.Compare(l.Checkpoint.Checkpoint, earlier); err != nil || l.Finding != nil {
			return err
		}
		l.Compared++
		last = max(last, earlier.Size)
	}
	if last >= l.Checkpoint.Size {
		return nil
	}
	if err := p.parts.Log.Remember(file, l.Checkpoint.Signed); err != nil {
		return fault.New(fault.Unavailable, "the checkpoint cannot be remembered: %w", err).At(file)
	}
	return nil
}

// mends says what to do about a record that is not what it says.
func mends(v record.Verdict) string {
	switch v {
	case record.Unsigned:
		return "name the log's own key:  --log-key KEY ; a log that was renewed has another, and says so in its entry record.renewed"
	case record.Unwitnessed:
		return "wait for a witness that was away; what each saw, and whether this goes on from it, is at  WITNESS/seen/LOG  and in its log"
	case record.RolledBack, record.Forked, record.Truncated:
		return "keep the database as evidence, and restore a backup that is newer; if there is none, accept the loss:  ashlar log renew --reason WHY"
	}
	return "keep the database as evidence, and restore the last backup"
}

func (p *program) showAudit(l logAudit, file string) error {
	if p.json() {
		p.out.json(l)
	}
	if f := l.Finding; f != nil {
		return fault.New(fault.Refused, "the record is not what it says: %s", f.What).
			Detail("verdict: "+string(f.Verdict), "size: "+count64(l.Size, "entry", "entries"), "root: "+l.Root.String()).
			Mend("%s", mends(f.Verdict))
	}
	if p.json() {
		return nil
	}
	p.out.linef("the record is intact: %s, root %s", count64(l.Size, "entry", "entries"), l.Root)
	if len(l.Checkpoint.Cosignatures) > 0 {
		var by []string
		for _, c := range l.Checkpoint.Cosignatures {
			by = append(by, c.Witness+" "+age(time.Since(c.Time))+" ago")
		}
		p.out.linef("cosigned by %s", strings.Join(by, ", "))
	}
	switch {
	case file == "":
	case l.Compared == 0:
		p.out.linef("remembered in %s: the first checkpoint; keep it where the server cannot write", file)
	default:
		p.out.linef("it begins with what was seen before: %s in %s", count(l.Compared, "checkpoint"), file)
	}
	return nil
}
