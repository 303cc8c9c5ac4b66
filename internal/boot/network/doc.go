// Package network brings a booting guest onto its network: DHCPv4 on every
// Ethernet interface at once, or an address given on the kernel command line or
// by an OpenNebula context, and hands what it found to the operating system.
//
// A Config is a value: made from a lease or from text by pure functions, then
// applied to an interface through netlink, then written in the forms that
// resolvers, cloud-init, systemd-networkd and NetworkManager read. IPv6 is left to
// the kernel's own autoconfiguration. Leases are not renewed here: that is for
// the operating system, which is told to keep the address meanwhile.
//
// Followed: RFC 2131 and 2132 (DHCP), RFC 3442 (classless routes, which replace
// the router option), RFC 3397 (search list), the kernel's
// Documentation/admin-guide/nfs/nfsroot.rst (ip=), klibc's ipconfig (the net-*.conf file).
//
// Hazard: everything in a lease is chosen by whoever answers first on the wire.
// Names are checked before they are written where a shell may read them.
package network
