// Package vmware asks a VMware hypervisor for the variables of this machine
// (guestinfo.userdata and its like) through the hypervisor's backdoor: an I/O port
// that answers in the processor's registers.
//
// It works before any tools are installed, as in an initramfs, on x86-64 Linux as
// root. It only reads, with the slow variant of the protocol, four bytes at a time,
// which every version understands and which works with encrypted memory, too. It
// does not find out whether the machine is a VMware one: on other hypervisors the
// port may belong to something else, so ask the firmware's tables first.
//
// The protocol follows open-vm-tools: lib/include/backdoor_def.h,
// lib/message/message.c, lib/rpcOut.
//
// Hazards: without the right to do I/O the instruction would end the process, so it
// is never tried without. A kernel that is locked down gives nobody that right; then
// Get says so.
package vmware
