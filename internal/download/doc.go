// Package download fetches files over HTTP(S), or copies them from file:// URLs.
//
// A file appears under its name whole, on disk and verified, or not at all. Until
// then its bytes are in NAME.part, with what the server said of them in
// NAME.part.json; an interrupted download goes on from there, if the server still
// has the same content. Processes that want the same file share one download: the
// others wait for NAME.lock.
//
// What it does not do: it knows no archives, no signatures and no mirrors, and it
// never lowers TLS: certificates are verified, and a redirect from https to http
// is refused.
//
// Invariants: with a digest given, no byte of a file that does not match it is
// ever seen under the file's name; the number of tries is bounded whatever the
// server does; a server that stops sending is given up after a while.
//
// Hazards: without a digest, a file that is there is believed to be the right one.
// A .lock file stays behind, since removing it would break the lock of a waiter.
//
// Specification: RFC 9110 sections 13.1.5 (If-Range), 14 (Range) and 15.
package download
