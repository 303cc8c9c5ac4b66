package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/boot/disk/probe"
)

// Sentinel is the empty file that marks a boot partition.
//
// Compat: cernvm-micro: scripts.d/04devices.
const Sentinel = ".ucernvm_boot_loader"

const mib = 1 << 20

// Roots are where the kernel's views are: the usual places if empty.
type Roots struct {
	Sys  string // as mounted on /sys
	Dev  string // as mounted on /dev
	Proc string // as mounted on /proc
}

func (r Roots) sys() string  { return or(r.Sys, "/sys") }
func (r Roots) dev() string  { return or(r.Dev, "/dev") }
func (r Roots) proc() string { return or(r.Proc, "/proc") }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Scan describes every block device of the machine, disks before their
// partitions, in natural order of their names. A device that cannot be read is
// listed with its problem; the error is for a /sys that cannot be read at all.
//
// A partition that only the table knows, because the kernel cannot read such
// tables, is listed without a name.
func Scan(ctx context.Context, roots Roots) ([]Device, error) {
	names, err := os.ReadDir(filepath.Join(roots.sys(), "block"))
	if err != nil {
		return nil, fmt.Errorf("listing block devices: %w", err)
	}
	busy := inUse(roots)
	groups := make([][]Device, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8) // of slow devices, each of which may take seconds to answer
	for i, entry := range names {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			groups[i] = describe(roots, entry.Name(), busy)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	sort.Slice(groups, func(i, j int) bool { return natural(groups[i][0].Name, groups[j][0].Name) < 0 })
	return slices.Concat(groups...), nil
}

// describe is one disk and its partitions.
func describe(roots Roots, name string, busy map[string]bool) []Device {
	dir := filepath.Join(roots.sys(), "block", name)
	d := Device{
		Name: name, Path: filepath.Join(roots.dev(), name), Kind: kindOf(dir),
		Size: number(dir, "size") * 512, Sector: number(dir, "queue/logical_block_size"),
		Removable: number(dir, "removable") == 1, ReadOnly: number(dir, "ro") == 1,
		Model: word(dir, "device/model"), Serial: serial(dir), InUse: taken(dir, busy),
	}
	if d.Sector == 0 {
		d.Sector = 512
	}
	parts := partitions(roots, dir, d, busy)
	f, err := openNode(d.Path, dir)
	if err != nil {
		d.Problem = problem(err)
		for i := range parts {
			parts[i].Problem = d.Problem
		}
		return append([]Device{d}, parts...)
	}
	defer f.Close()

	if err := d.look(f); err != nil {
		d.Problem = problem(err)
	}
	parts = d.match(parts)
	for i := range parts {
		p := &parts[i]
		if p.Problem != "" {
			continue
		}
		if err := p.look(io.NewSectionReader(f, p.Start, p.Size)); err != nil {
			p.Problem = problem(err)
		}
		p.Boot = p.Boot || slices.Contains(p.Content.Root, Sentinel)
		d.Boot = d.Boot || p.Boot
	}
	d.Boot = d.Boot || slices.Contains(d.Content.Root, Sentinel)
	if d.Boot {
		if err := d.space(f); err != nil {
			d.Problem = problem(err)
		}
	}
	return append([]Device{d}, parts...)
}

// look reads what is on a device.
func (d *Device) look(r io.ReaderAt) error {
	content, err := probe.Read(r, d.Size)
	if err != nil {
		return err
	}
	d.Content = content
	if d.Kind == Part {
		return d.lookPartition(r)
	}
	if d.Kind != Disk {
		return nil
	}
	if d.Table, err = gpt.Read(r, d.Size, d.Sector); err != nil {
		return err
	}
	if d.Table.Scheme == gpt.None { // a disk that was to hold a file system as it is
		marked, err := hasIntent(r, 0, d.Size)
		if err != nil {
			return err
		}
		if d.marked = marked && neverUsed(content); d.marked {
			d.Unfinished = true
			return nil
		}
	}
	switch {
	case content.Known():
		return nil
	case d.Table.Scheme == gpt.None || len(d.Table.Entries) == 0 && d.Table.Scheme != gpt.Damaged:
		d.DataAt, d.Blank, err = blank(r, Extent{0, d.Size}, d.tableExtents()...)
		if err != nil || d.Blank {
			return err
		}
	}
	_, d.Unfinished, err = halfMade(r, d.Size, d.Sector)
	return err
}

func (d *Device) lookPartition(r io.ReaderAt) error {
	marked, err := hasIntent(r, d.Start, d.Size)
	if err != nil {
		return err
	}
	d.marked = marked && neverUsed(d.Content)
	d.Unfinished = d.marked
	if d.Content.Known() || d.Unfinished {
		return nil
	}
	d.DataAt, d.Blank, err = blank(r, Extent{0, d.Size})
	return err
}

// tableExtents is where an empty partition table lies.
func (d *Device) tableExtents() []Extent {
	switch d.Table.Scheme {
	case gpt.MBR:
		return []Extent{{0, d.Sector}}
	case gpt.GPT:
		usable := Extent{d.Table.FirstUsable * d.Sector, 0}
		usable.Size = (d.Table.LastUsable+1)*d.Sector - usable.Start
		end := usable.Start + usable.Size
		return []Extent{{0, usable.Start}, {end, d.Size - end}}
	}
	return nil
}

// space finds the free space of a boot disk, and whether anything is in it.
func (d *Device) space(r io.ReaderAt) error {
	if d.Table.Scheme != gpt.GPT && d.Table.Scheme != gpt.MBR {
		return nil
	}
	free := d.Table.Largest(d.Size/d.Sector, mib/d.Sector)
	d.Free = Extent{free.Start * d.Sector, free.Sectors * d.Sector}
	if d.Content.Type == "iso9660" { // which begins before its partition
		end := (d.Content.Size + mib - 1) / mib * mib
		if over := end - d.Free.Start; over > 0 {
			d.Free.Start, d.Free.Size = end, max(d.Free.Size-over, 0)
		}
	}
	if d.Free.Size == 0 {
		return nil
	}
	// The backup of the image's own table is left over in the middle of a disk
	// that was made larger than the image.
	old := Extent{(d.Table.BackupLBA - 32) * d.Sector, 33 * d.Sector}
	marked, err := hasIntent(io.NewSectionReader(r, d.Free.Start, d.Free.Size), d.Free.Start, d.Free.Size)
	if err != nil {
		return err
	}
	if marked {
		d.FreeBlank = true
		return nil
	}
	_, d.FreeBlank, err = blank(r, d.Free, old)
	return err
}

// match puts the kernel's partitions and those of the table together.
func (d *Device) match(parts []Device) []Device {
	seen := map[int]bool{}
	for i := range parts {
		seen[parts[i].Partition] = true
		if e, ok := d.Table.Entry(parts[i].Partition); ok && e.Start*d.Sector == parts[i].Start {
			parts[i].Type, parts[i].PartName = e.Type, e.Name
			if e.Container {
				parts[i].Problem = "is only the frame of logical partitions"
			}
		}
	}
	if d.Unfinished || d.Kind != Disk || d.Content.Known() && d.Content.Type != "iso9660" {
		return parts
	}
	for _, e := range d.Table.Entries {
		p := Device{
			Kind: Part, Parent: d.Name, Partition: e.Number, Start: e.Start * d.Sector, Size: e.Sectors * d.Sector,
			Sector: d.Sector, Type: e.Type, PartName: e.Name, Removable: d.Removable, ReadOnly: d.ReadOnly, InUse: d.InUse, Model: d.Model, Serial: d.Serial,
		}
		if seen[e.Number] || e.Container || e.Type == "0xee" || p.Start+p.Size > d.Size || p.Size <= 0 {
			continue
		}
		parts = append(parts, p)
	}
	return parts
}

// partitions lists what the kernel made of the table.
func partitions(roots Roots, dir string, d Device, busy map[string]bool) []Device {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var parts []Device
	for _, e := range entries {
		sub := filepath.Join(dir, e.Name())
		n := number(sub, "partition")
		if n == 0 {
			continue
		}
		parts = append(parts, Device{
			Name: e.Name(), Path: filepath.Join(roots.dev(), e.Name()), Kind: Part, Parent: d.Name, Partition: int(n),
			Start: number(sub, "start") * 512, Size: number(sub, "size") * 512, Sector: d.Sector,
			Removable: d.Removable, ReadOnly: d.ReadOnly || number(sub, "ro") == 1, Model: d.Model, Serial: d.Serial,
			InUse: d.InUse || taken(sub, busy),
		})
	}
	sort.Slice(parts, func(i, j int) bool { return parts[i].Partition < parts[j].Partition })
	return parts
}

// kindOf goes by the driver: what has no device behind it is virtual.
func kindOf(dir string) Kind {
	major, _, _ := strings.Cut(word(dir, "dev"), ":")
	switch major {
	case "11":
		return Optical
	case "2":
		return Floppy
	}
	if _, err := os.Lstat(filepath.Join(dir, "device")); err != nil {
		return Virtual
	}
	if word(dir, "device/type") == "5" { // SCSI type of a CD drive
		return Optical
	}
	return Disk
}

// serial is the serial number of the disk in dir, as virtio, NVMe and SCSI with
// SATA tell it. The last do so in a page of four bytes and the number (SCSI
// Primary Commands, page 80h).
func serial(dir string) string {
	for _, name := range []string{"serial", "device/serial"} {
		if s := word(dir, name); s != "" {
			return s
		}
	}
	page, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80"))
	if err != nil || len(page) < 4 {
		return ""
	}
	return strings.Trim(string(page[4:]), " \x00")
}

// taken reports whether the kernel uses the device in dir.
func taken(dir string, busy map[string]bool) bool {
	holders, err := os.ReadDir(filepath.Join(dir, "holders"))
	return err == nil && len(holders) > 0 || busy[word(dir, "dev")]
}

// inUse lists the numbers of devices that are mounted or swapped to.
func inUse(roots Roots) map[string]bool {
	busy := map[string]bool{}
	if f, err := os.Open(filepath.Join(roots.proc(), "self/mountinfo")); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if fields := strings.Fields(lines.Text()); len(fields) > 2 {
				busy[fields[2]] = true
			}
		}
	}
	if data, err := os.ReadFile(filepath.Join(roots.proc(), "swaps")); err == nil {
		for line := range strings.Lines(string(data)) {
			path, _, _ := strings.Cut(line, " ")
			var st unix.Stat_t
			if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
				busy[fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))] = true
			}
		}
	}
	return busy
}

// openNode opens a device to read it, and makes its node if nothing else does.
func openNode(path, dir string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := makeNode(path, dir); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

func makeNode(path, dir string) error {
	var major, minor uint32
	if _, err := fmt.Sscanf(word(dir, "dev"), "%d:%d", &major, &minor); err != nil {
		return fmt.Errorf("no device file %s, and no number to make one", path)
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making %s: %w", path, err)
	}
	return nil
}

// problem says why a device was not looked at, in the words of the decision.
func problem(err error) string {
	switch {
	case errors.Is(err, unix.ENOMEDIUM), errors.Is(err, unix.ENXIO):
		return "holds no medium"
	}
	return "cannot be read: " + err.Error()
}

func word(dir, name string) string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func number(dir, name string) int64 {
	n, err := strconv.ParseInt(word(dir, name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// natural compares names with numbers in them: sda2 before sda10, and sdz
// before sdaa.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, ra := run(a)
		y, rb := run(b)
		if x != y {
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			return strings.Compare(x, y)
		}
		a, b = ra, rb
	}
	return len(a) - len(b)
}

// run splits off the first run of digits, without leading zeros, or of others.
func run(s string) (first, rest string) {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	i := 1
	for i < len(s) && digit(s[i]) == digit(s[0]) {
		i++
	}
	first = s[:i]
	if digit(s[0]) {
		first = strings.TrimLeft(first[:i-1], "0") + first[i-1:]
	}
	return first, s[i:]
}
