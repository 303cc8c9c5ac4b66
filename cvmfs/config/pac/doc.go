// Package pac runs proxy auto-configuration scripts, the JavaScript by which
// sites tell which proxy is to be used for which server.
//
// Such a script comes from the network, found under a name that many may answer
// to, so that it may be hostile. Evaluate gives it no more than the functions
// that scripts expect, which ask the name service and the clock, and ends it when
// its context ends; but it cannot bound memory. Isolated does: it evaluates in a
// process of its own, whose memory and time the kernel limits. Programs use
// Isolated; Evaluate is for that process, and for tests.
//
// The functions are those of the original proposal
// (https://developer.mozilla.org/docs/Web/HTTP/Proxy_servers_and_tunneling/Proxy_Auto-Configuration_PAC_file).
// Not there: FindProxyForURLEx and the IPv6 forms of the functions.
//
// The package links a JavaScript engine of several megabytes. The guest must
// never import it.
package pac
