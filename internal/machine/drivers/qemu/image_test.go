package qemu_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivers/qemu/fakeqemu"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/tier"
)

// convert makes the image of a machine of a raw disk, by qemu-img.
func convert(t *testing.T, s machine.Spec, disk []byte, options ...string) {
	t.Helper()
	program := tier.Tool(t, "qemu-img")
	raw := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"convert", "-f", "raw", "-O", s.Image.Format}, options...)
	if out, err := exec.CommandContext(t.Context(), program, append(args, raw, s.ImagePath())...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func imageSpec(t *testing.T, format string) machine.Spec {
	t.Helper()
	return machine.Spec{
		Name: "m", ID: "5f3c9a52-1111-4222-8333-444455556666", MemoryMiB: 64, CPUs: 1, DiskMiB: 64, Accel: "tcg", Dir: t.TempDir(),
		Image: machine.Image{Format: format, Path: "the image"},
	}
}

// TestDiskImage sees that a machine's disk has the content of its image, is
// grown where the machine is to have more, and is as large as the image where
// that is larger.
func TestDiskImage(t *testing.T) {
	t.Parallel()
	content := drivertest.BootDisk(drivertest.Guest{Says: "hello\r\n"})
	for _, tc := range []struct {
		name, format string
		options      []string
		size, want   int64 // MiB
	}{
		{"qcow2", "qcow2", nil, 1, 64},
		{"larger than asked for", "qcow2", nil, 65, 65},
		{"compressed", "qcow2", []string{"-c"}, 1, 64},
		{"vmdk", "vmdk", nil, 1, 64},
		{"stream", "vmdk", []string{"-o", "subformat=streamOptimized"}, 1, 64},
		{"vdi", "vdi", nil, 1, 64},
		{"vpc", "vpc", nil, 1, 64},
		{"fixed vpc", "vpc", []string{"-o", "subformat=fixed,force_size=on"}, 1, 64},
		{"raw", "raw", nil, 1, 64},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newFake(t)
			s := imageSpec(t, tc.format)
			disk := slices.Concat(content, make([]byte, (tc.size-1)<<20))
			convert(t, s, disk, tc.options...)
			i, err := d.Create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if i.Spec.DiskMiB != tc.want {
				t.Errorf("the machine has %d MiB of disk, want %d", i.Spec.DiskMiB, tc.want)
			}
			info, err := os.Stat(s.Path("disk.raw"))
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() != tc.want<<20 || info.Mode().Perm() != 0o600 {
				t.Errorf("the disk has %d bytes and mode %o, want %d MiB and 600", info.Size(), info.Mode().Perm(), tc.want)
			}
			got, err := os.ReadFile(s.Path("disk.raw"))
			if err != nil || !bytes.HasPrefix(got, content) || bytes.Count(got[len(content):], []byte{0}) != len(got)-len(content) {
				t.Errorf("the disk does not have the content of the image and zeros after it: %v", err)
			}
			if err := d.Destroy(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(s.Dir); len(left) != 1 { // the image, which is not the driver's
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestDiskImageRefused(t *testing.T) {
	t.Parallel()
	content := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(content)
	for format, options := range map[string][]string{"qcow2": nil, "vmdk": {"-o", "subformat=streamOptimized"}, "vdi": nil, "vpc": nil} {
		d := newFake(t)
		s := imageSpec(t, format)
		convert(t, s, content, options...)
		info, err := os.Stat(s.ImagePath())
		if err == nil {
			err = os.Truncate(s.ImagePath(), info.Size()/2)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Create(t.Context(), s); !fail.Is(err, fail.Unverified) {
			t.Errorf("Create of half an image in format %s = %v, want class Unverified", format, err)
		}
		if left, _ := os.ReadDir(s.Dir); len(left) != 1 {
			t.Errorf("left: %v", left)
		}
	}
}

// without is a computer that lacks one program.
type without struct{ program string }

func (w without) Run(ctx context.Context, c run.Command) (run.Result, error) {
	if c.Name == w.program {
		c.Name += "-which-is-not-here"
	}
	return run.Host{}.Run(ctx, c)
}

func TestWithoutQEMUImg(t *testing.T) {
	t.Parallel()
	d := qemu.New(machine.Env{Run: without{"qemu-img"}})
	s := imageSpec(t, "raw")
	err := d.(machine.Checker).Check(t.Context(), s)
	if !fail.Is(err, fail.HostLacks) || !strings.Contains(fmt.Sprint(fail.Hints(err)), "qemu-utils") {
		t.Errorf("Check = %v, hints %q; want class HostLacks and the package to install", err, fail.Hints(err))
	}
	s.Image.Format = ""
	if err := d.(machine.Checker).Check(t.Context(), s); err != nil {
		t.Errorf("Check of a machine with an ISO image = %v", err)
	}
}

// TestBootsDiskImage has the real QEMU boot disk images: one by virtio, one by
// SATA, as images of that format do.
func TestBootsDiskImage(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	tier.Tool(t, fakeqemu.Program)
	for format, options := range map[string][]string{"qcow2": nil, "vmdk": {"-o", "subformat=streamOptimized"}} {
		t.Run(format, func(t *testing.T) {
			d := qemu.New(machine.Env{})
			s := imageSpec(t, format)
			convert(t, s, drivertest.BootDisk(drivertest.Guest{}), options...)
			i, err := d.Create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := d.Destroy(context.Background(), i); err != nil {
					t.Error(err)
				}
			})
			if err := d.Start(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			var log []byte
			for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
				if log, err = d.(machine.Logger).Log(t.Context(), i, 0); err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(log, []byte("booted from the data disk")) {
					return
				}
			}
			t.Errorf("the guest says %q, want that it booted", log)
		})
	}
}
