// Package shutdown takes a machine down in the order in which the boot built it
// up, reversed. systemd-shutdown, having stopped everything it knows, moves to
// /run/initramfs and runs the guest binary there as /shutdown with the verb; the
// operating system's root is then at /oldroot, and this is PID 1.
//
// What must be reached is that UROOT is unmounted, so that its next check finds
// it clean. The overlay holds UROOT, the repository's process holds its cache on
// it, and the overlay's lower side is that very process: so first all that is
// mounted on the overlay goes, then the overlay, then the process, then UROOT.
// Where a step fails the next milder thing is tried, and the machine goes down
// in any case.
//
// Compat: the verbs, and the request "tear down to read-only" to the repository's
// process, are those of cernvm-micro: packages.d/drtini.
package shutdown
