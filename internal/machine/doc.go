// Package machine keeps and runs virtual machines: what a machine is (Spec),
// what is remembered of it (Record), what can be done to it in which state (one
// table), and the Driver contract of the platforms that run it.
//
// There is no daemon. A command reads the record, asks the platform for the
// state, acts under the machine's lock, and ends. A state is never read from a
// file: the record says only how far creating or destroying got.
//
// # Layout of a home
//
//	machines/NAME/record.json   the record, 0600, from before anything else exists
//	machines/NAME/lock          flock(2), with the holder's process id inside
//	machines/NAME/context       the context as it was given, 0600
//	machines/NAME/id_ed25519    the machine's key pair, and known_hosts
//	machines/NAME/authorized_keys  public keys besides the machine's own
//	machines/NAME/image.iso     hard link to the boot image's content
//	machines/NAME/...           whatever the driver keeps
//	cache/boot/SHA256.iso       boot images in use, by content
//	images/                     boot images to choose from (package image fills it)
//
// # Invariants
//
//   - A folder under machines/ holds a lock and a record from the moment it has
//     its name: it is made under a temporary name and renamed.
//   - A record in phase creating or destroying whose lock is free belongs to a
//     command that was killed. The next create or destroy of that name, or gc,
//     clears it; nothing else is touched.
//   - Whatever a driver makes can be found again from Spec.Dir and Spec.ID alone.
//   - Only a holder of the lock changes a machine.
//
// The states and paths follow CernVM-Launch (libcernvm's state machine), minus
// its surprises: no action boots a machine to stop it, none deletes a machine
// that existed before, and nothing is retried into a loss of data.
package machine
