// Package libvirt runs machines through libvirt's daemon, of this user, of this
// computer or of another one. It speaks the daemon's RPC: no virsh, no library
// of libvirt's.
//
// It defines no networks and no storage pools, and offers no login by SASL.
//
// # Which daemon
//
// The option uri of a machine, MICA_LIBVIRT_URI, LIBVIRT_DEFAULT_URI, in this
// order; else qemu:///system for root and qemu:///session for others. The URI
// is written to libvirt.json in the machine's folder before anything else is
// made, and holds for the machine's life, whatever the environment says later.
// A folder without that file holds no machine of this driver.
//
// # What is whose
//
// A domain is the machine's if it has the machine's UUID and carries Mica's
// element in its metadata. Any other is somebody else's: it is never changed,
// and in the way it is a conflict. Domains are named mica-NAME-ID, with the
// first part of the UUID: the system daemon is shared by all users of a computer.
//
// # Where files are
//
// Where the daemon's QEMU runs under the caller's own uid (session daemons; root,
// if QEMU does too), they are in the machine's folder:
//
//	disk.qcow2      the data disk; a disk image is converted into it
//	disk-1.qcow2    the first further disk, and so on
//	config.iso      the config drive
//	console.log     what the guest wrote; .0 to .2 older parts, as virtlogd cuts it
//	console.last    what it wrote the time before
//
// Else, and on other computers, they are volumes of a storage pool (option
// pool, "default"), named mica-ID-FILE: another user's QEMU could not reach a
// folder in a home, and libvirt would give it files that other machines share.
// The console log is a volume too, and so are its older parts from the beginning,
// empty: libvirt would not see those that virtlogd makes. Disks of the user's are
// used where they are; while the machine runs the system's daemon gives them to
// the user that its QEMU is.
//
// The variables of UEFI are where libvirt keeps them, and go with the domain.
//
// # Networks
//
// A machine without a named network has QEMU's user network with forwarded
// ports, as the driver qemu gives it. libvirt cannot express the forwards, so
// the card is in the domain's qemu:commandline. libvirt's own way, passt, can
// neither save nor snapshot a running machine. With a named network libvirt
// attaches the card, there are no forwards, and Address tells the leased address.
//
// # Hazards, all met in practice
//
//   - libvirtd run without systemd and as root probes QEMU again at each step
//     where its QEMU user cannot open /dev/kvm; a minute a step.
//   - Cut RPC streams: the library holds a lock while it hands on data, so a
//     reader that stops reading blocks the connection for good. The console has a
//     connection, and a small client, of its own.
//   - qemu:///session of uid 0 is the system daemon.
//   - Memory is not saved while the guest has a 9p share mounted, nor ever with
//     virtiofs.
//   - virtlogd cuts logs at 2 MiB and keeps three old parts: of a log of more than
//     8 MiB the beginning is lost, and readers have to find their place again.
//
// Sources: libvirt's remote_protocol.x, virnetprotocol.x and domain XML format.
package libvirt
