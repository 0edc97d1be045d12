package cli

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

func (p *program) logProveCommand() *cobra.Command {
	return p.logProofCommand(&cobra.Command{
		Use:   "prove INDEX",
		Short: "Print the proof that an entry is in the record (c2sp.org/tlog-proof)",
		Long: "Prints an entry, the hashes that lead from it to the root, and the signed checkpoint. Anyone who has\n" +
			"the log's public key can check it without the server:  ashlar log check FILE --log-key KEY",
	}, (*api.Client).Prove, func(text []byte) (any, error) { return record.ParseInclusionProof(text) })
}

func (p *program) logConsistencyCommand() *cobra.Command {
	return p.logProofCommand(&cobra.Command{
		Use:   "consistency OLD",
		Short: "Print the proof that the record begins with its first OLD entries (c2sp.org/tlog-witness)",
	}, (*api.Client).Consistency, func(text []byte) (any, error) { return record.ParseConsistencyProof(text) })
}

// logProofCommand completes a command that asks for the proof of an index and prints it.
func (p *program) logProofCommand(cmd *cobra.Command, ask func(*api.Client, context.Context, int64) ([]byte, error), parse func([]byte) (any, error)) *cobra.Command {
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := index(args[0])
		if err != nil {
			return err
		}
		c, err := p.client()
		if err != nil {
			return err
		}
		text, err := ask(c, cmd.Context(), n)
		if err != nil {
			return err
		}
		if !p.json() {
			p.out.text(string(text))
			return nil
		}
		proof, err := parse(text)
		if err != nil {
			return err
		}
		p.out.json(proof)
		return nil
	}
	return cmd
}

func index(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "%q is not a number of entries", text).Mend("list the entries:  ashlar log")
	}
	return n, nil
}

func (p *program) logCheckCommand() *cobra.Command {
	var keys logKeys
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a proof that an entry is in a record, without a server; - reads standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			a, err := p.auditor(keys)
			if err != nil {
				return err
			}
			text, err := p.read("the proof", args[0], maxProofFile)
			if err != nil {
				return err
			}
			proof, err := record.ParseInclusionProof(text)
			if err != nil {
				return fault.New(fault.Invalid, "%w", err).At(args[0]).Mend("name a file as  ashlar log prove INDEX  prints it")
			}
			c, err := proof.Check(a.Log)
			if err != nil {
				return err
			}
			seen, finding := a.Open(proof.Checkpoint)
			if finding != nil {
				return fault.New(fault.Refused, "%s", finding.What).At(args[0]).Detail("verdict: " + string(finding.Verdict))
			}
			return p.showChecked(proof, c, seen)
		},
	}
	keys.flags(cmd)
	return cmd
}

// maxProofFile bounds what is read as a proof, in bytes.
const maxProofFile = 1 << 20

// read is readFile, where - means standard input.
func (p *program) read(what, path string, limit int64) ([]byte, error) {
	if path == "-" {
		return readAll(what, p.in, limit)
	}
	return readFile(what, path, limit)
}

// readFile reads what somebody gives, as much as it may be; what says what that is.
func readFile(what, path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "%s cannot be read: %w", what, err)
	}
	defer f.Close() //nolint:errcheck // it is only read
	text, err := readAll(what, f, limit)
	if err != nil {
		return nil, fault.Of(err).At(path)
	}
	return text, nil
}

func readAll(what string, r io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "%s cannot be read: %w", what, err)
	}
	if int64(len(text)) > limit {
		return nil, fault.New(fault.Invalid, "%s has more than %d bytes", what, limit)
	}
	return text, nil
}

func (p *program) showChecked(proof record.InclusionProof, c record.Checkpoint, seen record.Seen) error {
	if record.IsStatement(proof.Leaf) {
		if p.json() {
			p.out.json(map[string]any{"statement": json.RawMessage(proof.Leaf), "checkpoint": seen})
			return nil
		}
		p.out.linef("it is a signed statement: entry %d of the record %s, which had %s", proof.Index, c.Origin, count64(c.Size, "entry", "entries"))
		return nil
	}
	e, err := record.ParseLeaf(proof.Leaf)
	if err != nil {
		return fault.New(fault.Refused, "what is in the record is no entry: %w", err)
	}
	if p.json() {
		p.out.json(map[string]any{"entry": e, "checkpoint": seen})
		return nil
	}
	p.showEntry(e)
	for _, k := range slices.Sorted(maps.Keys(e.Data)) {
		p.out.linef("         %s: %s", k, e.Data[k])
	}
	by := ""
	if n := len(seen.Cosignatures); n > 0 {
		by = ", cosigned by " + count64(int64(n), "witness", "witnesses")
	}
	p.out.linef("it is entry %d of the record %s, which had %s%s", proof.Index, c.Origin, count64(c.Size, "entry", "entries"), by)
	return nil
}

func (p *program) logKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Print the public key of the record's log, which auditors and witnesses need",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := p.stateDir()
			if err != nil {
				return err
			}
			key, err := p.parts.Log.Key(dir)
			if err != nil {
				return err
			}
			if p.json() {
				p.out.json(map[string]string{"key": key})
				return nil
			}
			p.out.linef("%s", key)
			return nil
		},
	}
}

func (p *program) logRenewCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "End the record's log and begin a new one, after a database was restored or lost",
		Long: "The server refuses to start on a database that is older than what it signed, or another. Where that loss\n" +
			"is accepted, this ends the log: its key is removed, its last checkpoint kept as evidence in log.retired/,\n" +
			"and a new log begins over the record as it is, with an entry that says so. Witnesses and auditors have to\n" +
			"be given the new key. The server must not run.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if strings.TrimSpace(reason) == "" {
				return fault.New(fault.Invalid, "a log is not renewed without a reason").Mend(`write  --reason "restored the backup of yesterday"`)
			}
			dir, err := p.stateDir()
			if err != nil {
				return err
			}
			data, err := p.parts.Log.Renew(cmd.Context(), dir, reason)
			if err != nil {
				return err
			}
			if p.json() {
				p.out.json(data)
				return nil
			}
			p.out.linef("the log is now %s, over a record of %s entries", data["log"], data["size"])
			p.out.linef("give its key to witnesses and auditors:  ashlar log key")
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}
