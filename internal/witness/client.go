package witness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// Client asks a witness. It is safe for concurrent use.
type Client struct {
	key  note.Verifier
	url  string
	http *http.Client
}

// NewClient reads "KEY URL": the public key of a witness and where it is asked.
func NewClient(text string, client *http.Client) (*Client, error) {
	public, address, _ := strings.Cut(strings.TrimSpace(text), " ")
	key, err := record.NewWitnessVerifier(public)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err).Detail("written: " + text).Mend(`write  --witness "KEY URL"; ashlar-witness init prints the key`)
	}
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fault.New(fault.Invalid, "%q is not the address of a witness", address).Mend(`write  --witness "KEY URL"  with a URL such as https://witness.example/`)
	}
	return &Client{key: key, url: strings.TrimSuffix(u.String(), "/"), http: client}, nil
}

// Key is the witness' public key.
func (c *Client) Key() note.Verifier { return c.key }

// Cosign asks for a cosignature of a signed checkpoint. A witness that knows
// another size is asked again from there.
func (c *Client) Cosign(ctx context.Context, signed []byte, known *int64, prove func(old int64) (record.ConsistencyProof, error)) ([]byte, error) {
	for again := range 2 {
		p, err := prove(*known)
		if err != nil {
			return nil, fmt.Errorf("the witness saw %d entries: %w", *known, err)
		}
		p.Checkpoint = signed
		status, body, err := c.post(ctx, p.Marshal())
		if err != nil {
			return nil, err
		}
		switch {
		case status == http.StatusOK:
			if len(record.Cosignatures(record.AddCosignatures(signed, body), []note.Verifier{c.key})) != 1 {
				return nil, fmt.Errorf("the answer is no cosignature of %s", c.key.Name())
			}
			size, err := sizeOf(signed)
			*known = size
			return body, err
		case status == http.StatusConflict && again == 0:
			size, err := strconv.ParseInt(strings.TrimSpace(string(body)), 10, 64)
			if err != nil || size < 0 {
				return nil, fmt.Errorf("the witness answered with a conflict and no size")
			}
			if size == *known {
				return nil, fmt.Errorf("the witness saw another log of %d entries: this one has forked", size)
			}
			*known = size
		default:
			return nil, fmt.Errorf("the witness answered with status %d: %s", status, bytes.TrimSpace(body))
		}
	}
	return nil, fmt.Errorf("the witness cosigned something else meanwhile")
}

func sizeOf(signed []byte) (int64, error) {
	text, _, _ := strings.Cut(string(signed), "\n\n")
	c, err := record.ParseCheckpoint(text + "\n")
	return c.Size, err
}

func (c *Client) post(ctx context.Context, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp.StatusCode, answer, err
}
