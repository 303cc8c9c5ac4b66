package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/micavm/mica/cvmfs/slice"
	"github.com/micavm/mica/internal/fail"
)

// settleDisks finds out the formats of the user's disks in the Spec, and refuses
// those that a guest cannot or must not write to.
func (f *Fleet) settleDisks(s *Spec) error {
	home := f.realHome()
	s.Disks = slices.Clone(s.Disks)
	for i, d := range s.Disks {
		if d.Path == "" {
			continue
		}
		if below(home, d.Path) {
			return fail.New(fail.Usage, "disk %s is in mica's own folder %s", d.Path, home).
				Hint("a machine's disk belongs to it alone; 'mica clone' makes a copy with the machine")
		}
		if isSlice(d.Path) {
			s.Disks[i].Format, s.Disks[i].ReadOnly = formatRaw, true
			continue
		}
		format, err := diskFormat(d)
		if err != nil {
			return fmt.Errorf("adding a disk: %w", err)
		}
		s.Disks[i].Format = format
	}
	return nil
}

// isSlice reports whether a file is a slice of a repository.
func isSlice(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head, _, err := ends(f)
	return err == nil && slice.Is(head)
}

// diskFormat says what format a disk has that is to be used in place.
func diskFormat(d Disk) (string, error) {
	info, err := os.Stat(d.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fail.New(fail.NotFound, "no disk image at %s", d.Path)
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fail.New(fail.Usage, "%s is not a file", d.Path).Hint("use a disk image")
	}
	format := d.Format
	if format == "" {
		// An empty raw disk has no mark, and one that a machine has written to may
		// have another format's: that one is taken for what it looks like, which
		// must then be complete in itself.
		format, err = DiskFormat(d.Path)
		name := strings.ToLower(filepath.Ext(d.Path))
		if name == ".raw" || name == ".img" && fail.Is(err, fail.Usage) {
			format, err = formatRaw, nil
		}
		if fail.Is(err, fail.Usage) {
			err = fail.New(fail.Usage, "%w", err).Hint("a raw disk needs a name that ends in .raw or .img")
		}
	}
	if err == nil {
		err = CheckDiskImage(d.Path, format)
	}
	if err != nil {
		return "", err
	}
	if format == formatRaw && info.Size()%diskSector != 0 {
		return "", fail.New(fail.Usage, "%s is no raw disk: %d bytes are not whole sectors", d.Path, info.Size()).
			Hint("'truncate --size %%%d %s' adds what is missing", diskSector, d.Path)
	}
	writable, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return "", fail.New(fail.Usage, "a machine writes to its disks: %w", err).Hint("let the user who runs mica write to it, or add a copy")
	}
	return format, writable.Close()
}

// sayShared says which other machines have a disk of the user's that s has, too.
func (f *Fleet) sayShared(s Spec, others []*Record) {
	for _, d := range s.Disks {
		for _, other := range others {
			if d.Path != "" && !d.ReadOnly && other.spec().Name != s.Name && slices.ContainsFunc(other.spec().Disks, func(o Disk) bool { return o.Path == d.Path }) {
				f.say("disk %s is one of %q, too: only one of them can run at a time", d.Path, other.spec().Name)
			}
		}
	}
}

// usersDisk returns the first disk that is the user's own.
func (s Spec) usersDisk() (Disk, bool) {
	i := slices.IndexFunc(s.Disks, func(d Disk) bool { return d.Path != "" })
	if i < 0 {
		return Disk{}, false
	}
	return s.Disks[i], true
}
