package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/google/uuid"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Disks beside the data disk are in the places of the SATA controller from the
// fifth on: the first has the data disk, the second the context, the third the
// guest additions, and the fourth stays the user's. So the guest counts them
// after the data disk, in their order.
//
//	more-N.vdi            an empty one, made here
//	more-N.vmdk           says that more-N.raw is a disk of the user's
//	more-N.raw            a symbolic link to the user's raw image
//	more-N.opened         says that VirtualBox did not know the user's disk before
//
// VirtualBox attaches no raw images. A VMDK of one flat extent is only a text
// that names another file, which holds the disk's bytes and nothing else. The
// link keeps quotes and commas of the user's path out of that text.
const (
	firstPlaces = 4 // of the SATA controller
	morePrefix  = "more-"
)

func moreFile(s machine.Spec, n int, ext string) string {
	return s.Path(morePrefix + strconv.Itoa(n+1) + ext)
}

// morePath is what VirtualBox attaches for the disk number n.
func morePath(s machine.Spec, n int) string {
	switch d := s.Disks[n]; {
	case d.Path == "":
		return moreFile(s, n, ".vdi")
	case d.Format == "raw":
		return moreFile(s, n, ".vmdk")
	default:
		return d.Path
	}
}

func moreSlot(s machine.Spec, n int) slot {
	return slot{sataController, firstPlaces + n, 0, "hdd", morePath(s, n)}
}

// checkDisks refuses disks that VirtualBox cannot attach.
func checkDisks(s machine.Spec) error {
	for _, d := range s.Disks {
		if d.Path == "" {
			continue
		}
		switch d.Format {
		case "vdi", "vmdk", "vpc":
		case "raw":
			info, err := os.Stat(d.Path)
			if err == nil && info.Mode().IsRegular() && info.Size()%sector != 0 {
				return fail.New(fail.Usage, "disk %s has %d bytes, which are no whole sectors of %d", d.Path, info.Size(), sector)
			}
		default:
			return fail.New(fail.Usage, "VirtualBox cannot use disk %s in format %q", d.Path, d.Format).
				Hint("use vdi, vmdk, vpc (VHD) or raw; 'mica image' converts")
		}
	}
	return nil
}

// haveDisks sees that the disks of the user's are where they were.
func haveDisks(s machine.Spec) error {
	for _, d := range s.Disks {
		if d.Path == "" {
			continue
		}
		if _, err := os.Stat(d.Path); err != nil {
			return fail.New(fail.NotFound, "disk %s of %q is gone: %w", d.Path, s.Name, errors.Unwrap(err))
		}
	}
	return nil
}

// makeMore makes the files of the further disks. Where from is set, the empty
// ones get the content of those media, in their order.
func (d *Driver) makeMore(ctx context.Context, s machine.Spec, from []string) error {
	for n, disk := range s.Disks {
		var err error
		switch {
		case disk.Path == "" && len(from) > 0:
			_, err = d.vbox(ctx, longPatience, "clonemedium", "disk", from[0], morePath(s, n), "--format", "VDI")
			from = from[1:]
		case disk.Path == "":
			_, err = d.vbox(ctx, changePatience, "createmedium", "disk", "--filename", morePath(s, n), "--size", strconv.FormatInt(disk.MiB, 10), "--format", "VDI")
		case disk.Format == "raw":
			err = describeRaw(s, n)
		default:
			err = d.noteNew(ctx, s, n)
		}
		if err != nil {
			return fmt.Errorf("disk %s: %w", disk, err)
		}
	}
	return nil
}

const sector = 512

// describeRaw writes the text that makes a raw image a disk of VirtualBox's. The
// geometry is what VirtualBox itself gives to disks.
func describeRaw(s machine.Spec, n int) error {
	info, err := os.Stat(s.Disks[n].Path)
	if err != nil {
		return err
	}
	const heads, perTrack, mostCylinders = 16, 63, 16383
	sectors := info.Size() / sector
	link := moreFile(s, n, ".raw")
	if err := os.Symlink(s.Disks[n].Path, link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	text := fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

RW %d FLAT "%s%d.raw" 0

ddb.virtualHWVersion = "4"
ddb.adapterType = "ide"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.uuid.image = "%s"
`, sectors, morePrefix, n+1, min(max(sectors/heads/perTrack, 1), mostCylinders), heads, perTrack, uuid.NewString())
	return atomicfile.Write(morePath(s, n), []byte(text), 0o600)
}

// ownDisks are the media in the places of the disks that are mica's, in order.
func ownDisks(s machine.Spec, in info) []string {
	var all []string
	for n, d := range s.Disks {
		if d.Path == "" {
			all = append(all, in[moreSlot(s, n).key()])
		}
	}
	return all
}

// noteNew notes that VirtualBox gets to know a disk of the user's here, so that
// it can forget it again.
func (d *Driver) noteNew(ctx context.Context, s machine.Spec, n int) error {
	out, err := d.vbox(ctx, queryPatience, "list", "hdds")
	if err != nil {
		return err
	}
	for _, medium := range records(out) {
		if medium["Location"] == s.Disks[n].Path {
			return nil
		}
	}
	return atomicfile.Write(moreFile(s, n, ".opened"), nil, 0o600)
}

// releaseDisks takes those disks of the user's out of VirtualBox's list of media
// that came into it with this machine. One that another machine uses by now stays.
func (d *Driver) releaseDisks(ctx context.Context, s machine.Spec) error {
	for n, disk := range s.Disks {
		if _, err := os.Stat(moreFile(s, n, ".opened")); err != nil {
			continue
		}
		_, err := d.vbox(ctx, changePatience, "closemedium", "disk", disk.Path)
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil {
			d.log.Debug("a disk of the user's stays in VirtualBox's list", "disk", disk.Path, "error", err)
		}
	}
	return nil
}
