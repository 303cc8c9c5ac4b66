package libvirt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/qemuimg"
	"github.com/micavm/mica/internal/machine/sparse"
)

// The names of a machine's files.
const (
	stagedName  = "disk.staged" // what is on its way into a pool
	configName  = "config.iso"
	diskName    = "disk.qcow2"
	nvramName   = "nvram.fd" // libvirt makes it when the machine first starts
	logName     = "console.log"
	lastLogName = "console.last"

	maxLog = 1 << 20 // what one call of Log returns at most
	mebi   = 1 << 20
)

const formatQcow2 = "qcow2" // of every disk that is made here: it holds snapshots, and space that nobody uses takes none

// moreName names the disk number n of a machine's further ones.
func moreName(n int) string { return fmt.Sprintf("disk-%d.qcow2", n+1) }

// rotated are the endings of the older parts of a log, the oldest first
// (virtlogd.conf: max_backups).
var rotated = []string{".2", ".1", ".0"}

// store holds a machine's files, in its folder or in a pool. Disks of the
// user's are none of them.
type store interface {
	// make makes the files; made hears how to take each back.
	// The disks begin with the content of from's, if there is one, else the first
	// with that of the machine's disk image, if it has one.
	make(ctx context.Context, s machine.Spec, from *origin, made taker) (media, error)
	// media are the paths of the files that make made.
	media(ctx context.Context, s machine.Spec) (media, error)
	// remove removes whatever is there of them.
	remove(ctx context.Context, s machine.Spec) error
	// freshLog begins a new console log.
	freshLog(ctx context.Context, s machine.Spec) error
	// logParts are the parts of the console log, the oldest first; the last is
	// the one that grows.
	logParts(ctx context.Context, s machine.Spec) ([]part, error)
	// used is how many bytes the disk takes.
	used(ctx context.Context, s machine.Spec) (uint64, error)
	// grow makes the disk larger, to bytes; nothing if it is that large.
	grow(ctx context.Context, s machine.Spec, bytes int64) error
	// config reads the medium with the context, setConfig replaces what it holds.
	config(ctx context.Context, s machine.Spec) ([]byte, error)
	setConfig(ctx context.Context, s machine.Spec, data []byte) error
}

// taker hears of a thing that is about to be made, or has been, and how to take
// it back.
type taker func(name string, back func(context.Context) error)

// storeOf returns where a machine's files are. A folder needs no connection.
func (d *Driver) storeOf(c *conn, p place) store {
	i := images{qemuimg.Tool{Run: d.run}, d.at}
	if p.Pool == "" {
		return folder{i}
	}
	return &pool{c: c, name: p.Pool, id: p.ID, images: i}
}

// configDrive is the medium with the machine's context.
func configDrive(ctx context.Context, s machine.Spec) ([]byte, error) {
	var b bytes.Buffer
	err := machine.WriteMedium(ctx, &b, s, s.Shared(cmp.Or(s.Options["shares"], shares9P), maxTag))
	return b.Bytes(), err
}

// maxTag is how long QEMU lets the name of a 9p device be; virtiofs takes more.
const maxTag = 31

// bootImage is the disk image that a machine's disk begins with.
func bootImage(s machine.Spec) qemuimg.Image {
	return qemuimg.Image{Path: s.ImagePath(), Format: s.Image.Format, Name: s.Image.Path}
}

// images makes disks of disk images.
type images struct {
	qemuimg.Tool
	at func(step string)
}

// convert makes a disk of the machine's disk image, in the file at path.
func (i images) convert(ctx context.Context, s machine.Spec, path string) error {
	image := bootImage(s)
	if err := machine.CheckDiskImage(image.Path, image.Format); err != nil {
		return err
	}
	if err := i.Whole(ctx, image); err != nil {
		return err
	}
	if err := makeDisk(path, s.DiskMiB*mebi); err != nil {
		return err
	}
	if err := i.Fill(ctx, qemuimg.Image{Path: path, Format: formatQcow2}, image); err != nil {
		return err
	}
	if err := flush(path); err != nil {
		return err
	}
	i.at("converted")
	return nil
}

func flush(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// own are the numbers of the further disks that are the machine's own.
func own(s machine.Spec) []int {
	var all []int
	for n, disk := range s.Disks {
		if disk.Path == "" {
			all = append(all, n)
		}
	}
	return all
}

// copies names the disks of a machine, each with the name of what it is a copy
// of: a machine made of another has all but those that are the user's.
func copies(from, to machine.Spec) ([][2]string, error) {
	all := [][2]string{{diskName, diskName}}
	theirs, ours := own(from), own(to)
	if len(theirs) != len(ours) {
		return nil, fmt.Errorf("%d further disks cannot become %d", len(theirs), len(ours))
	}
	for n := range ours {
		all = append(all, [2]string{moreName(theirs[n]), moreName(ours[n])})
	}
	return all, nil
}

// folder is the machine's own folder.
type folder struct{ images }

func (folder) media(_ context.Context, s machine.Spec) (media, error) {
	m := media{config: s.Path(configName), disk: s.Path(diskName), log: s.Path(logName)}
	if s.Image.Format == "" {
		m.image = s.ImagePath()
	}
	if s.Firmware == machine.UEFI {
		m.nvram = s.Path(nvramName)
	}
	for n, disk := range s.Disks {
		m.more = append(m.more, cmp.Or(disk.Path, s.Path(moreName(n))))
	}
	return m, nil
}

func (f folder) make(ctx context.Context, s machine.Spec, from *origin, made taker) (media, error) {
	m, _ := f.media(ctx, s)
	made("files", func(ctx context.Context) error { return f.remove(ctx, s) })
	data, err := configDrive(ctx, s)
	if err != nil {
		return m, err
	}
	if err := f.setConfig(ctx, s, data); err != nil {
		return m, err
	}
	if from != nil {
		pairs, err := copies(from.spec, s)
		if err != nil {
			return m, err
		}
		for _, pair := range pairs {
			if err := sparse.Copy(ctx, from.spec.Path(pair[0]), s.Path(pair[1])); err != nil {
				return m, err
			}
		}
		return m, gone(sparse.Copy(ctx, from.spec.Path(nvramName), s.Path(nvramName)))
	}
	for _, n := range own(s) {
		if err := makeDisk(s.Path(moreName(n)), s.Disks[n].MiB*mebi); err != nil {
			return m, err
		}
	}
	if s.Image.Format != "" {
		return m, f.convert(ctx, s, m.disk)
	}
	return m, makeDisk(m.disk, s.DiskMiB*mebi)
}

func (folder) grow(_ context.Context, s machine.Spec, bytes int64) error {
	return growDisk(s.Path(diskName), bytes)
}

func (folder) config(_ context.Context, s machine.Spec) ([]byte, error) {
	return os.ReadFile(s.Path(configName))
}

func (folder) setConfig(_ context.Context, s machine.Spec, data []byte) error {
	return atomicfile.Write(s.Path(configName), data, 0o600)
}

// reader stops reading when ctx is cancelled.
type reader struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (folder) remove(_ context.Context, s machine.Spec) error {
	names := []string{lastLogName, logName, configName, diskName, stagedName, nvramName}
	for _, end := range rotated {
		names = append(names, logName+end)
	}
	for _, n := range own(s) {
		names = append(names, moreName(n))
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, gone(os.Remove(s.Path(name))))
	}
	return errors.Join(errs...)
}

func (folder) freshLog(_ context.Context, s machine.Spec) error {
	if err := gone(os.Rename(s.Path(logName), s.Path(lastLogName))); err != nil {
		return fmt.Errorf("keeping the last console log: %w", err)
	}
	for _, end := range rotated {
		if err := gone(os.Remove(s.Path(logName) + end)); err != nil {
			return fmt.Errorf("removing an old console log: %w", err)
		}
	}
	return nil
}

func (folder) logParts(_ context.Context, s machine.Spec) ([]part, error) {
	var parts []part
	for _, end := range append(slices.Clone(rotated), "") {
		path := s.Path(logName) + end
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading console log: %w", err)
		}
		p := part{size: info.Size(), read: func(_ context.Context, offset, length int64) ([]byte, error) { return readPart(path, offset, length) }}
		if end != "" {
			p.mark = info.ModTime().Format(time.RFC3339Nano)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

func readPart(path string, offset, length int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // it has been cut
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading console log: %w", err)
	}
	defer f.Close()
	data := make([]byte, length)
	n, err := f.ReadAt(data, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading console log: %w", err)
	}
	return data[:n], nil
}

func (folder) used(_ context.Context, s machine.Spec) (uint64, error) {
	info, err := os.Stat(s.Path(diskName))
	if err != nil {
		return 0, err
	}
	const block = 512 // st_blocks counts these whatever the file system's own blocks are
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Blocks) * block, nil
	}
	return uint64(info.Size()), nil
}

// gone is err, unless it says that a file is not there.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
