// Package transfer gets objects of a repository from its servers: over HTTP,
// directly or through proxies, or from a directory by file URLs. It knows which
// server and which proxy to try next, how long to wait for one, and what each
// kind of failure says about whom; it does not know what the bytes mean, but is
// told by its caller whether they were any good.
//
// It follows the retry and fail-over algorithm of the original client (cvmfs:
// cvmfs/network/download.cc), its grammar of proxy lists, its discovery of
// proxies by scripts, and its ordering of servers by place. The scripts are run
// by a function of the caller's.
//
// Differs: backoff delays one request and not all of them; response headers are
// read before a status is judged, so that a proxy's own error is the proxy's; a
// server that lacks one object (404) is left for that request only; proxies are
// discovered, looked up and ordered when the first request is made, so that a
// client with a full cache waits for no network. Addresses are looked up again
// after a minute: Go's resolver does not tell for how long they are good.
package transfer
