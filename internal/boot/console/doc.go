// Package console is how a booting guest speaks: stage events for the host on
// the serial consoles, lines for a person on /dev/console, and, when something
// went wrong, a menu and a shell.
//
// Output goes through one goroutine with a bounded queue, so that a terminal
// that was stopped with Ctrl-S, or a serial line nobody drains, never stops the
// boot; what does not fit is dropped and counted. While a line is being written the
// kernel's own messages are kept off the consoles, which they share: they would
// land in the middle of it. They are in dmesg all the same.
//
// Compat: the human lines look like those of cernvm-micro ("[INF] text... check").
// Differs: a step's line is written when the step is over, since steps overlap.
package console
