package qemu_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/qemu"
	"github.com/micavm/mica/internal/machine/drivers/qemu/fakeqemu"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

// TestBootsTheImage sees that a data disk that looks bootable is not booted
// from: guests put what they like on it.
func TestBootsTheImage(t *testing.T) {
	t.Parallel()
	tier.Full(t)
	tier.Tool(t, fakeqemu.Program)
	d := qemu.New(machine.Env{})
	i := fresh(t, d, "tcg")
	disk, err := os.OpenFile(i.Spec.Path("disk.raw"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Write(drivertest.DataSector()); err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	says := func(image string) string {
		if err := d.Start(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
			log, err := d.(machine.Logger).Log(t.Context(), i, 0)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(log), "#") {
				if err := d.Stop(t.Context(), i, machine.PowerOff); err != nil {
					t.Fatal(err)
				}
				return string(log)
			}
		}
		t.Fatalf("%s: the guest says nothing", image)
		return ""
	}
	if got := says("bootable image"); !strings.Contains(got, "hello") || strings.Contains(got, "data disk") {
		t.Errorf("the guest says %q, want that of the image", got)
	}
	// That the disk would boot, if the image did not, is what makes this a test.
	if err := os.WriteFile(i.Spec.ImagePath(), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := says("empty image"); !strings.Contains(got, "booted from the data disk") {
		t.Errorf("the guest says %q, want that of the disk", got)
	}
}

func TestArgs(t *testing.T) {
	t.Parallel()
	s := machine.Spec{Name: "m", ID: "5f3c9a52-1111-4222-8333-444455556666", MemoryMiB: 2048, CPUs: 4, Dir: "/x,y", Forwards: []machine.Forward{{Host: 2222, Guest: 22}, {Host: 8080, Guest: 80}}}
	args := qemu.Args(s)
	for _, want := range [][]string{
		{"-accel", "tcg,thread=multi"},
		{"-smp", "4", "-m", "2048"},
		{"-netdev", "user,id=net0,hostname=m,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.0.0.1:8080-:80"},
		{"-blockdev", `{"driver":"raw","node-name":"disk","read-only":false,"discard":"unmap","file":{"driver":"file","filename":"/x,y/disk.raw"}}`},
		{"-chardev", "socket,id=serial0,path=serial.sock,server=on,wait=off,logappend=on,logfile=/x,,y/serial.log"},
	} {
		if n := slices.Index(args, want[1]); n < 1 || !slices.Equal(args[n-1:n-1+len(want)], want) {
			t.Errorf("arguments lack %q:\n%q", want, args)
		}
	}
}
