// Package cmdline reads the kernel command line of a booting guest: the words
// of the original boot loader, the ones Mica adds, and the few of the kernel's
// own that concern PID 1.
//
// It only reads; what a word means together with the context is decided in
// package boot. Unknown words are kept for the operating system's init, as the
// kernel itself would pass them.
//
// The grammar is the kernel's (kernel/params.c next_arg): words are separated by
// blanks, a double quote opens and closes a stretch in which blanks belong to
// the word, quotes around a whole value are dropped. The last occurrence of a
// word wins.
package cmdline
