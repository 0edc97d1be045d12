package router

import (
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// kind is what a request is, for drain times and counts.
type kind int32

// The kinds. A request is plain until its answer shows that it is more, but for
// gRPC, which its own header tells.
const (
	plain     kind = iota
	webSocket      // and other upgraded connections
	stream         // the answer is of type text/event-stream
	grpc
	kinds // how many there are
)

var kindNames = [kinds]string{"request", "websocket", "stream", "grpc"}

// kindSet has bit k for kind k.
type kindSet uint32

const allKinds = kindSet(1)<<kinds - 1

func (s kindSet) has(k kind) bool { return s&(1<<k) != 0 }

// isOver says whether requests of a kind are cut here.
func (b *backend) isOver(k kind) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.over.has(k)
}

// isGRPC says whether a request is gRPC, which needs HTTP/2 all the way.
func isGRPC(req *http.Request) bool {
	rest, ok := strings.CutPrefix(req.Header.Get("Content-Type"), "application/grpc")
	return ok && req.ProtoMajor == 2 && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// kindOf tells what an answer has made of its request.
func kindOf(resp *http.Response) kind {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return webSocket
	}
	if t := resp.Header.Get("Content-Type"); len(t) >= len("text/event-stream") {
		if t, _, err := mime.ParseMediaType(t); err == nil && t == "text/event-stream" {
			return stream
		}
	}
	return plain
}

// budgets are a service's drain times by kind.
type budgets [kinds]time.Duration

func budgetsOf(svc rollout.Service) budgets {
	b := budgets{plain: svc.Drains.Request, webSocket: svc.Drains.WebSocket, stream: svc.Drains.Stream, grpc: svc.Drains.GRPC}
	for k := range b {
		if b[k] == 0 {
			b[k] = svc.Drain
		}
	}
	return b
}

// byTime gives the kinds that share a drain time.
func (b budgets) byTime() map[time.Duration]kindSet {
	out := map[time.Duration]kindSet{}
	for k, d := range b {
		out[d] |= 1 << k
	}
	return out
}

// flights counts requests by kind.
type flights [kinds]int

func (f flights) of(set kindSet) flights {
	for k := range f {
		if !set.has(kind(k)) {
			f[k] = 0
		}
	}
	return f
}

func (f flights) sum() int {
	n := 0
	for _, m := range f {
		n += m
	}
	return n
}

func (f flights) flight() rollout.Flight {
	return rollout.Flight{Requests: f[plain], WebSockets: f[webSocket], Streams: f[stream], GRPC: f[grpc]}
}

// plus adds two counts.
func plus(a, b rollout.Flight) rollout.Flight {
	return rollout.Flight{
		Requests: a.Requests + b.Requests, WebSockets: a.WebSockets + b.WebSockets, Streams: a.Streams + b.Streams, GRPC: a.GRPC + b.GRPC, TCP: a.TCP + b.TCP,
	}
}
