// Package qemu runs machines with QEMU on this computer, one process and one
// folder a machine, under the user's own rights.
//
// It does not manage networks (guests get QEMU's user network with forwarded
// ports), and never runs a shell.
//
// # Files in a machine's folder
//
//	disk.raw        the data disk, or the copy of a disk image; sparse
//	disk1.qcow2     another disk that Mica made: the first, second … of Spec.Disks
//	config.iso      the config drive
//	firmware.json   of a UEFI machine: which firmware it has
//	vars.fd         and that one's variables: the machine's own copy
//	serial.log      what the guest wrote since it was switched on; .1 the time before
//	pid             QEMU's pid file, locked by QEMU for as long as it lives
//	control.sock    QMP for whoever holds the machine's lock
//	status.sock     QMP for questions, at any time: QMP serves one client a socket
//	serial.sock     the serial console
//	launch.json     how the running QEMU was started
//	state.bin       the saved memory; saved.json says how to load it
//	snapshots/      a folder a snapshot: copies of the disks and variables, state.bin, saved.json
//	revert.json     the copies of a snapshot are whole and on their way back
//
// # Who lives
//
// A process is the machine's if it holds the POSIX lock on the pid file, which
// QEMU takes when it writes it. A recycled process id, or a zombie that nobody
// has reaped, holds no lock.
//
// # Saved memory
//
// Memory and disk belong together: loading old memory over a disk that the
// guest has written to since destroys its file systems. So state.bin exists
// only while the guest has not run since it was written: it appears by rename
// when the guest stands still for good, and is renamed away after it is loaded
// and before the guest runs.
//
// # Snapshots
//
// A snapshot is a copy of the disks, sharing blocks where the file system can,
// and of the memory of a guest that was on. Nothing is stacked: a snapshot can
// be deleted, or its folder lost, without any other file being worth less.
//
// # More disks
//
// Those that Mica makes are copied with a snapshot and a clone. A disk image of
// the user's is used in place, in the format the Spec names, under QEMU's own
// lock: of two machines with the same one only one runs. It is looked at anew at
// each start, since an image may have come to name other files. Saved memory
// goes on only if it has not been written to since: memory over another disk
// destroys file systems.
//
// A guest of Mica's takes the first blank disk of 1 GiB or more for its own if
// it has none yet. More disks come after the data disk on the PCI bus, in whose
// order Linux probes and names them, and a data disk that is too small for the
// guest is refused beside them. Their serial numbers are mica-disk for the data
// disk, and mica-disk1, mica-disk2 … They have no place in the boot order, and
// what has no place is not tried.
//
// # Firmware
//
// UEFI firmware is found by the descriptions that come with it
// (docs/interop/firmware.json of QEMU) when the machine is made, and is its own
// from then on: variables are laid out for one build. Without the option
// secure-boot it is one that boots anything.
//
// # Other processors
//
// A machine of aarch64 is QEMU's machine virt, with a CD drive on SCSI and a
// keyboard on USB, since virt has neither IDE nor a keyboard. KVM is used only
// for guests of this computer's own architecture.
//
// # Shared folders
//
// They are shared by QEMU's own 9p server, under the user's own rights: the
// guest's root can do in them what the user can, and nothing outside. Memory can
// be saved only while the guest has none of them mounted.
//
// # Hazards, all met in practice
//
//   - With -daemonize QEMU changes to / before it opens an image again for
//     migration: image paths are absolute. Sockets are bound before that, and
//     relative, since a socket's path has some hundred bytes at most.
//   - "accel=kvm:tcg" does not fall back where /dev/kvm opens but cannot run a
//     kernel; the acceleration is always named.
//   - A guest that KVM cannot emulate leaves QEMU running in status
//     internal-error, silent for ever.
//   - -sandbox spawn=deny and elevateprivileges=deny kill -daemonize.
//   - system_powerdown succeeds whether or not the guest listens.
//   - After it has written memory QEMU holds its disks no longer, and refuses to
//     write memory again, until the guest has run on.
//   - The user network accepts connections to forwarded ports before the guest
//     does: only the other side's words prove that it is there.
package qemu
