// Package modules picks the kernel modules a boot image carries, closes the
// choice under their dependencies, and writes the indexes a loader needs
// (modules.dep, modules.alias, modules.softdep, modules.builtin), as depmod
// would for a tree of only these files.
//
// A module says everything about itself in its .modinfo section: what it
// depends on, which devices it serves, what it wants loaded before it. So no
// symbol tables are resolved and no program is run.
package modules
