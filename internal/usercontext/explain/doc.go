// Package explain tells in plain words what a context makes of a machine: what
// the boot loader, the context agent and cloud-init each do, in order, and where
// an original CernVM does something else.
//
// It says what is written, not whether that is wise; package lint does. Nothing
// is run or looked up. It is for the host.
//
// Invariant: unless asked to reveal them, no secret is in the text: passwords,
// keys and certificates show as stars.
package explain
