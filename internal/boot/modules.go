package boot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/modules"
	"github.com/micavm/mica/internal/fail"
)

// always are modules that no hardware asks for. What a kernel has built in, or an
// image leaves out, is passed over.
var always = []string{
	"virtio_pci", "virtio_mmio", "overlay", "fuse", "ext4", "crc32c_generic", "crc32c_intel",
	"isofs", "udf", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859_1",
	"sd_mod", "sr_mod", "loop", "virtio_rng", "af_packet",
}

// loadModules loads the fixed list, what /etc/modules of the image names, and
// the drivers of the hardware that is there. It then keeps listening for
// hardware that shows up later.
func loadModules(ctx context.Context, s *state, r *report) error {
	release, err := kernelRelease()
	if err != nil {
		return err
	}
	dir := filepath.Join("/lib/modules", release)
	loader, err := modules.NewLoader(dir)
	if err != nil {
		return fail.New(fail.NotFound, "the image has no modules for kernel %s: %w", release, err).
			Hint("boot the kernel that the image was built with")
	}
	events, err := modules.Listen()
	if err != nil {
		s.rec.note("hardware that shows up late gets no driver: %v", err)
	}
	var errs []error
	s.loadMu.Lock()
	s.loader = loader
	names := append(append([]string(nil), always...), listedModules("/etc/modules")...)
	for _, name := range names {
		if err := loader.Load(name); err != nil && !errors.Is(err, modules.ErrUnknown) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, loader.Coldplug(ctx, "/sys")...)
	loaded := len(loader.Loaded())
	s.loadMu.Unlock()
	if events != nil {
		// The listener belongs to the boot: it ends with the context of all stages.
		go func() {
			defer events.Close() //nolint:errcheck // a socket that is no longer needed
			_ = events.Each(ctx, func(alias string) { s.load(alias) })
		}()
	}
	r.say("%d modules for %s", loaded, release)
	if err := errors.Join(errs...); err != nil {
		return warned(err)
	}
	return nil
}

// listedModules reads a list of names, one on a line, with # comments.
func listedModules(file string) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var names []string
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		line, _, _ := strings.Cut(scan.Text(), "#")
		names = append(names, strings.Fields(line)...)
	}
	return names
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("asking the kernel for its version: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}
