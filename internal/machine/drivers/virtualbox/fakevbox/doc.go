// Package fakevbox is a program that behaves like VBoxManage as far as the
// driver can see: machines, media, snapshots and rules in a file, one process a
// machine that runs, its serial log, forwarded ports and saved memory. The
// guest is that of drivertest.BootISO. For tests only.
//
// It is strict where VirtualBox is: it refuses options it does not know, a
// second medium of one UUID, changes to machines that run or are locked, and it
// does delete what 'unregistervm --delete' deletes. Texts, codes and output are
// those of VirtualBox 7.2, and where Config says so those of 6.1 and 5.2, as
// their sources have them.
//
// Whatever goes wrong on real computers is switched on by Config: warnings
// before the output, commands that hang or fail, sessions that end late, starts
// that succeed without a machine, dialogs that nobody sees.
package fakevbox
