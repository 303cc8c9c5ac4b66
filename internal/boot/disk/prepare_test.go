package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

const diskSize = minDisk + 100*mib

// verify checks a prepared machine with programs that are not ours: the table,
// the file system, its label, and that a second boot uses it as it is.
func (m *machine) verify(p Preferences, u UROOT) {
	m.t.Helper()
	out := m.run("e2fsck", "-f", "-n", u.Device)
	if !strings.Contains(out, "UROOT") {
		m.t.Errorf("e2fsck does not say UROOT: %s", out)
	}
	if out := m.run("blkid", "-p", "-o", "export", u.Device); !strings.Contains(out, "LABEL=UROOT\n") || !strings.Contains(out, "UUID="+u.UUID) {
		m.t.Errorf("blkid says %s, want label UROOT and UUID %s", out, u.UUID)
	}
	if out := m.run("dumpe2fs", "-h", u.Device); !strings.Contains(out, "metadata_csum") || !strings.Contains(out, "64bit") || !strings.Contains(out, "Checksum type:            crc32c") {
		m.t.Errorf("dumpe2fs -h misses features: %s", out)
	}
	m.down()
	c, again, err := m.boot(p, m.worker())
	if err != nil || c.Action != Reuse || again.Fresh || again.UUID != u.UUID {
		m.t.Errorf("second boot: %s %+v, %v; want reuse of %s", c.Action, again, err, u.UUID)
	}
	m.down()
}

func TestPrepare(t *testing.T) {
	tier.Full(t)
	tier.Tool(t, "mke2fs")
	for _, tc := range []struct {
		name string
		set  func(m *machine) string // returns the disk
		p    Preferences
		want Action
	}{
		{"blank disk", func(m *machine) string { return m.disk("sda", diskSize) }, Preferences{}, Partition},
		{"nvme", func(m *machine) string { return m.disk("nvme0n1", diskSize) }, Preferences{}, Partition},
		{"odd size", func(m *machine) string { return m.disk("sda", diskSize+777*512) }, Preferences{}, Partition},
		{"limited", func(m *machine) string { return m.disk("sda", 24*gib) }, Preferences{Limited: true}, Partition},
		{"blank partition", func(m *machine) string {
			path := m.disk("sda", diskSize)
			cmd := exec.CommandContext(m.t.Context(), tier.Tool(m.t, "sfdisk"), "-q", path)
			cmd.Stdin = strings.NewReader("label: dos\nsize=100M,type=82\ntype=83\n")
			out, err := cmd.CombinedOutput()
			if err != nil {
				m.t.Fatalf("sfdisk: %v: %s", err, out)
			}
			m.attributes(m.roots.Sys+"/block/sda/sda2", map[string]string{
				"partition": "2", "start": fmt.Sprint(101 * 2048), "size": fmt.Sprint(diskSize/512 - 101*2048), "dev": "8:2",
			})
			return path
		}, Preferences{}, Format},
		{"boot disk GPT", func(m *machine) string { return m.image("sda", gpt.GPT, diskSize) }, Preferences{}, Append},
		{"boot disk MBR", func(m *machine) string { return m.image("sda", gpt.MBR, diskSize) }, Preferences{}, Append},
		{"boot disk limited", func(m *machine) string { return m.image("sda", gpt.GPT, 24*gib) }, Preferences{Limited: true}, Append},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			path := tc.set(m)
			c, u, err := m.boot(tc.p, m.worker())
			if err != nil || c.Action != tc.want || !u.Fresh {
				t.Fatalf("boot = %s %+v, %v; want a fresh one by %s", c.Action, u, err, tc.want)
			}
			m.verify(tc.p, u)
			if tc.want != Format && !strings.HasSuffix(tc.name, "MBR") {
				if out := m.run("sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
					t.Errorf("sgdisk -v: %s", out)
				}
			}
			out := m.run("sfdisk", "--json", path)
			if tc.p.Limited && (!strings.Contains(out, fmt.Sprintf(`"size": %d`, limit/512)) || !strings.Contains(out, `"rest"`)) {
				t.Errorf("sfdisk shows no partition of 20 GiB and the rest: %s", out)
			}
		})
	}
}

// onEC2 are preferences that let a listed ephemeral disk be used.
var onEC2 = Preferences{Platform: "ec2", Ephemeral: []string{"sdb"}}

var errPlug = errors.New("somebody pulled the plug")

// TestPulledPlug stops the first boot at every change, before it and in the
// middle of it, and then boots again: the second boot must finish the work.
func TestPulledPlug(t *testing.T) {
	tier.Full(t)
	tier.Tool(t, "mke2fs")
	for name, set := range map[string]func(m *machine){
		"blank disk": func(m *machine) { m.disk("sda", diskSize) },
		"boot GPT":   func(m *machine) { m.image("sda", gpt.GPT, diskSize) },
		"boot MBR":   func(m *machine) { m.image("sda", gpt.MBR, diskSize) },
		"ephemeral":  func(m *machine) { m.run("mke2fs", "-q", "-F", "-t", "ext3", m.disk("xvdb", diskSize)) },
	} {
		t.Run(name, func(t *testing.T) {
			steps := countSteps(t, set)
			for n := range steps {
				for _, torn := range []bool{false, true} {
					m := newMachine(t)
					set(m)
					what := m.pull(n, torn)
					m.down()
					_, u, err := m.boot(onEC2, m.worker())
					if err != nil {
						t.Fatalf("stopped at %s (torn %v), the next boot: %v", what, torn, err)
					}
					m.verify(onEC2, u)
				}
			}
		})
	}
}

// pull boots until change number n, which it stops before or in the middle.
func (m *machine) pull(n int, torn bool) (what string) {
	m.t.Helper()
	w := m.worker()
	seen, now := 0, ""
	w.before = func(name string) error {
		now = name
		seen++
		if seen-1 == n && !torn {
			return errPlug
		}
		return nil
	}
	write := w.writeAt
	w.writeAt = func(f *os.File, data []byte, off int64) error {
		if seen-1 == n {
			half := (len(data) / 2) &^ 511 // disks write whole sectors
			return errors.Join(errPlug, write(f, data[:half], off))
		}
		return write(f, data, off)
	}
	run := w.Exec
	w.Exec = func(ctx context.Context, argv []string) ([]byte, int, error) {
		if seen-1 != n {
			return run(ctx, argv)
		}
		// In the middle of mke2fs: some of its structures are there, the
		// superblock, which it writes last, is not.
		if out, code, err := run(ctx, argv); err != nil || code != 0 {
			m.t.Fatalf("mke2fs: %v, code %d: %s", err, code, out)
		}
		path := argv[len(argv)-2]
		m.write(path, 0, make([]byte, 4096))
		return nil, 0, errPlug
	}
	_, _, err := m.boot(onEC2, w)
	if !errors.Is(err, errPlug) {
		m.t.Fatalf("boot that stops at %s (torn %v) = %v", now, torn, err)
	}
	return now
}

func countSteps(t *testing.T, set func(*machine)) int {
	t.Helper()
	m := newMachine(t)
	set(m)
	w := m.worker()
	var steps []string
	w.before = func(what string) error { steps = append(steps, what); return nil }
	if _, _, err := m.boot(onEC2, w); err != nil {
		t.Fatalf("boot = %v", err)
	}
	for _, want := range []string{"intent", "mke2fs", "label", "end of the intent"} {
		if !slices.Contains(steps, want) {
			t.Fatalf("steps are %q, want %q among them", steps, want)
		}
	}
	return len(steps)
}

// TestKilledMke2fs kills the real mke2fs at several moments.
func TestKilledMke2fs(t *testing.T) {
	tier.Full(t)
	tier.Tool(t, "mke2fs")
	for _, after := range []string{"0.005", "0.02", "0.05"} {
		m := newMachine(t)
		m.disk("sda", diskSize)
		w := m.worker()
		w.Exec = func(ctx context.Context, argv []string) ([]byte, int, error) {
			_ = exec.CommandContext(ctx, "timeout", append([]string{"-s", "KILL", after}, argv...)...).Run() //nolint:gosec // a test
			return nil, 0, errPlug
		}
		if _, _, err := m.boot(Preferences{}, w); !errors.Is(err, errPlug) {
			t.Fatalf("boot = %v", err)
		}
		m.down()
		_, u, err := m.boot(Preferences{}, m.worker())
		if err != nil {
			t.Fatalf("killed after %s s, the next boot: %v", after, err)
		}
		m.verify(Preferences{}, u)
	}
}

// TestIntentIsNoLicence: the record of an unfinished UROOT gives no right to a
// partition that somebody has used since.
func TestIntentIsNoLicence(t *testing.T) {
	tier.Full(t)
	for name, use := range map[string]func(m *machine, piece string){
		"another file system": func(m *machine, piece string) { m.run("mke2fs", "-q", "-F", "-L", "data", piece, "900m") },
		"swap":                func(m *machine, piece string) { m.run("mkswap", piece) },
		"mounted once":        func(m *machine, piece string) { m.run("tune2fs", "-C", "1", piece) },
		"another place":       func(m *machine, piece string) { m.write(piece, diskSize-2*mib-4096, intent(5*mib, 7*mib)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			path := m.disk("sda", diskSize)
			w := m.worker()
			w.before = func(what string) error {
				if what == "end of the intent" {
					return errPlug
				}
				return nil
			}
			if _, _, err := m.boot(Preferences{}, w); !errors.Is(err, errPlug) {
				t.Fatalf("boot = %v", err)
			}
			piece, err := m.node(t.Context(), Device{Path: path}, Device{Kind: Part, Start: mib})
			m.must(err)
			use(m, piece)
			m.down()
			before := m.digest(path)
			c, u, err := m.boot(Preferences{}, m.worker())
			m.down()
			if name == "mounted once" || name == "another place" { // it is a UROOT, and is used as one
				if err != nil || u.Fresh {
					t.Errorf("boot = %s %+v, %v; want reuse", c.Action, u, err)
				}
				return
			}
			if err == nil {
				t.Errorf("boot = %s %+v, want a refusal", c.Action, u)
			}
			if after := m.digest(path); after != before {
				t.Error("the disk was written to")
			}
		})
	}
}

// TestForeignDisks attaches one disk of each kind that real programs make: the
// machine must refuse to start, and not one byte may change.
func TestForeignDisks(t *testing.T) {
	tier.Full(t)
	for name, argv := range map[string][]string{
		"ext4 without table": {"mke2fs", "-q", "-F", "-t", "ext4", "@"},
		"xfs":                {"mkfs.xfs", "-q", "@"},
		"btrfs":              {"mkfs.btrfs", "-q", "@"},
		"vfat":               {"mkfs.vfat", "@"},
		"ntfs":               {"mkntfs", "-q", "-F", "-f", "@"},
		"swap":               {"mkswap", "-q", "@"},
		"f2fs":               {"mkfs.f2fs", "-q", "@"},
		"noise at 700 MiB":   {"dd", "if=/dev/urandom", "of=@", "bs=1M", "count=5", "seek=700", "conv=notrunc", "status=none"},
		"text at the end":    {"dd", "if=/etc/os-release", "of=@", "bs=512", "seek=" + fmt.Sprint(diskSize/512-2), "conv=notrunc", "status=none"},
		"byte in MiB two":    {"dd", "if=/etc/os-release", "of=@", "bs=1", "count=1", "seek=1500000", "conv=notrunc", "status=none"},
		"wiped first table":  {"sh", "-c", `sgdisk -n 1 "$0" >/dev/null && dd if=/dev/zero of="$0" bs=1M count=1 conv=notrunc status=none`, "@"},
		"GPT, odd types":     {"sgdisk", "-n", "1:0:+200M", "-t", "1:a504", "-n", "2:0:0", "-t", "2:bf01", "@"},
		"MBR, LVM type":      {"sh", "-c", `echo type=8e | sfdisk -q "$0"`, "@"},
		"damaged GPT":        {"sh", "-c", `sgdisk -n 1 "$0" >/dev/null && dd if=/dev/urandom of="$0" bs=512 seek=1 count=1 conv=notrunc status=none && dd if=/dev/urandom of="$0" bs=512 seek=` + fmt.Sprint(diskSize/512-1) + ` conv=notrunc count=1 status=none`, "@"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			path := m.disk("sda", diskSize)
			args := slices.Clone(argv[1:])
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "@", path)
			}
			tier.Tool(t, argv[0])
			m.run(argv[0], args...)
			before := m.digest(path)
			c, u, err := m.boot(Preferences{UseBootHD: true, UseEphemeral: true, Platform: "ec2", Ephemeral: []string{"sdb"}}, m.worker())
			if err == nil {
				t.Errorf("boot = %s %+v, want a refusal", c.Action, u)
			}
			if after := m.digest(path); after != before {
				t.Error("the disk was written to")
			}
		})
	}
}

// TestChangedMeanwhile writes to a device between the choice and the work.
func TestChangedMeanwhile(t *testing.T) {
	for _, off := range []int64{0, mib + 5, diskSize - 600} {
		m := newMachine(t)
		path := m.disk("sda", diskSize)
		devices, err := Scan(t.Context(), m.roots)
		m.must(err)
		c, err := Choose(devices, Preferences{})
		m.must(err)
		m.write(path, off, []byte("somebody else's"))
		if _, err := m.worker().prepare(t.Context(), c); !fail.Is(err, fail.Conflict) {
			t.Errorf("prepare with data at %d = %v, want a conflict", off, err)
		}
	}
}

func TestCheckCodes(t *testing.T) {
	for _, tc := range []struct {
		code     int
		ok       bool
		reboot   bool
		remedied bool
	}{{0, true, false, false}, {1, true, false, false}, {2, false, true, false}, {3, false, true, false}, {4, false, false, true}, {8, false, false, true}, {12, false, false, true}, {128, false, false, true}} {
		w := newWorker(Tools{Exec: func(context.Context, []string) ([]byte, int, error) { return []byte("UROOT: text\n"), tc.code, nil }}, nil)
		err := w.check(t.Context(), "/dev/sda1")
		if (err == nil) != tc.ok || errors.Is(err, ErrReboot) != tc.reboot || (len(fail.Hints(err)) > 0) != tc.remedied {
			t.Errorf("code %d: %v, hints %q", tc.code, err, fail.Hints(err))
		}
	}
}

// TestRelabel compares with what tune2fs writes.
func TestRelabel(t *testing.T) {
	tier.Full(t)
	m := newMachine(t)
	for _, features := range []string{"metadata_csum,64bit", "^metadata_csum"} {
		path := m.disk("sda", 64*mib)
		m.run("mke2fs", "-q", "-F", "-t", "ext4", "-O", features, "-L", labelNew, path)
		f, err := os.Open(path)
		m.must(err)
		got, err := relabelled(f, label)
		m.must(errors.Join(err, f.Close()))
		m.run("tune2fs", "-L", label, path)
		data, err := os.ReadFile(path)
		m.must(err)
		want := data[1024:2048]
		// tune2fs also notes when it wrote, which the checksum covers.
		copy(got[48:52], want[48:52])
		var again []byte
		if again, err = relabelled(bytes.NewReader(append(make([]byte, 1024), want...)), label); err != nil {
			t.Fatalf("%s: %v", features, err)
		}
		if !bytes.Equal(again, want) || !bytes.Equal(got[:1020], want[:1020]) {
			t.Errorf("%s: the superblock is not the one of tune2fs", features)
		}
	}
}
