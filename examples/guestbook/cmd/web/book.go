package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How long Redis may be away, as it is while it is replaced, and how long an
// attempt to reach it takes.
const (
	patience = 20 * time.Second
	again    = 50 * time.Millisecond
)

// entriesKey is a sorted set: what was written, each with an id in front, by the time it was.
const (
	entriesKey = "guestbook:entries"
	schemaKey  = "guestbook:schema"
)

// book is the guestbook in Redis.
type book struct {
	addr, password string

	mu   sync.Mutex
	conn *conn // nil: none
}

// aclPassword finds the first password of an ACL file's line, which may name a second
// one while passwords are changed: user default on >new >old ~* &* +@all
var aclPassword = regexp.MustCompile(`(?m)^user\s+default\b.*?\s>(\S+)`)

func openBook() (*book, error) {
	path := os.Getenv("REDIS_ACL_FILE")
	acl, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the file that REDIS_ACL_FILE names: %w", err)
	}
	found := aclPassword.FindSubmatch(acl)
	if found == nil {
		return nil, fmt.Errorf("%s has no line  user default on >PASSWORD ~* &* +@all", path)
	}
	return &book{addr: os.Getenv("REDIS_ADDR"), password: string(found[1])}, nil
}

// sign adds an entry. It may be sent twice and is there once: its id goes with it.
func (b *book) sign(ctx context.Context, text string) error {
	now := strconv.FormatInt(time.Now().UnixMicro(), 10)
	_, err := b.do(ctx, "ZADD", entriesKey, now, rand.Text()+" "+text)
	return err
}

// entries gives the texts, oldest first.
func (b *book) entries(ctx context.Context) ([]string, error) {
	answer, err := b.do(ctx, "ZRANGE", entriesKey, "0", "-1")
	if err != nil {
		return nil, err
	}
	list, _ := answer.([]any)
	texts := make([]string, 0, len(list))
	for _, item := range list {
		s, _ := item.(string)
		_, text, _ := strings.Cut(s, " ")
		texts = append(texts, text)
	}
	return texts, nil
}

// migrate brings the data to this program's schema. Running it again changes nothing.
func (b *book) migrate(ctx context.Context) error {
	have, err := b.do(ctx, "GET", schemaKey)
	if err != nil {
		return err
	}
	switch have {
	case nil:
		fmt.Println("an empty book: it gets schema", schema)
		_, err = b.do(ctx, "SET", schemaKey, schema)
		return err
	case schema:
		fmt.Println("the book has schema", schema)
		return nil
	}
	return fmt.Errorf("the book has schema %v; this program knows %s", have, schema)
}

// do runs a command, over and over while Redis cannot be reached: every command
// here may be repeated. What Redis refuses is an error at once.
func (b *book) do(ctx context.Context, args ...string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		answer, err := b.once(ctx, args)
		var refused refusal
		if err == nil || errors.As(err, &refused) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(again):
		}
	}
}

func (b *book) once(ctx context.Context, args []string) (any, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		c, err := dial(ctx, b.addr)
		if err != nil {
			return nil, err
		}
		if _, err := c.do("AUTH", b.password); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		b.conn = c
	}
	answer, err := b.conn.do(args...)
	var refused refusal
	if err != nil && !errors.As(err, &refused) {
		err = errors.Join(err, b.conn.Close())
		b.conn = nil
	}
	return answer, err
}
