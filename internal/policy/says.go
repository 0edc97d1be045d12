package policy

import (
	"encoding/json"
	"strings"
	"time"
)

// Says are the few words of a predicate of a kind of statement that rules may want.
func Says(kind string, predicate json.RawMessage) map[string]string {
	out := map[string]string{}
	put := func(name, value string) {
		if value != "" && len(value) <= 1000 {
			out[name] = value
		}
	}
	switch kind {
	case "provenance": // https://slsa.dev/spec/v1.0/provenance
		var p struct {
			BuildDefinition struct {
				BuildType string `json:"buildType"`
			} `json:"buildDefinition"`
			RunDetails struct {
				Builder struct {
					ID string `json:"id"`
				} `json:"builder"`
			} `json:"runDetails"`
		}
		if json.Unmarshal(predicate, &p) == nil {
			put("builder", p.RunDetails.Builder.ID)
			put("buildType", p.BuildDefinition.BuildType)
		}
	case "summary":
		if p, err := ParseSummary(predicate); err == nil {
			put("result", p.Result)
			put("resource", p.ResourceURI)
			put("verifier", p.Verifier.ID)
			put("policy", string(p.PolicyDigest()))
			put("time", p.TimeVerified.UTC().Format(time.RFC3339))
			put("levels", strings.Join(p.Levels, ","))
		}
	case "rebuild":
		if p, err := ParseRebuild(predicate); err == nil {
			put("release", string(p.Release))
			put("rebuilt", string(p.Rebuilt))
		}
	case "test-result": // https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md
		var p struct {
			Result string `json:"result"`
		}
		if json.Unmarshal(predicate, &p) == nil {
			put("result", p.Result)
		}
	}
	return out
}
