// Package load is a small load generator for tests, benchmarks and the demo. It
// asks one URL from three kinds of clients at once: kept-alive connections, a new
// connection for each request, and HTTP/2; and it tells what failed, how long
// answers took, and when they changed from one version to the next.
//
// It is not a benchmark tool for other people's servers: it refuses addresses that
// are not this machine's own, and is bounded in time and rate.
//
// Start at [Start]; [Report.AllOn] is the question that deploys are judged by.
package load
