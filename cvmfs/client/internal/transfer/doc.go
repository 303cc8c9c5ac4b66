// Package transfer gets objects of a repository from its servers: over HTTP,
// directly or through proxies, or from a directory by file URLs. It knows which
// server and which proxy to try next, how long to wait for one, and what each
// kind of failure says about whom; it does not know what the bytes mean, but is
// told by its caller whether they were any good.
//
// It follows the retry and fail-over algorithm of the original client (cvmfs:
// cvmfs/network/download.cc) and its grammar of proxy lists. Not done: proxy
// auto-configuration scripts, sharding, geographical ordering of servers.
//
// Differs: backoff delays one request and not all of them; response headers are
// read before a status is judged, so that a proxy's own error is the proxy's; a
// server that lacks one object (404) is left for that request only; a proxy name
// stands for all its addresses, which are tried in turn when connecting.
package transfer
