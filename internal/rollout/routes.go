package rollout

import "time"

// Table is the complete set of routes of one environment. It replaces the one
// before it in a single step.
type Table struct {
	Generation int64     `json:"generation"` // grows with every change; a router refuses an older one
	Listen     string    `json:"listen,omitempty"`
	TLS        *TLS      `json:"tls,omitempty"` // of Listen; nil: plain HTTP
	Services   []Service `json:"services"`      // sorted by Name
}

// Service is one routed component of a Table.
type Service struct {
	Name     string        `json:"name"`
	Host     string        `json:"host,omitempty"`
	Path     string        `json:"path,omitempty"`   // empty with TCP
	TCP      int           `json:"tcp,omitempty"`    // port of the service's stable address, routed by the kernel; 0: http
	Listen   string        `json:"listen,omitempty"` // with TCP: host:port on the host that leads there too
	Hold     time.Duration `json:"hold"`
	Drain    time.Duration `json:"drain"`            // after which a backend that left is cut
	Drains   Drains        `json:"drains,omitzero"`  // by kind of connection, where it is not Drain
	Match    *Match        `json:"match,omitempty"`  // requests that go to one release whatever the weights
	Sticky   string        `json:"sticky,omitempty"` // cookie that keeps a client with the release that served it first
	Backends []Backend     `json:"backends"`         // sorted by ID
}

// Drains are drain times by kind of connection; 0: the service's Drain.
type Drains struct {
	Request   time.Duration `json:"request,omitempty"`
	WebSocket time.Duration `json:"webSocket,omitempty"` // and other upgraded connections
	Stream    time.Duration `json:"stream,omitempty"`    // answers of type text/event-stream
	GRPC      time.Duration `json:"grpc,omitempty"`
	TCP       time.Duration `json:"tcp,omitempty"`
}

// Match sends the requests whose header or cookie has the value to the backends
// of Release, as long as one of them is open.
type Match struct {
	Header  string `json:"header,omitempty"`
	Cookie  string `json:"cookie,omitempty"`
	Value   string `json:"value"`
	Release string `json:"release"` // Backend.Release
}

// TLS is where the certificate of an address comes from.
type TLS struct {
	Certificate string   `json:"certificate,omitempty"` // file, PEM, with its chain; read again when it changes
	Key         string   `json:"key,omitempty"`         // file, PEM
	ACME        string   `json:"acme,omitempty"`        // directory URL, in place of the files
	Domains     []string `json:"domains,omitempty"`     // with ACME
}

// Backend is one instance that receives requests.
type Backend struct {
	ID      string `json:"id"`
	Address string `json:"address"`           // host:port
	Weight  int    `json:"weight"`            // relative; 0: none
	Release string `json:"release,omitempty"` // of the instance, in short: the group that Match, Sticky and metrics speak of
}

// RouterStatus is what the data plane acknowledges for one environment.
type RouterStatus struct {
	Generation int64              `json:"generation"`        // of the Table in force, the oldest where several routers have a part of it; 0: none
	InFlight   map[string]int     `json:"inFlight"`          // backend ID to requests under way, leaving backends included
	Kinds      map[string]Flight  `json:"kinds,omitempty"`   // backend ID to the same by kind
	Cut        map[string]Flight  `json:"cut,omitempty"`     // backend ID to what was cut at the end of its drain time, of the backends that left lately
	Traffic    map[string]Traffic `json:"traffic,omitempty"` // TrafficKey to what the router counted since it started
}

// Flight counts what is under way, or was cut, by kind.
type Flight struct {
	Requests   int `json:"requests,omitempty"`
	WebSockets int `json:"webSockets,omitempty"` // and other upgraded connections
	Streams    int `json:"streams,omitempty"`    // server-sent events
	GRPC       int `json:"grpc,omitempty"`
	TCP        int `json:"tcp,omitempty"`
}

// Traffic is what a service's backends of one release answered, counted up since
// the router started: a smaller number than before means that it started anew.
type Traffic struct {
	Requests int64   `json:"requests"`
	Errors   int64   `json:"errors"`  // answers 5xx of the backend, and answers that it broke off or never gave
	Latency  []int64 `json:"latency"` // answers by time to their header: one count for each of LatencyBounds, and one for the rest
}

// LatencyBounds are the upper bounds of the classes of Traffic.Latency.
var LatencyBounds = latencyBounds()

// latencyBounds grow by a quarter from half a millisecond to about a minute: a
// quantile read from them is at most a quarter too large.
func latencyBounds() []time.Duration {
	var bounds []time.Duration
	for b := 500 * time.Microsecond; b < time.Minute; b += b / 4 {
		bounds = append(bounds, b.Round(10*time.Microsecond))
	}
	return bounds
}

// TrafficKey names the traffic of a service's backends of one release.
func TrafficKey(service, release string) string { return service + "@" + release }
