package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/boot/disk/probe"
	"github.com/micavm/mica/internal/fail"
)

// ErrReboot says that the file system check repaired something that needs a
// restart before the file system may be mounted.
var ErrReboot = errors.New("the file system check asks for a restart")

// Tools are the programs and doors to the outside that Prepare and Resize use.
type Tools struct {
	MkfsExt4  string // mke2fs; "" looks for "mke2fs" in PATH
	FsckExt4  string // e2fsck
	Resize2fs string // resize2fs

	// Exec runs a program to its end and returns both outputs together and the
	// exit code; err is for a program that could not be run or was killed. nil
	// uses os/exec; process 1 passes its own, so that its reaper knows the child.
	Exec func(ctx context.Context, argv []string) (output []byte, code int, err error)

	Roots Roots     // where /sys and /dev are
	Rand  io.Reader // for identifiers; nil is crypto/rand
}

// UROOT is a checked file system that is ready to be mounted.
type UROOT struct {
	Device string // device file; empty for a tmpfs
	Fresh  bool   // made just now: it has no directories yet
	Size   int64  // bytes of the device, or of the tmpfs
	UUID   string
	RAM    bool // mount a tmpfs of Size bytes instead
}

// Prepare carries a choice out: it partitions, formats and checks, as far as
// the choice asks for it, and never mounts. It looks at the device again first
// and refuses if it is not what Choose saw. Stopped at any moment it leaves
// either nothing, or a device that the next Scan reports as Unfinished.
//
// The error wraps ErrReboot if the machine has to be restarted, and is a
// *fail.Error with a remedy if the file system is beyond an automatic repair.
func Prepare(ctx context.Context, c Choice, tools Tools, log *slog.Logger) (UROOT, error) {
	return newWorker(tools, log).prepare(ctx, c)
}

// worker carries one choice out.
type worker struct {
	Tools
	log    *slog.Logger
	kernel kernel

	// before is called ahead of every change to a disk, and writeAt makes those
	// that are ours; an error stops there. They are how tests pull the plug.
	before  func(what string) error
	writeAt func(f *os.File, data []byte, off int64) error
}

func newWorker(tools Tools, log *slog.Logger) *worker {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if tools.Exec == nil {
		tools.Exec = execute
	}
	if tools.Rand == nil {
		tools.Rand = rand.Reader
	}
	return &worker{
		Tools: tools, log: log, kernel: linux{tools.Roots},
		before: func(string) error { return nil },
		writeAt: func(f *os.File, data []byte, off int64) error {
			_, err := f.WriteAt(data, off)
			return err
		},
	}
}

func (w *worker) prepare(ctx context.Context, c Choice) (UROOT, error) {
	w.log.Info("preparing UROOT", "action", c.Action, "device", c.Device.title(), "disk", c.Disk.title(), "reason", c.Reason)
	switch c.Action {
	case RAM:
		return UROOT{RAM: true, Fresh: true, Size: c.Size}, nil
	case Reuse:
		return w.reuse(ctx, c)
	case Format:
		if err := w.repair(c.Disk); err != nil {
			return UROOT{}, err
		}
		return w.format(ctx, c.Disk, c.Device)
	case Partition:
		return w.partition(ctx, c)
	case Append:
		return w.appendTo(ctx, c)
	}
	return UROOT{}, fmt.Errorf("there is no action %q", c.Action)
}

// reuse checks an existing UROOT.
func (w *worker) reuse(ctx context.Context, c Choice) (UROOT, error) {
	path, err := w.kernel.node(ctx, c.Disk, c.Device)
	if err != nil {
		return UROOT{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return UROOT{}, fmt.Errorf("opening UROOT: %w", err)
	}
	now, err := probe.Read(f, c.Device.Size)
	if err = errors.Join(err, f.Close()); err != nil {
		return UROOT{}, fmt.Errorf("looking at UROOT on %s again: %w", path, err)
	}
	if now.UUID != c.Device.Content.UUID || now.Label != label {
		return UROOT{}, changed(path)
	}
	if err := w.check(ctx, path); err != nil {
		return UROOT{}, err
	}
	return UROOT{Device: path, Size: c.Device.Size, UUID: now.UUID}, nil
}

// check runs e2fsck, which replays the journal and repairs what it safely can.
func (w *worker) check(ctx context.Context, path string) error {
	out, code, err := w.Exec(ctx, []string{or(w.FsckExt4, "e2fsck"), "-p", path})
	if err != nil {
		return fmt.Errorf("checking the file system on %s: %w", path, err)
	}
	text := strings.TrimSpace(string(out))
	w.log.Info("checked UROOT", "device", path, "code", code, "output", text)
	switch {
	case code >= 4:
		return fail.New(fail.Failed, "the file system on %s needs a repair by hand (e2fsck code %d): %s", path, code, text).
			Hint("start the machine with the debug entry of the boot menu and run: e2fsck -f %s", path).
			Hint("or attach a blank disk in its place, if nothing on it is needed")
	case code&2 != 0:
		return fmt.Errorf("checking %s: %w", path, ErrReboot)
	}
	return nil
}

// partition makes a blank disk ours, and then its first partition a UROOT.
func (w *worker) partition(ctx context.Context, c Choice) (UROOT, error) {
	f, err := openExclusive(c.Disk.Path)
	if err != nil {
		return UROOT{}, err
	}
	defer f.Close()
	t, err := w.planFor(f, c)
	if err != nil {
		return UROOT{}, err
	}
	if err := w.write(f, writes(t)...); err != nil {
		return UROOT{}, err
	}
	part := ofEntry(c.Disk, t.Entries[0])
	if err := f.Close(); err != nil {
		return UROOT{}, fmt.Errorf("closing %s: %w", c.Disk.Path, err)
	}
	return w.format(ctx, c.Disk, part)
}

// planFor looks at the disk once more: it must still be blank, or half made.
func (w *worker) planFor(f *os.File, c Choice) (gpt.Table, error) {
	if t, ok, err := halfMade(f, c.Disk.Size, c.Disk.Sector); err != nil || ok {
		return t, err
	}
	now := Device{Kind: Disk, Size: c.Disk.Size, Sector: c.Disk.Sector}
	if err := now.look(f); err != nil {
		return gpt.Table{}, fmt.Errorf("looking at %s again: %w", c.Disk.Path, err)
	}
	if !now.Blank || len(now.Table.Entries) > 0 {
		return gpt.Table{}, changed(c.Disk.Path)
	}
	id, err := randomUUID(w.Rand)
	if err != nil {
		return gpt.Table{}, err
	}
	return plan(c.Disk.Size, c.Disk.Sector, id, c.Limited)
}

// appendTo adds a partition to the boot disk. The intent is written into the
// free space before the table speaks of it, so that there is no moment at which
// the partition exists and does not say whose it is.
func (w *worker) appendTo(ctx context.Context, c Choice) (UROOT, error) {
	d := c.Disk
	f, err := os.OpenFile(d.Path, os.O_RDWR|unix.O_CLOEXEC, 0) // not exclusively: its boot partition may be mounted
	if err != nil {
		return UROOT{}, fmt.Errorf("opening the boot disk: %w", err)
	}
	defer f.Close()
	now := Device{Kind: Disk, Size: d.Size, Sector: d.Sector, Boot: true}
	if err := errors.Join(now.look(f), now.space(f)); err != nil {
		return UROOT{}, fmt.Errorf("looking at %s again: %w", d.Path, err)
	}
	if now.Free != c.Free || !now.FreeBlank && !c.Forced {
		return UROOT{}, changed(d.Path)
	}
	mine, rest := c.Free, Extent{}
	if c.Limited && c.Free.Size > limit {
		mine.Size = limit
		rest = Extent{mine.Start + limit, c.Free.Size - limit}
	}
	if !now.FreeBlank {
		if err := w.wipe(f, mine); err != nil {
			return UROOT{}, err
		}
	}
	if err := w.write(f, gpt.Write{Offset: mine.Start + mine.Size - intentSize, Data: intent(mine.Start, mine.Size), What: "intent"}); err != nil {
		return UROOT{}, err
	}
	entry, err := w.addEntries(f, now, mine, rest)
	if err != nil {
		return UROOT{}, err
	}
	if err := f.Close(); err != nil {
		return UROOT{}, fmt.Errorf("closing %s: %w", d.Path, err)
	}
	return w.format(ctx, d, ofEntry(d, entry))
}

// repair writes the primary table of a boot disk again, from the backup, if an
// earlier appendTo was stopped between its two halves. The kernel does not look
// at a backup by itself.
func (w *worker) repair(d Device) error {
	if !d.Boot || d.Table.Scheme != gpt.GPT || d.Table.PrimaryOK || !d.Table.BackupOK {
		return nil
	}
	f, err := os.OpenFile(d.Path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the boot disk: %w", err)
	}
	return errors.Join(w.write(f, d.Table.Primary()...), f.Close())
}

// wipe clears the places of a piece of the disk where old signatures might be.
func (w *worker) wipe(f *os.File, piece Extent) error {
	zeros := make([]byte, 4*mib)
	return w.write(f,
		gpt.Write{Offset: piece.Start, Data: zeros, What: "zeros"},
		gpt.Write{Offset: piece.Start + piece.Size - int64(len(zeros)), Data: zeros, What: "zeros"})
}

func (w *worker) addEntries(f *os.File, d Device, mine, rest Extent) (gpt.Entry, error) {
	if d.Table.Scheme == gpt.MBR {
		return w.addMBR(f, d, mine, rest)
	}
	id, err := randomUUID(w.Rand)
	if err != nil {
		return gpt.Entry{}, err
	}
	t, err := d.Table.Relocated(d.Size)
	if err != nil {
		return gpt.Entry{}, err
	}
	if t, err = t.Add(gpt.Entry{Start: mine.Start / d.Sector, Sectors: mine.Size / d.Sector, Type: rootType(), ID: id, Name: label}); err != nil {
		return gpt.Entry{}, fmt.Errorf("adding UROOT to the boot disk: %w", err)
	}
	entry := t.Entries[len(t.Entries)-1]
	if rest.Size > 0 {
		if t, err = t.Add(gpt.Entry{Start: rest.Start / d.Sector, Sectors: rest.Size / d.Sector, Type: gpt.LinuxData, ID: derived(id, "rest"), Name: "rest"}); err != nil {
			return gpt.Entry{}, fmt.Errorf("adding the rest of the boot disk: %w", err)
		}
	}
	if err := w.write(f, t.Backup()...); err != nil {
		return gpt.Entry{}, err
	}
	return entry, w.write(f, t.Primary()...)
}

func (w *worker) addMBR(f *os.File, d Device, mine, rest Extent) (gpt.Entry, error) {
	boot := make([]byte, d.Sector)
	if _, err := f.ReadAt(boot, 0); err != nil {
		return gpt.Entry{}, fmt.Errorf("reading the MBR of the boot disk: %w", err)
	}
	boot, number, err := gpt.AddMBR(boot, mine.Start/d.Sector, mine.Size/d.Sector)
	if err != nil {
		return gpt.Entry{}, fmt.Errorf("adding UROOT to the boot disk: %w", err)
	}
	if rest.Size > 0 {
		if more, _, err := gpt.AddMBR(boot, rest.Start/d.Sector, rest.Size/d.Sector); err == nil {
			boot = more
		}
	}
	e := gpt.Entry{Number: number, Start: mine.Start / d.Sector, Sectors: mine.Size / d.Sector, Type: gpt.MBRLinux}
	return e, w.write(f, gpt.Write{Data: boot, What: "MBR"})
}

// format makes the file system on a partition, or a disk without partitions.
func (w *worker) format(ctx context.Context, disk, part Device) (UROOT, error) {
	path, err := w.kernel.node(ctx, disk, part)
	if err != nil {
		return UROOT{}, err
	}
	if err := w.claimPartition(path, part); err != nil {
		return UROOT{}, err
	}
	id, err := randomUUID(w.Rand)
	if err != nil {
		return UROOT{}, err
	}
	if err := w.before("mke2fs"); err != nil {
		return UROOT{}, err
	}
	argv := []string{
		or(w.MkfsExt4, "mke2fs"), "-F", "-q", "-t", "ext4", "-L", labelNew, "-U", id, "-O", "metadata_csum,64bit",
		"-E", "lazy_itable_init=1,lazy_journal_init=1,discard", "-m", "1", path, fmt.Sprintf("%dk", (part.Size-reserve)/1024),
	}
	out, code, err := w.Exec(ctx, argv)
	if err != nil {
		return UROOT{}, fmt.Errorf("making the file system on %s: %w", path, err)
	}
	if code != 0 {
		return UROOT{}, fail.New(fail.Failed, "making the file system on %s: mke2fs code %d: %s", path, code, strings.TrimSpace(string(out))).
			Hint("the disk may be failing; attach another one")
	}
	if err := w.finish(path, part, id); err != nil {
		return UROOT{}, err
	}
	return UROOT{Device: path, Fresh: true, Size: part.Size, UUID: id}, nil
}

// claimPartition looks once more, and then writes the intent.
func (w *worker) claimPartition(path string, part Device) error {
	f, err := openExclusive(path)
	if err != nil {
		return err
	}
	defer f.Close()
	now := Device{Kind: Part, Start: part.Start, Size: part.Size, Sector: part.Sector}
	if err := now.look(f); err != nil {
		return fmt.Errorf("looking at %s again: %w", path, err)
	}
	expected := now.Blank || now.Unfinished ||
		now.Content.Known() && part.Content.Known() && reflect.DeepEqual(now.Content, part.Content)
	if !expected {
		return changed(path)
	}
	return w.write(f, gpt.Write{Offset: part.Size - intentSize, Data: intent(part.Start, part.Size), What: "intent"})
}

// finish gives the file system its name, and then takes the intent away: from
// then on it is a UROOT.
func (w *worker) finish(path string, part Device, id string) error {
	f, err := openExclusive(path)
	if err != nil {
		return err
	}
	defer f.Close()
	now, err := probe.Read(f, part.Size)
	if err != nil {
		return fmt.Errorf("looking at the new file system on %s: %w", path, err)
	}
	if now.Type != "ext4" || now.UUID != id || now.Label != labelNew {
		return fail.New(fail.Failed, "%s does not hold what mke2fs was to write there", path).
			Hint("the disk loses what is written to it; attach another one")
	}
	super, err := relabelled(f, label)
	if err != nil {
		return err
	}
	return w.write(f,
		gpt.Write{Offset: 1024, Data: super, What: "label"},
		gpt.Write{Offset: part.Size - intentSize, Data: make([]byte, intentSize), What: "end of the intent"})
}

// write writes the pieces one after the other, each safely on the disk before
// the next.
func (w *worker) write(f *os.File, list ...gpt.Write) error {
	for _, one := range list {
		if err := w.before(one.What); err != nil {
			return err
		}
		if err := w.writeAt(f, one.Data, one.Offset); err != nil {
			return fmt.Errorf("writing the %s to %s: %w", one.What, f.Name(), err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("writing the %s to %s: %w", one.What, f.Name(), err)
		}
	}
	return nil
}

// openExclusive opens a device that nothing else uses: the kernel refuses it
// while it is mounted, swapped to, or part of another device.
func openExclusive(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s is in use: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	return f, nil
}

func changed(path string) error {
	return fail.New(fail.Conflict, "%s is not what it was a moment ago, and was left alone", path).
		Hint("see that no other machine or program uses the same disk, and start again")
}

// ofEntry is the device that a new table entry makes.
func ofEntry(d Device, e gpt.Entry) Device {
	return Device{
		Kind: Part, Parent: d.Name, Partition: e.Number, Start: e.Start * d.Sector, Size: e.Sectors * d.Sector,
		Sector: d.Sector, Type: e.Type, PartName: e.Name,
	}
}

func execute(ctx context.Context, argv []string) ([]byte, int, error) {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput() //nolint:gosec // an argument list of our own
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return out, exit.ExitCode(), nil
	}
	return out, 0, err
}
