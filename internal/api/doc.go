// Package api is the HTTP API of `ashlar server` on its unix socket: the request
// and response types, the handlers over the engine, and the [Client] that every
// other command uses.
//
// Bodies are JSON; streams are JSON lines. An error travels as a fault.Error
// with the status code of its kind. Who asks is taken from the socket's peer,
// never from the request.
//
// Start at [Server.Handler] for the list of endpoints, and at [Client] for the
// other side. What is not the engine's (output, garbage, checks of the machine)
// comes in as functions of [Config]: the package knows no adapter.
package api
