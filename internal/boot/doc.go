// Package boot is PID 1 of the boot image: it brings a machine from the kernel's
// start to the operating system's own init.
//
// stages.go holds the list of everything that happens, in order; each stage is
// a file of its name. A stage says what it needs, so that independent ones run at
// the same time, and what its failure means. The runner reports each on the
// serial console for the host (package stage), on the console for a person, and in
// a record on UROOT, and it never leaves a machine hanging in silence: a fatal
// failure names the stage, its cause and a remedy, and offers a menu.
//
// Each stage may run again after a failure, so each checks what is there already.
//
// What the package does not do: it interprets no context beyond the boot keys
// (package amiconfig does, in the running system), it keeps no network lease alive,
// and it changes nothing in the operating system's tree: what the system must be
// told is written to /run or to the machine's own writable layer.
//
// The behaviour follows cernvm-micro 2021.05 (scripts.d), whose quirks and our
// departures are marked Compat: and Differs: where they occur.
package boot
