// Package shim is the small process that stands beside every local instance. It
// mounts the instance's sealed root in a mount namespace of its own, runs the
// OCI runtime, holds the program's output and its exit status, and sees a stop
// through to its end. It outlives the server that started it; the server finds it
// again by its socket.
//
// It knows nothing of releases, networks or probes: that is package local's. It
// never restarts anything.
//
// The life of an instance, each arrow one order or one event:
//
//	blank --create--> creating --> created --start--> running --stop--> stopping
//	                      |           |                  |                 |
//	                      +--> failed +-----------------program ends-------+--> exited
//
// It is born into namespaces of its own for mounts, network and processes. The program
// inherits the network. As the shim is the first of its processes, the kernel kills
// everything that it started when it dies. What it is told about the instance, the
// specification with the environment included, lies in memory that it alone sees.
//
// A blank shim has runc create wait for the specification, which comes by a pipe.
// A shim whose first connection ends before the order to start takes everything
// back and leaves: nobody would ever find what it made. After the end, exit.json
// is durable before anybody is told.
//
// Start at [Run] for the process, at [Client] for the server's side and at
// [Config] for what lies on disk. Package local's integration tests run it for real.
package shim
