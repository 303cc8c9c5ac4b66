package boot

import (
	"github.com/micavm/mica/internal/boot/units"
	"github.com/micavm/mica/internal/usercontext/source"
)

// sharedFolders returns the shares in force as those that the system mounts. The
// list was made for this machine, and is kept like its context: one that loses
// its config drive still knows it.
//
// Compat: cernvm-config: S11vboxtools.sh asks VirtualBox's additions for the list
// on every boot. Differs: the list comes with the metadata, for every hypervisor.
func (s *state) sharedFolders() []units.Share {
	var all []units.Share
	for _, share := range source.CleanShares(s.shares) { // root of the machine can write the list that is kept
		all = append(all, units.Share(share))
	}
	return all
}

// noteShares says how to mount the shares in a system that will not do it by
// itself.
func (s *state) noteShares() {
	for _, share := range s.sharedFolders() {
		s.rec.note("the operating system has no systemd to mount the shared folder %q: %s", share.Name, share.Command())
	}
}
