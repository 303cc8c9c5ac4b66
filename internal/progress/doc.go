// Package progress carries what long work says of itself: plain events, sent to
// a sink. The terminal, the JSON lines of --progress=jsonl and the web console
// show the same events; the work does not know which.
package progress
