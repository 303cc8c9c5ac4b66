// Package format writes a boot tree in the forms that platforms take. A form is
// one file with one Format value and one line in the table of All. The writers
// need no privileges, no loop devices and no hypervisor, and give the same bytes
// for the same tree.
//
// There is one form now, iso. Disk forms (raw, qcow2, vdi, vmdk, vhd) and
// bundles (ova, box) would be further files.
package format
