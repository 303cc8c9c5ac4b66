// Package units writes what systemd in the operating system is to know about
// the boot, as files for /run/systemd/system: the tree of the operating system
// itself stays untouched, and a plain Debian or EL tree boots without having been
// prepared.
//
// Files in /run/systemd/system come after those of an administrator in /etc and
// before those of packages in /usr, so a site can still override each of them.
//
// A system without systemd gets none of this; what it needs instead is said in
// the package boot.
package units
