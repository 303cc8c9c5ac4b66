// Package lint judges a context: it says where the context does not do what its
// author most likely meant, for an original CernVM as well as for Mica, and what
// to write instead.
//
// One table, [Rules], holds every rule; every finding names one. The options of
// sections are not listed here: they are the Keys of the plugins themselves. The
// reference of keys and rules, docs/reference/context-keys.md, is made from these
// tables by [Reference] (go test ./internal/usercontext/lint -run TestReference -update).
//
// What it does not do: change the context, run any of it, or look anything up.
// It is for the host; the guest does not link it (it knows YAML and a shell's
// grammar).
//
// Invariant: no finding contains the value of an option that may be secret.
//
// Hazard: "error" means that something does not work somewhere it should. Much
// of what the originals drop in silence works on Mica; the text then says so.
package lint
