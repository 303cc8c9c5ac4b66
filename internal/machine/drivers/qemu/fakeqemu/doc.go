// Package fakeqemu is a program that behaves like qemu-system-x86_64 as far as
// the driver can see: command line, daemon, locked pid file, QMP, serial port
// with log, forwarded ports, memory to a file and back. The guest is that of
// drivertest.BootISO. For tests only.
//
// It is strict where QEMU is: it refuses options and commands it does not know,
// a QMP client that does not negotiate, and a second client on a socket; it
// changes to / and then loses relative image paths, and dies when memory does
// not load. Faults that QEMU has on some computers are switched on by the
// variable MICA_FAKE_QEMU.
package fakeqemu
