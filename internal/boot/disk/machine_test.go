package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/tier"
)

// machine is a computer with disks: a /sys and a /dev in a folder, disks as
// sparse files. It can lose power.
type machine struct {
	t     *testing.T
	roots Roots
	disks int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, roots: Roots{Sys: filepath.Join(dir, "sys"), Dev: filepath.Join(dir, "dev"), Proc: filepath.Join(dir, "proc")}}
	for _, d := range []string{m.roots.Sys + "/block", m.roots.Dev, m.roots.Proc} {
		m.must(os.MkdirAll(d, 0o755))
	}
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// disk attaches a disk of that size.
func (m *machine) disk(name string, size int64) string {
	m.t.Helper()
	m.disks++
	m.attributes(filepath.Join(m.roots.Sys, "block", name), map[string]string{
		"size": fmt.Sprint(size / 512), "dev": fmt.Sprintf("8:%d", 16*m.disks), "ro": "0", "removable": "0",
		"queue/logical_block_size": "512", "device/model": "Test disk  ",
	})
	path := filepath.Join(m.roots.Dev, name)
	m.must(os.WriteFile(path, nil, 0o600))
	m.must(os.Truncate(path, size))
	return path
}

func (m *machine) attributes(dir string, values map[string]string) {
	m.t.Helper()
	for name, value := range values {
		file := filepath.Join(dir, name)
		m.must(os.MkdirAll(filepath.Dir(file), 0o755))
		m.must(os.WriteFile(file, []byte(value+"\n"), 0o644))
	}
}

func (m *machine) write(path string, off int64, data []byte) {
	m.t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	m.must(err)
	_, err = f.WriteAt(data, off)
	m.must(errors.Join(err, f.Close()))
}

// node implements kernel: a kernel that cannot address pieces of a file, so the
// piece is another file until the machine goes down.
func (m *machine) node(_ context.Context, d, p Device) (string, error) {
	if p.Kind != Part {
		return p.Path, nil
	}
	path := fmt.Sprintf("%s-at-%d", d.Path, p.Start)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, copySparse(path, 0, d.Path, p.Start, p.Size)
}

func (m *machine) resize(Device, Device) error { return nil }

// down writes the pieces back into their disks.
func (m *machine) down() {
	m.t.Helper()
	pieces, err := filepath.Glob(filepath.Join(m.roots.Dev, "*-at-*"))
	m.must(err)
	for _, piece := range pieces {
		name, off, _ := strings.Cut(piece, "-at-")
		var start int64
		_, err := fmt.Sscan(off, &start)
		m.must(err)
		info, err := os.Stat(piece)
		m.must(err)
		m.must(copySparse(name, start, piece, 0, info.Size()))
		m.must(os.Remove(piece))
	}
}

// copySparse makes the piece of to at toOff equal to that of from.
func copySparse(to string, toOff int64, from string, fromOff, size int64) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	if info, err := dst.Stat(); err != nil || info.Size() < toOff+size {
		if err := errors.Join(err, dst.Truncate(toOff+size)); err != nil {
			return err
		}
	}
	if err := unix.Fallocate(int(dst.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, toOff, size); err != nil {
		return err
	}
	for at := fromOff; at < fromOff+size; {
		begin, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || begin >= fromOff+size {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(src.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		end = min(end, fromOff+size)
		section := io.NewSectionReader(src, begin, end-begin)
		if _, err := io.Copy(io.NewOffsetWriter(dst, toOff+begin-fromOff), section); err != nil {
			return err
		}
		at = end
	}
	return nil
}

func (m *machine) worker() *worker {
	w := newWorker(Tools{Roots: m.roots, Rand: bytes.NewReader(bytes.Repeat([]byte("random bytes "), 40))}, nil)
	w.kernel = m
	return w
}

// boot is what a machine does: look, choose, prepare. It returns what was
// chosen.
func (m *machine) boot(p Preferences, w *worker) (Choice, UROOT, error) {
	m.t.Helper()
	devices, err := Scan(m.t.Context(), m.roots)
	m.must(err)
	c, err := Choose(devices, p)
	if err != nil {
		return Choice{}, UROOT{}, err
	}
	u, err := w.prepare(m.t.Context(), c)
	return c, u, err
}

// image puts a boot disk in, larger than its image: one FAT partition with the
// sentinel, as the table's scheme says.
func (m *machine) image(name string, scheme gpt.Scheme, size int64) string {
	m.t.Helper()
	path := m.disk(name, size)
	script := "label: gpt\nstart=2048, size=16384, type=uefi, name=boot\n"
	if scheme == gpt.MBR {
		script = "label: dos\nstart=2048, size=16384, type=c, bootable\n"
	}
	m.must(os.Truncate(path, 16*mib)) // as it was built
	cmd := exec.CommandContext(m.t.Context(), tier.Tool(m.t, "sfdisk"), "-q", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("sfdisk: %v: %s", err, out)
	}
	m.run("mkfs.vfat", "-n", "UCERNVM", "--offset", "2048", path, "8192")
	sentinel := filepath.Join(m.t.TempDir(), Sentinel)
	m.must(os.WriteFile(sentinel, nil, 0o600))
	m.run("mcopy", "-i", path+"@@1M", sentinel, "::")
	m.must(os.Truncate(path, size))
	return path
}

// digest is a checksum of everything on a disk, quick where it has holes.
func (m *machine) digest(path string) string {
	m.t.Helper()
	f, err := os.Open(path)
	m.must(err)
	defer f.Close()
	sum := sha256.New()
	buf := make([]byte, 64<<10)
	for at := int64(0); ; {
		at, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return hex.EncodeToString(sum.Sum(nil))
		}
		m.must(err)
		at &^= int64(len(buf)) - 1
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			m.t.Fatal(err)
		}
		if !bytes.Equal(buf[:n], make([]byte, n)) { // a hole may become a block of zeros
			_, _ = fmt.Fprintf(sum, "%d %d ", at, n)
			_, _ = sum.Write(buf[:n])
		}
		at += int64(len(buf))
	}
}

func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	// Not the test's context: clean-ups run programs, too.
	out, err := exec.CommandContext(context.Background(), tier.Tool(m.t, name), args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func sectionOf(f *os.File, p Device) io.ReaderAt { return io.NewSectionReader(f, p.Start, p.Size) }
