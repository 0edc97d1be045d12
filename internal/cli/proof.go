package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/proof"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// ProofParts is what proofs need of what is on disk.
type ProofParts struct {
	// Collect adds what the object store has of the releases in the proof.
	Collect func(dir string, p *proof.Proof) error
	// Seal names the sealed tree of a tree.
	Seal func(image.Tree) (digest.Digest, error)
	// Live compares what instances really run with what the proof says of them.
	Live func(ctx context.Context, dir string, p *proof.Proof) ([]proof.Check, error)
}

func (p *program) proofCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "proof [ENV]",
		Short: "Write the evidence of what runs in an environment into one file",
		Long: "For every running instance: its release, artifact and sealed tree, the statements about them, and the entries\n" +
			"of the record that tell of it, proven by a signed checkpoint. Who has the file and a trust root can check it\n" +
			"without this server and without a network:  ashlar verify FILE --trust-root trust.json",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			pr, err := p.takeProof(cmd.Context(), args)
			if err != nil {
				return err
			}
			text, err := pr.Marshal()
			if err != nil {
				return err
			}
			if to == "" {
				to = pr.App + "-" + pr.Env + ".proof"
			}
			if err := os.WriteFile(to, text, 0o644); err != nil {
				return fault.New(fault.Unavailable, "the proof cannot be written: %w", err)
			}
			if p.json() {
				p.out.json(map[string]any{"file": to, "bytes": len(text), "instances": len(pr.Instances), "entries": len(pr.Entries), "blobs": len(pr.Blobs)})
				return nil
			}
			p.out.linef("%s: %s of %s, %s of the record, %s", to, count(len(pr.Instances), "instance"), pr.Env, count64(int64(len(pr.Entries)), "entry", "entries"), size(int64(len(text))))
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "file to write; APP-ENV.proof if it is not named")
	return cmd
}

// takeProof asks the server, and adds what is on disk.
func (p *program) takeProof(ctx context.Context, args []string) (*proof.Proof, error) {
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	app, env, err := p.place(ctx, c, args)
	if err != nil {
		return nil, err
	}
	status, err := c.Status(ctx, app, env)
	if err != nil {
		return nil, err
	}
	pr := proof.New(app, env, time.Now())
	if pr.Host, err = os.Hostname(); err != nil {
		pr.Host = ""
	}
	runs := running(pr, status)
	if pr.TrustRoot, err = c.Trust(ctx); err != nil && fault.Of(err).Kind != fault.NotFound {
		return nil, err
	}
	docs, err := p.proveEntries(ctx, c, pr, runs)
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		rel, err := c.Release(ctx, app, string(d))
		if err != nil {
			return nil, err
		}
		doc, err := rel.Release.Canonical()
		if err != nil {
			return nil, err
		}
		pr.Put(doc)
	}
	if err := policies(ctx, c, pr); err != nil {
		return nil, err
	}
	dir, err := p.stateDir()
	if err != nil {
		return nil, err
	}
	return pr, p.parts.Proof.Collect(dir, pr)
}

// policies adds those that the releases in the proof were judged by.
func policies(ctx context.Context, c *api.Client, pr *proof.Proof) error {
	for _, e := range pr.Verdicts() {
		if e.Data["policy"] == "" {
			continue
		}
		got, err := c.Policy(ctx, pr.App, pr.Env, e.Data["policy"])
		if err != nil && fault.Of(err).Kind != fault.NotFound {
			return err
		}
		if err == nil && got.Document != "" {
			pr.Put([]byte(got.Document))
		}
	}
	return nil
}

// running puts what runs into the proof.
func running(pr *proof.Proof, s api.Status) map[string]bool {
	if c := s.State.Current; c != nil {
		pr.Current = c.Release
	}
	ids := map[string]bool{}
	for _, in := range s.Instances {
		if in.Phase == rollout.Exited {
			continue
		}
		ids[in.ID] = true
		pr.Instances = append(pr.Instances, proof.Instance{
			ID: in.ID, Component: in.Component, Release: in.Release, Spec: in.Spec, Phase: string(in.Phase), StartedAt: in.StartedAt.UTC(),
		})
	}
	slices.SortFunc(pr.Instances, func(a, b proof.Instance) int { return strings.Compare(a.ID, b.ID) })
	return ids
}

// proveEntries adds the entries that tell of what runs, with their proofs, and gives
// the releases that they name.
func (p *program) proveEntries(ctx context.Context, c *api.Client, pr *proof.Proof, runs map[string]bool) ([]digest.Digest, error) {
	docs := map[digest.Digest]bool{}
	if pr.Current != "" {
		docs[pr.Current] = true
	}
	for _, in := range pr.Instances {
		docs[in.Release] = true
	}
	var indexes []int64
	take := func(e record.Entry) error {
		if telling(e, runs, docs) {
			indexes = append(indexes, e.Index)
		}
		return nil
	}
	for _, env := range []string{"", pr.Env} {
		if err := c.Entries(ctx, api.EntriesQuery{App: pr.App, Env: env, To: -1}, take); err != nil {
			return nil, err
		}
	}
	signed, err := c.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	text, _, _ := strings.Cut(string(signed), "\n\n")
	if now, err := record.ParseCheckpoint(text + "\n"); err == nil && now.Size > 0 {
		indexes = append(indexes, now.Size-1) // tells how new the evidence is
	}
	slices.Sort(indexes)
	proofs, err := c.ProveAll(ctx, slices.Compact(indexes))
	if err != nil {
		return nil, err
	}
	for _, text := range proofs {
		i, err := record.ParseInclusionProof(text)
		if err != nil {
			return nil, fault.New(fault.Internal, "the server's proof cannot be read: %w", err)
		}
		if err := pr.Add(i); err != nil {
			return nil, fault.New(fault.Internal, "%w", err)
		}
	}
	var out []digest.Digest
	for d := range docs {
		out = append(out, d)
	}
	slices.Sort(out)
	return out, nil
}

// telling says whether an entry tells of what runs, or of the releases that it is of.
func telling(e record.Entry, runs map[string]bool, docs map[digest.Digest]bool) bool {
	switch e.Kind {
	case "instance.ordered", "instance.started", "instance.ready":
		return runs[e.Instance]
	case "release.added", "release.live", "rollout.begun", "rollout.live":
		return docs[e.Release]
	}
	return strings.HasPrefix(e.Kind, "admission.") && docs[e.Release]
}

func (p *program) verifyCommand() *cobra.Command {
	var rootPath string
	var require []string
	var maxAge time.Duration
	cmd := &cobra.Command{
		Use:   "verify FILE|ENV",
		Short: "Check what runs against the trust root: a proof file anywhere, an environment on its host",
		Long: "Checks a file of  ashlar proof  with a trust root alone: no server, no network. With the name of an\n" +
			"environment it takes the proof itself and, beside that, re-hashes the sealed trees on disk and compares the\n" +
			"mounts of the running instances. Every check is reported as done, failed or NOT done. Exit status 5 if one\n" +
			"failed, or one that is required was not done.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvOrFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range require {
				if !slices.Contains(proof.Names(), name) {
					return fault.New(fault.Invalid, "there is no check %q", name).Detail("known: " + strings.Join(proof.Names(), ", ")).Mend("name one of them")
				}
			}
			pr, live, err := p.proofOf(cmd.Context(), args, rootPath)
			if err != nil {
				return err
			}
			chain, err := p.trustRootOr(cmd.Context(), rootPath)
			if err != nil {
				return err
			}
			now := time.Now()
			report := proof.Verifier{Trust: chain, Now: now, Seal: p.parts.Proof.Seal, Judge: p.judge(cmd.Context())}.Verify(pr)
			if live {
				dir, err := p.stateDir()
				if err != nil {
					return err
				}
				checks, err := p.parts.Proof.Live(cmd.Context(), dir, pr)
				if err != nil {
					return err
				}
				report.Checks = slices.DeleteFunc(report.Checks, func(c proof.Check) bool { return c.Name == proof.Bytes })
				report.Checks = append(report.Checks, checks...)
				require = append(require, proof.Bytes)
			}
			return p.showReport(report, append(require, proof.Usual()...), now, maxAge)
		},
	}
	cmd.Flags().StringVar(&rootPath, "trust-root", "", "the trust root that you believe; for an environment, the server's if it is not named")
	cmd.Flags().StringSliceVar(&require, "require", nil, "`CHECKS` that have to be done too: "+strings.Join(proof.Names(), ", "))
	cmd.Flags().DurationVar(&maxAge, "max-age", 0, "refuse evidence that is older: of the last witness, or without one of the last entry")
	return cmd
}

// judge asks the program that judges, without a server.
func (p *program) judge(ctx context.Context) func(policy.Question) (policy.Answer, error) {
	return func(q policy.Question) (policy.Answer, error) {
		answer, err := p.parts.Judge(ctx, q)
		if err != nil { // a check says it in one line
			err = errors.New(strings.TrimSuffix(fault.Of(err).What+"; "+fault.Of(err).Fix, "; "))
		}
		return answer, err
	}
}

// proofOf reads a proof file, or takes the proof of an environment.
func (p *program) proofOf(ctx context.Context, args []string, rootPath string) (_ *proof.Proof, live bool, err error) {
	if len(args) == 1 {
		info, err := os.Stat(args[0])
		switch {
		case err == nil && info.Mode().IsRegular():
			if rootPath == "" {
				return nil, false, fault.New(fault.Invalid, "a proof is worth what the trust root is that it is checked with").Mend("name yours:  --trust-root FILE")
			}
			text, err := readFile("the proof", args[0], proof.MaxSize)
			if err != nil {
				return nil, false, err
			}
			pr, err := proof.Parse(text)
			if err != nil {
				return nil, false, fault.New(fault.Refused, "%w", err).At(args[0]).Detail("check: file").Mend("name a file that  ashlar proof  wrote")
			}
			return pr, false, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, false, fault.New(fault.NotFound, "the proof cannot be read: %w", err)
		}
	}
	pr, err := p.takeProof(ctx, args)
	return pr, true, err
}

func (p *program) showReport(r proof.Report, required []string, now time.Time, maxAge time.Duration) error {
	if p.json() {
		p.out.json(r)
	} else {
		p.reportTable(r, now)
	}
	lacking := r.Lacking(required)
	at, how := r.Fresh.LastEntry, "the last entry that is proven"
	if len(r.Fresh.Seen) > 0 {
		newest := slices.MaxFunc(r.Fresh.Seen, func(a, b record.Cosignature) int { return a.Time.Compare(b.Time) })
		at, how = newest.Time, "the witness "+newest.Witness
	}
	if maxAge > 0 && now.Sub(at) > maxAge {
		lacking = append(lacking, proof.Check{Name: "age", Result: proof.Failed, What: how + " is " + age(now.Sub(at)) + " old"})
	}
	if len(lacking) == 0 {
		if !p.json() {
			p.out.linef("%s", p.out.paint(green, "verified: "+count(r.Instances, "instance")+" of "+r.App+"/"+r.Env))
		}
		return nil
	}
	f := fault.New(fault.Refused, "%s is not proven: %s", r.App+"/"+r.Env, count(len(lacking), "check")+" refused it")
	for _, c := range lacking {
		text := string(c.Result) + ": " + strings.TrimSpace(c.Name+" "+c.About) + ": " + c.What
		if c.Verdict != "" {
			text += " (verdict: " + c.Verdict + ")"
		}
		f.Detail(text)
	}
	return f
}

// reportTable shows each check, and how fresh the evidence is.
func (p *program) reportTable(r proof.Report, now time.Time) {
	var rows [][]string
	for _, c := range r.Checks {
		what := c.What
		if c.Verdict != "" {
			what += " (" + c.Verdict + ")"
		}
		rows = append(rows, []string{string(c.Result), c.Name, c.About, what})
	}
	p.out.table(rows)
	fresh := "nobody but the server vouches for its age"
	if !r.Fresh.LastEntry.IsZero() {
		fresh = "the newest entry that is proven is " + age(now.Sub(r.Fresh.LastEntry)) + " old, by the server's clock"
	}
	var by []string
	for _, s := range r.Fresh.Seen {
		by = append(by, s.Witness+" saw it "+age(now.Sub(s.Time))+" ago")
	}
	if len(by) == 0 {
		by = []string{"no witness saw it"}
	}
	p.out.linef("evidence of %s/%s: taken %s ago, %s; %s", r.App, r.Env, age(now.Sub(r.Taken)), fresh, strings.Join(by, ", "))
}
