package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// TrustRoot is the server's trust root: internal/trustroot.
type TrustRoot interface {
	// Chain reads it; nil without an error: there is none.
	Chain() (*trust.Chain, error)
	// Install puts the next one in place; before is called with it before that.
	Install(text []byte, before func(*trust.Chain) error) (*trust.Chain, error)
}

// TrustText is a trust root as a file: it answers GET and POST /v1/trust.
type TrustText struct {
	Text string `json:"text"`
}

func (s *Server) trust(context.Context, request) (TrustText, error) {
	chain, err := s.Trust.Chain()
	if err == nil && chain == nil {
		err = fault.New(fault.NotFound, "the server has no trust root").Mend("make one:  ashlar trust init FILE  and give it to the server:  ashlar trust install FILE")
	}
	if err != nil {
		return TrustText{}, err
	}
	text, err := chain.Marshal()
	return TrustText{string(text)}, err
}

// installTrust puts a trust root in place, which is in the record before.
func (s *Server) installTrust(ctx context.Context, r request) (TrustText, error) {
	now := s.Now()
	chain, err := s.Trust.Install(r.body, func(c *trust.Chain) error {
		if err := c.Fresh(now); err != nil {
			return fault.New(fault.Refused, "%w", err).Detail("verdict: " + string(trust.Expired)).Mend("make its next version:  ashlar trust rotate FILE --expires 8760h")
		}
		return s.Store.Append(ctx, []record.Entry{{Time: now.UTC(), Actor: r.actor, Kind: "trust.installed", Data: map[string]string{
			"root": string(c.ID()), "version": strconv.Itoa(c.Versions()), "digest": string(c.Digest()), "expires": c.Latest().Expires.UTC().Format(time.RFC3339),
		}}})
	})
	if err != nil {
		return TrustText{}, err
	}
	text, err := chain.Marshal()
	return TrustText{string(text)}, err
}

// Trust reads the server's trust root, as trust.ParseChain reads it.
func (c *Client) Trust(ctx context.Context) ([]byte, error) {
	var out TrustText
	err := c.get(ctx, "/v1/trust", nil, &out)
	return []byte(out.Text), err
}

// InstallTrust gives the server its trust root, or the next version of it.
func (c *Client) InstallTrust(ctx context.Context, text []byte) error {
	var out TrustText
	return c.send(ctx, http.MethodPost, "/v1/trust", text, &out)
}
