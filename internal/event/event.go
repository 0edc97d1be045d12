// Package event tells others what happened: it turns entries of the record into
// CloudEvents and brings them to the webhooks that releases declare.
//
// The record is the outbox. Its entries are written in the transaction of the
// change they tell of, so nothing that happened can fail to be told, and nothing
// that did not happen is. What is kept besides is one number for each webhook:
// how far it has been told. Delivery is at least once, in order for each
// environment, and never holds a rollout up.
//
// Events are CDEvents (https://cdevents.dev, 0.5.1) in CloudEvents 1.0 JSON,
// structured mode, signed as Standard Webhooks 1.0.0 has it
// (https://www.standardwebhooks.com).
//
// Start at [Courier]. [Story] is the pure half: which entry is which event.
// TestKilledBetweenDeliveryAndCursor kills a courier at the worst instant.
package event

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// ContentType of an event's body.
const ContentType = "application/cloudevents+json; charset=utf-8"

// cdevents is the version of the specification that events follow.
const cdevents = "0.5.1"

// Event is one message to a webhook.
type Event struct {
	ID   string // the same at each delivery, and of no other event of the same Source
	Type string
	Body []byte // JSON
}

// Story turns the entries of one environment, given in order from the first, into events.
// Most entries are events by themselves. What a rollout means for the service
// follows from those before it: whether something was live, and which way it went.
// The zero Story has heard nothing.
type Story struct {
	live    digest.Digest // release that serves; empty: none
	rollout int           // number of the last that began
	kind    string        // of that rollout
	before  digest.Digest // release that served when it began
	moved   bool          // that rollout has become live
}

// Tell gives the events of an entry. source names this server, as a URI
// reference. Entries of instances that come and go as they should, and of routes,
// are the means of what is told, and give none.
func (s *Story) Tell(source string, e record.Entry) ([]Event, error) {
	leaf, err := e.Leaf()
	if err != nil {
		return nil, err
	}
	// The index alone would be told twice if a server's record began anew.
	id := fmt.Sprintf("%d-%.16s", e.Index, digest.FromBytes(leaf).Encoded())
	var events []Event
	for i, m := range s.messages(e) {
		if i > 0 {
			id = fmt.Sprintf("%s-%d", id, i+1)
		}
		body, err := json.Marshal(m.envelope(id, source, e))
		if err != nil {
			return nil, fmt.Errorf("event of entry %d: %w", e.Index, err)
		}
		events = append(events, Event{ID: id, Type: m.typ, Body: body})
	}
	return events, nil
}

// message is what an event says, without who says it and when.
type message struct {
	typ, subject string
	content      map[string]any
}

// messages follows the story by one entry.
func (s *Story) messages(e record.Entry) []message {
	switch e.Kind {
	case "rollout.begun":
		s.rollout, s.kind, s.before, s.moved = e.Rollout, e.Data["kind"], s.live, false
		if e.Rollout == 1 {
			return []message{environment(e), custom(e)}
		}
	case "release.live":
		s.moved = true
		return []message{s.moves(e)}
	case "rollout.put-back":
		if e.Rollout != s.rollout || !s.moved {
			break
		}
		s.live, s.moved = s.before, false
		if s.live == "" {
			return []message{custom(e), service("removed", e, "")}
		}
		return []message{custom(e), service("rolledback", e, s.live)}
	}
	noun, _, _ := strings.Cut(e.Kind, ".")
	if noun == "routes" || noun == "instance" && e.Kind != "instance.failed" && e.Kind != "instance.cut" {
		return nil
	}
	return []message{custom(e)}
}

// moves is what the environment's new release means for the service.
func (s *Story) moves(e record.Entry) message {
	had := s.live
	s.live = e.Release
	switch {
	case s.kind == "down":
		s.live = ""
		return service("removed", e, "")
	case had == "":
		return service("deployed", e, e.Release)
	case s.kind == "rollback":
		return service("rolledback", e, e.Release)
	}
	return service("upgraded", e, e.Release)
}

// service is an event of the application as a whole: its components move together.
func service(predicate string, e record.Entry, artifact digest.Digest) message {
	content := map[string]any{"environment": map[string]string{"id": e.Env}}
	if artifact != "" {
		content["artifactId"] = "pkg:generic/" + url.PathEscape(e.App) + "@" + url.QueryEscape(artifact.String())
	}
	return message{"dev.cdevents.service." + predicate + ".0.3.0", e.App, content}
}

func environment(e record.Entry) message {
	return message{"dev.cdevents.environment.created.0.3.0", e.Env, map[string]any{"name": e.Env}}
}

// custom is an event that CDEvents has no type for: dev.cdeventsx.ashlar-NOUN.VERB, with
// nothing but letters in both.
func custom(e record.Entry) message {
	noun, verb, _ := strings.Cut(e.Kind, ".")
	subject := e.App + "/" + e.Env
	switch {
	case e.Instance != "":
		subject = e.Instance
	case noun == "release" && e.Release != "":
		subject = e.Release.String()
	case e.Rollout != 0:
		subject = chain(e)
	}
	return message{"dev.cdeventsx.ashlar-" + letters(noun) + "." + letters(verb) + ".0.1.0", subject, map[string]any{}}
}

func letters(word string) string {
	word = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, word)
	if word == "" {
		return "noted"
	}
	return word
}

// chain names the rollout that an entry is of; CDEvents calls what belongs together
// a chain.
func chain(e record.Entry) string { return fmt.Sprintf("%s/%s/%d", e.App, e.Env, e.Rollout) }

// envelope is the CloudEvent with the CDEvent in it. The entry is the custom data.
func (m message) envelope(id, source string, e record.Entry) any {
	at := e.Time.UTC().Format(time.RFC3339Nano)
	context := map[string]any{"specversion": cdevents, "id": id, "source": source, "type": m.typ, "timestamp": at}
	if e.Rollout != 0 {
		context["chainId"] = chain(e)
	}
	return map[string]any{
		"specversion": "1.0", "id": id, "source": source, "type": m.typ, "subject": m.subject, "time": at,
		"datacontenttype": "application/json",
		"data": map[string]any{
			"context":               context,
			"subject":               map[string]any{"id": m.subject, "source": source, "content": m.content},
			"customData":            e,
			"customDataContentType": "application/json",
		},
	}
}
