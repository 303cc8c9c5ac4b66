package boot

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/disk"
	"github.com/micavm/mica/internal/usercontext/source"
)

// prepareDisk makes a UROOT on the first boot, and on every boot does what the
// context and the administrator ask of it.
func prepareDisk(ctx context.Context, s *state, r *report) error {
	if !s.mounted {
		// Look again, longer: a disk that is to be formatted must not merely have
		// been quicker than the right one.
		wishes := s.preferences()
		wishes.Ephemeral = s.ephemeral(ctx)
		choice, devices, err := disk.Settle(ctx, disk.Roots{Sys: "/sys", Dev: "/dev"}, wishes, s.cmd.Seconds("rootdelay", slowestDisk), s.log)
		if err != nil {
			return err
		}
		s.devices = devices
		if err := s.mountChoice(ctx, choice, r); err != nil {
			return err
		}
	}
	return s.furnish(ctx, r)
}

// preferences are the wishes of the command line and the context about the disk.
func (s *state) preferences() disk.Preferences {
	p := disk.Preferences{
		UseEphemeral: s.cmd.Flag("use_ephemeral"),
		RAMRoot:      s.cmd.Flag("cvm_ramroot"),
		Memory:       memory(),
		Platform:     source.ReadDMI("/sys").Platform(),
	}
	if named, ok := s.cmd.Get("cvm_platform"); ok {
		p.Platform = named
	}
	p.UROOT, _ = s.cmd.Get("cvm_uroot")
	if prefer, _ := s.cmd.Get("uroot_prefer"); prefer == "local" {
		p.PreferLocal = true
	}
	if s.keys.UseBootHD != nil {
		p.UseBootHD = *s.keys.UseBootHD
	}
	// Compat: only an explicit "off" limits the size.
	if s.keys.ResizeRootfs != nil {
		p.Limited = !*s.keys.ResizeRootfs
	}
	return p
}

// ephemeral asks the platform which disks it gives to the machine for as long as
// it runs. Without an answer, such disks are no candidates.
func (s *state) ephemeral(ctx context.Context) []string {
	if !s.online() {
		return nil
	}
	names, err := source.EphemeralDevices(ctx, s.sourceEnv(source.NewClient()))
	if err != nil {
		s.rec.note("asking the platform for ephemeral disks: %v", err)
	}
	return names
}

func (s *state) diskTools() disk.Tools {
	return disk.Tools{
		MkfsExt4: tool("mke2fs"), FsckExt4: tool("e2fsck"), Resize2fs: tool("resize2fs"),
		Exec:  s.run,
		Roots: disk.Roots{Sys: "/sys", Dev: "/dev"},
	}
}

// tool finds a program of the image.
func tool(name string) string {
	for _, dir := range filepath.SplitList(searchPath) {
		file := filepath.Join(dir, name)
		if fi, err := os.Stat(file); err == nil && fi.Mode().Perm()&0o111 != 0 {
			return file
		}
	}
	return name
}

// memory is the size of RAM in bytes.
func memory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}
