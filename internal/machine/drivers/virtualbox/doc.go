// Package virtualbox runs machines with VirtualBox, through VBoxManage only, as
// the user's own machines: VirtualBox Manager shows them, too.
//
// It builds no kernel modules, installs no extension packs, removes no host-only
// networks, and offers no console to type at: see below. The command line is
// that of versions 5.2 to 7.2.
//
// # What is whose
//
// A machine's UUID is its Spec's ID, and every command names it by that.
// VirtualBox allows several machines of one name; another one of ours, or of
// somebody else, is never looked at. All files are in the machine's folder:
//
//	vbox/NAME/NAME.vbox   VirtualBox's settings, snapshots, saved memory and logs
//	disk.vdi              the data disk, or the machine's copy of a disk image; made once
//	more-N.vdi            a further disk; more-N.vmdk and more-N.raw lead to one of the user's
//	config.iso            the config drive
//	serial.log            what the guest writes; see log.go for its parts
//
// Destroying takes the machine out of VirtualBox and removes what is in the
// folder. 'unregistervm --delete' is never said: it deletes every disk that the
// machine or its snapshots use. Disks of the user's are attached where they are,
// and raw ones through a link, so that nothing that VirtualBox deletes is theirs.
//
// # Console
//
// A serial port of VirtualBox has one mode: it writes a file, or it serves a
// socket. The stages of a boot are read from the serial port, from the first
// line on and whether or not a command runs that reads it, and a socket loses
// what nobody reads. So the port writes a file, and there is no console; a
// second port would be one that guests have no login on. SSH, the screen
// (--display) and the pictures of it remain.
//
// # Capabilities
//
// Versions are not compared. What VirtualBox does not know it says, and the
// other spelling is tried, or the option left out: see setting.
//
// # Hazards, all met in practice
//
//   - startvm ends with code 0 and there is no machine, or hangs in a dialog
//     that nobody sees. Only VMState counts, and every command has a deadline.
//   - After poweroff the state is poweroff at once, but for a second the machine
//     is locked, and showvminfo itself fails with E_ACCESSDENIED or "Failed to
//     get a console object".
//   - E_ACCESSDENIED is also what showvminfo says of a machine whose settings
//     file cannot be read; 'list vms' calls that one "<inaccessible>".
//   - A forwarded port that is taken fails nothing: VBox.log has a line. So ports
//     are tried before, and the log is read after each start.
//   - The serial log is emptied when a saved machine goes on.
//   - A disk image brings its UUID, and VirtualBox knows disks by it.
//   - The permission to make symbolic links counts for shares added after it.
//   - VirtualBox's service ends when nobody needs it, and forgets discs that no
//     machine uses; asked for one by its UUID, it takes that for a file's name.
//   - A machine whose folder has moved cannot be registered while its discs are
//     in the list where they were.
//   - A snapshot is not deleted while the machine stands on it and another one
//     follows, nor while several do; see dropped.
//   - For the user root, VirtualBox takes the home folder from the user database,
//     not from HOME; VBOX_USER_HOME moves its list of machines.
package virtualbox
