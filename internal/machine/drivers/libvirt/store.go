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
	"strconv"
	"strings"
	"syscall"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/machine"
)

// The names of a machine's files.
const (
	copyName    = "image.copy" // of a disk image that other machines share
	configName  = "config.iso"
	diskName    = "disk.qcow2"
	logName     = "console.log"
	lastLogName = "console.last"

	maxLog = 1 << 20 // what one call of Log returns at most
	mebi   = 1 << 20
)

// rotated are the endings of the older parts of a log, the oldest first
// (virtlogd.conf: max_backups).
var rotated = []string{".2", ".1", ".0"}

// store holds a machine's files, in its folder or in a pool.
type store interface {
	// make makes the files; made hears how to take each back.
	// The disks begin with the content of from's, if there is one.
	make(ctx context.Context, s machine.Spec, from *origin, made taker) (media, error)
	// media are the paths of the files that make made.
	media(ctx context.Context, s machine.Spec) (media, error)
	// remove removes whatever is there of them.
	remove(ctx context.Context, s machine.Spec) error
	// freshLog begins a new console log.
	freshLog(ctx context.Context, s machine.Spec) error
	// log reads the console log from an offset.
	log(ctx context.Context, s machine.Spec, offset int64) ([]byte, error)
	// used is how many bytes the disk takes.
	used(ctx context.Context, s machine.Spec) (uint64, error)
	// grow makes the disk larger, to bytes; nothing if it is that large.
	grow(ctx context.Context, s machine.Spec, bytes int64) error
}

// taker hears of a thing that is about to be made, or has been, and how to take
// it back.
type taker func(name string, back func(context.Context) error)

// storeOf returns where a machine's files are. A folder needs no connection.
func storeOf(c *conn, p place) store {
	if p.Pool == "" {
		return folder{}
	}
	return &pool{c: c, name: p.Pool, id: p.ID}
}

// configDrive is the medium with the machine's context.
func configDrive(ctx context.Context, w io.Writer, s machine.Spec) error {
	return machine.WriteMedium(ctx, w, s, s.Shared(cmp.Or(s.Options["shares"], shares9P), maxTag))
}

// maxTag is how long QEMU lets the name of a 9p device be; virtiofs takes more.
const maxTag = 31

// folder is the machine's own folder.
type folder struct{}

func (folder) media(_ context.Context, s machine.Spec) (media, error) {
	m := media{image: s.ImagePath(), config: s.Path(configName), disk: s.Path(diskName), log: s.Path(logName)}
	if copied := s.Path(copyName); s.Image.Format != "" {
		if _, err := os.Lstat(copied); err == nil {
			m.image = copied
		}
	}
	return m, nil
}

func (f folder) make(ctx context.Context, s machine.Spec, from *origin, made taker) (media, error) {
	m, _ := f.media(ctx, s)
	made("files", func(ctx context.Context) error { return f.remove(ctx, s) })
	var other media
	if from != nil {
		other, _ = f.media(ctx, from.spec)
	}
	if s.Image.Format != "" && (from != nil || shared(s.ImagePath())) {
		m.image = s.Path(copyName)
		source := s.ImagePath()
		if from != nil {
			source = other.image
		}
		if err := copyFile(ctx, source, m.image); err != nil {
			return m, err
		}
	}
	w, err := atomicfile.Create(m.config, 0o600)
	if err != nil {
		return m, err
	}
	defer w.Close() //nolint:errcheck // Commit reports
	if err := configDrive(ctx, w, s); err != nil {
		return m, err
	}
	if err := w.Commit(); err != nil {
		return m, err
	}
	if from != nil {
		return m, copyFile(ctx, other.disk, m.disk)
	}
	return m, makeDisk(m.disk, s.DiskMiB*mebi)
}

func (folder) grow(_ context.Context, s machine.Spec, bytes int64) error {
	return growDisk(s.Path(diskName), bytes)
}

// shared reports whether a disk image is not this machine's alone to write to:
// it has other names, or is kept read-only.
func shared(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return true // copying says why
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Nlink > 1 || info.Mode()&0o200 == 0
}

// copyFile copies an image that other machines may share; holes stay holes
// where the file system copies by itself.
func copyFile(ctx context.Context, from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying a disk: %w", err)
	}
	defer src.Close()
	dst, err := atomicfile.Create(to, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close() //nolint:errcheck // Commit reports
	if _, err := io.Copy(dst, reader{ctx, src}); err != nil {
		return fmt.Errorf("copying a disk: %w", err)
	}
	return dst.Commit()
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
	names := []string{lastLogName, logName, configName, diskName, copyName}
	for _, end := range rotated {
		names = append(names, logName+end)
	}
	var errs []error
	for _, name := range names {
		if err := os.Remove(s.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (folder) freshLog(_ context.Context, s machine.Spec) error {
	if err := os.Rename(s.Path(logName), s.Path(lastLogName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the last console log: %w", err)
	}
	for _, end := range rotated {
		if err := os.Remove(s.Path(logName) + end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing an old console log: %w", err)
		}
	}
	return nil
}

// log reads the parts of the log as one.
func (folder) log(_ context.Context, s machine.Spec, offset int64) ([]byte, error) {
	var b bytes.Buffer
	for _, end := range append(append([]string{}, rotated...), "") {
		part, size, err := readPart(s.Path(logName)+end, offset, maxLog-b.Len())
		if err != nil {
			return nil, fmt.Errorf("reading console log: %w", err)
		}
		b.Write(part)
		offset = max(0, offset-size)
	}
	if b.Len() == 0 {
		return nil, nil
	}
	return b.Bytes(), nil
}

func readPart(path string, offset int64, limit int) ([]byte, int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	more := min(info.Size()-offset, int64(limit))
	if more <= 0 {
		return nil, info.Size(), nil
	}
	data := make([]byte, more)
	n, err := f.ReadAt(data, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return data[:n], info.Size(), err
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

// qemuUser reads the uid of the daemon's QEMU from a label of the security
// model dac: "+64055:+64055".
func qemuUser(label string) (int, bool) {
	user, _, _ := strings.Cut(label, ":")
	uid, err := strconv.Atoi(strings.TrimPrefix(user, "+"))
	return uid, err == nil
}
