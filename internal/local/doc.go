// Package local runs instances on this host: each one a container that the OCI
// runtime runc makes over a sealed tree, with a small shim process beside it
// (package shim) that outlives the server. It is an engine.Platform.
//
// What an instance gets: its sealed root, read-only; no way to gain privileges; no
// capability that its spec does not name; the default seccomp profile; namespaces
// of its own for processes, network, IPC, host name, mounts and cgroups; its
// declared tmpfs as the only writable places, from which nothing can be executed
// (not from memory either, where the kernel has vm.memfd_noexec); cgroup limits.
//
// Network: one bridge per server, one address per instance, IPv4. Instances reach
// each other and the host by the bridge; there is no route beyond it and no
// address translation, so an instance cannot call the outside.
//
// What lies in the run directory R:
//
//	R/network.json  the bridge and its subnet
//	R/i/<id>/       one instance: instance.json, what the shim keeps (see package shim)
//	R/b/<unit>/     a shim that no instance has yet; the directory becomes R/i/<id>
//	R/own/          empty; each shim mounts a tmpfs there that it alone sees
//	R/runc/<unit>/  the runtime's own state
//
// An instance is made of a blank: a shim with a network, and a runtime process that
// waits for its specification. [Platform.Expect] has blanks born ahead of the
// instances, so that what takes time without knowing the release is over when it is
// known; [Platform.Prepare] makes an instance that will probably be ordered, short of
// starting its program. What nobody uses leaves, and so does what lost its server.
//
// A server that returns finds its instances there and goes on watching them. An
// instance that was made but never started is taken away instead; one whose shim
// was killed is reported as exited, killed, and waits for Remove.
//
// When the server runs as a systemd unit, the unit needs KillMode=process, or
// systemd ends the shims with it.
//
// It is not a scheduler and restarts nothing: that is decided in package rollout.
// Start at [New]. TestPlatform runs the suite of package conformance on it, with
// real containers; every test of this
// package ends by comparing the host with what it was before (world_test.go).
package local
