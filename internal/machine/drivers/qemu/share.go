package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// sharesSince is the first layout that has devices for shared folders.
const sharesSince = 2

// maxTag is how long QEMU lets the name of a 9p device be.
const maxTag = 31

// shareArgs gives the guest its folders by 9p, which needs nothing but QEMU's
// own rights, and gives saved memory a chance: virtiofs needs a daemon a folder,
// started by root in Debian 12, and rules saving out altogether.
//
// With the security model none the guest's files are plain files of whoever runs
// QEMU, with the modes the guest gave them, and links are links: QEMU follows
// none, the guest does so on its own side. The mapped models would keep the
// guest's owners, at the price of files that nobody here can use.
func shareArgs(s machine.Spec) []string {
	var args []string
	for n, share := range s.Shares {
		id := "share" + strconv.Itoa(n)
		// With multidevs=remap other file systems mounted below are seen as such.
		fsdev := "local,id=" + id + ",path=" + escape(share.Path) + ",security_model=none,multidevs=remap"
		if share.ReadOnly {
			fsdev += ",readonly=on"
		}
		args = append(args, "-fsdev", fsdev, "-device", "virtio-9p-pci,fsdev="+id+",mount_tag="+s.ShareTag(n, maxTag))
	}
	return args
}

// Check implements machine.Checker: it refuses what this computer lacks the
// programs for, and folders that would give a guest more than anyone can have
// meant.
func (d *Driver) Check(ctx context.Context, s machine.Spec) error {
	if s.Image.Format != "" {
		if err := d.checkImages(ctx); err != nil {
			return err
		}
	}
	if err := d.checkHardware(ctx, s); err != nil {
		return err
	}
	if err := d.checkFirmware(s); err != nil {
		return err
	}
	if err := d.checkDisks(ctx, s); err != nil {
		return err
	}
	return d.mayShare(s)
}

// mayShare looks at the folders.
func (d *Driver) mayShare(s machine.Spec) error {
	for _, share := range s.Shares {
		if err := checkShare(share); err != nil {
			return err
		}
		if filepath.Dir(share.Path) == share.Path {
			return fail.New(fail.Usage, "the root of this computer cannot be a shared folder").
				Hint("share the folder that the machine needs")
		}
		if home := d.home(); home != "" && below(home, share.Path) {
			return fail.New(fail.Usage, "%q is in mica's own folder %s, with the disks and keys of machines", share.Path, home).
				Hint("share another folder")
		}
	}
	return nil
}

// home is where mica keeps machines, without symbolic links, or empty.
func (d *Driver) home() string {
	home, err := machine.HomeOf(d.getenv)
	if err != nil {
		return ""
	}
	real, err := filepath.EvalSymlinks(string(home))
	if err != nil {
		return string(home)
	}
	return real
}

// below reports whether path is dir or below it.
func below(dir, path string) bool {
	rest, err := filepath.Rel(dir, path)
	return err == nil && rest != ".." && !strings.HasPrefix(rest, ".."+string(filepath.Separator))
}

// checkShare says whether a folder is still the one that was shared. QEMU
// follows links on the way to it, and a guest can make links: of two machines
// that share a folder and one in it, the first could turn the other's into a
// link to anything.
func checkShare(s machine.Share) error {
	real, err := filepath.EvalSymlinks(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail.New(fail.NotFound, "the shared folder %q is gone: there is no %q", s.Name, s.Path).
			Hint("put it back, or mount the disk that it is on; an empty folder will do")
	case err != nil:
		return fail.New(fail.Failed, "the shared folder %q: %w", s.Name, err)
	case real != filepath.Clean(s.Path):
		return fail.New(fail.Conflict, "the shared folder %q has moved: %q is now a link to %q", s.Name, s.Path, real).
			Hint("put the folder back in the place of the link, if you made it; a machine with access to it could have, too")
	}
	info, err := os.Stat(real)
	if err == nil && !info.IsDir() {
		err = errors.New("it is no folder")
	}
	if err == nil {
		var dir *os.File
		if dir, err = os.Open(real); err == nil {
			err = dir.Close()
		}
	}
	if err != nil {
		return fail.New(fail.NotFound, "the shared folder %q cannot be used: %q: %w", s.Name, s.Path, err).
			Hint("make it a folder that you may read")
	}
	return nil
}

// checkShares is checkShare for all of a machine that is to start.
func checkShares(s machine.Spec) error {
	for _, share := range s.Shares {
		if err := checkShare(share); err != nil {
			return fmt.Errorf("starting %q: %w", s.Name, err)
		}
	}
	return nil
}

// heldByShares says whether the guest has shares mounted, whose state QEMU
// cannot write. It is asked before the guest is stopped.
func (m *monitor) heldByShares(ctx context.Context, s machine.Spec) error {
	if len(s.Shares) == 0 {
		return nil
	}
	var info struct {
		Why []string `json:"blocked-reasons"`
	}
	if err := m.call(ctx, "query-migrate", nil, &info); err != nil {
		return err
	}
	for _, why := range info.Why {
		if isShareHold(why) {
			return mounted(s, errors.New(why))
		}
	}
	return nil
}

// isShareHold recognises "Migration is disabled when VirtFS export path '…' is
// mounted in the guest using mount_tag '…'".
func isShareHold(text string) bool { return strings.Contains(text, "VirtFS") }

func mounted(s machine.Spec, err error) error {
	var where []string
	for _, share := range s.Shares {
		where = append(where, "/mnt/shared/"+share.Name)
	}
	return fail.New(fail.Conflict, "the guest has shared folders mounted, and memory cannot be saved with them: %w", err).
		Hint("'mica stop --shutdown %s' shuts it down instead", s.Name).
		Hint("or have the guest let go of them first: mica ssh --user root %s -- umount %s", s.Name, strings.Join(where, " "))
}
