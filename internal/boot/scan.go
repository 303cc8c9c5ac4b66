package boot

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/disk"
	"github.com/micavm/mica/internal/usercontext/source"
	"github.com/micavm/mica/internal/usercontext/source/vmware"
)

// How long the list of block devices must stay the same before it is believed,
// and how long disks may take to show up where rootdelay= does not say.
const (
	settleLook  = 300 * time.Millisecond
	slowestDisk = 5 * time.Second
)

// scanDevices waits for the block devices to settle, describes them, and looks
// for a context on media and in firmware.
func scanDevices(ctx context.Context, s *state, r *report) error {
	if err := settle(ctx, "/sys/class/block", settleLook, s.cmd.Seconds("rootdelay", slowestDisk)); err != nil {
		return fmt.Errorf("waiting for disks: %w", err)
	}
	devices, err := disk.Scan(ctx, disk.Roots{Sys: "/sys", Dev: "/dev"})
	if err != nil {
		return fmt.Errorf("looking at disks: %w", err)
	}
	s.devices = devices
	names := make([]string, 0, len(s.devices))
	for _, d := range s.devices {
		if d.Name != "" && d.Kind != disk.Virtual {
			names = append(names, d.Name)
		}
	}
	r.say("%s", strings.Join(names, " "))
	env := s.sourceEnv(nil)
	if s.local, err = source.FindLocal(ctx, env); err != nil {
		return fmt.Errorf("looking for a context on media: %w", err)
	}
	if s.extra, err = source.FindExtra(ctx, env); err != nil {
		return fmt.Errorf("looking for a context on the boot medium: %w", err)
	}
	if s.static, err = source.StaticNetwork(ctx, env); err != nil {
		return fmt.Errorf("looking for a static network: %w", err)
	}
	return nil
}

// settle waits until a folder lists something and has listed the same for
// quiet. At limit it returns as well: what is there must do.
func settle(ctx context.Context, dir string, quiet, limit time.Duration) error {
	began := time.Now()
	since := began
	var last []string
	for {
		var names []string
		entries, err := os.ReadDir(dir)
		if err == nil {
			for _, e := range entries {
				// loop0…7 and ram0 are there before any disk.
				if !strings.HasPrefix(e.Name(), "loop") && !strings.HasPrefix(e.Name(), "ram") {
					names = append(names, e.Name())
				}
			}
		}
		now := time.Now()
		if !slices.Equal(names, last) {
			last, since = names, now
		}
		if len(names) > 0 && now.Sub(since) >= quiet || now.Sub(began) >= limit {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// sourceEnv is what a search for a context may look at. Without client it keeps
// off the network.
func (s *state) sourceEnv(client sourceClient) source.Env {
	env := source.Env{
		Mounter: mounter{s},
		DMI:     source.ReadDMI("/sys"),
		Cmdline: s.cmd.String(),
		FWCfg:   "/sys/firmware/qemu_fw_cfg/by_name",
		Log:     s.log,

		GuestInfo: vmware.New(vmware.Open()),
	}
	env.Platform, _ = s.cmd.Get("cvm_platform")
	if client != nil {
		env.HTTP = client
	}
	for _, c := range s.configs {
		if c.Server.IsValid() {
			env.DHCPServer = c.Server
			break
		}
	}
	for _, d := range s.devices {
		if d.Path == "" || d.InUse && d.Kind == disk.Disk {
			continue
		}
		env.Devices = append(env.Devices, source.Device{
			Name: d.Name, Path: d.Path, Type: d.Content.Type, Label: d.Content.Label, Size: d.Size,
			Floppy: d.Kind == disk.Floppy, Boot: d.Boot,
		})
	}
	return env
}

// mounter opens media for the search.
type mounter struct{ s *state }

// Mount implements source.Mounter. Only file systems of media are mounted: they
// have no journal that a look would write to.
func (m mounter) Mount(_ context.Context, d source.Device) (fs.FS, func() error, error) {
	flags := uintptr(unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC)
	options := ""
	switch d.Type {
	case "iso9660", "udf":
	case "vfat":
		options = "iocharset=ascii"
	case "ext2", "ext3", "ext4":
		d.Type, options = "ext4", "noload" // never the journal of somebody's disk
	default:
		return nil, nil, fmt.Errorf("opening %s: a file system of type %q is not looked into", d.Path, d.Type)
	}
	m.s.load(d.Type)
	dir := filepath.Join(scanRoot, d.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("opening %s: %w", d.Path, err)
	}
	if err := unix.Mount(d.Path, dir, d.Type, flags, options); err != nil {
		_ = os.Remove(dir)
		return nil, nil, fmt.Errorf("mounting %s: %w", d.Path, err)
	}
	done := func() error {
		err := unix.Unmount(dir, 0)
		if err != nil {
			err = unix.Unmount(dir, unix.MNT_DETACH)
		}
		_ = os.Remove(dir)
		return err
	}
	return os.DirFS(dir), done, nil
}

// ReadRaw implements source.Mounter.
func (m mounter) ReadRaw(_ context.Context, d source.Device, limit int) ([]byte, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", d.Path, err)
	}
	defer f.Close()
	data := make([]byte, limit)
	n, err := f.ReadAt(data, 0)
	if n == 0 && err != nil {
		return nil, fmt.Errorf("reading %s: %w", d.Path, err)
	}
	return data[:n], nil
}
