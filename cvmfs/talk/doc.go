// Package talk is the control socket of a mounted repository: a stream socket
// cvmfs_io.NAME in the cache directory, for whoever may write to it. A client
// connects and sends one command, at most 511 bytes; the server sends its reply,
// which ends with a line break, and closes. Connections are served one after the
// other.
//
// Compat: name, mode, words and replies are the original's (cvmfs:
// cvmfs/talk.cc), so that scripts work. What is not there gets the answer "unknown
// command", as from the original: "tracebuffer flush", "hotpatch history", "pid
// watchdog", "vfs inodes", "vfs entries" and metalinks, of which there are none
// here.
package talk
