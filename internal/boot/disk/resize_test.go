package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

// TestGrow makes a UROOT, makes its disk larger, and grows it.
func TestGrow(t *testing.T) {
	tier.Full(t)
	tier.Tool(t, "resize2fs")
	for name, scheme := range map[string]gpt.Scheme{"own disk": gpt.None, "boot GPT": gpt.GPT, "boot MBR": gpt.MBR} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			var path string
			if scheme == gpt.None {
				path = m.disk("sda", diskSize)
			} else {
				path = m.image("sda", scheme, diskSize)
			}
			_, u, err := m.boot(Preferences{}, m.worker())
			m.must(err)
			m.down()
			const larger = 2*diskSize + 12345*512
			m.must(os.Truncate(path, larger))
			d := Device{Name: "sda", Path: path, Kind: Disk, Size: larger, Sector: 512}
			p := m.partitionNamed(d)
			p.Path, err = m.node(t.Context(), d, p)
			m.must(err)

			w := m.worker()
			kernel := &growing{machine: m}
			w.kernel = kernel
			grown, err := w.grow(t.Context(), d, p)
			if err != nil || grown.From != u.Size || p.Start+grown.To < larger-3*mib || kernel.told != grown.To {
				t.Fatalf("grow = %+v (kernel told %d), %v; want from %d to nearly %d", grown, kernel.told, err, u.Size, larger)
			}
			m.down()
			if scheme != gpt.MBR {
				if out := m.run("sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
					t.Errorf("sgdisk -v: %s", out)
				}
			}
			p = m.partitionNamed(d)
			if p.Size != grown.To || p.Content.Size < grown.To-2*mib {
				t.Errorf("partition has %d bytes, its file system %d; want %d", p.Size, p.Content.Size, grown.To)
			}
			again, err := w.growPartitionOf(d, p)
			if err != nil || again != p.Size {
				t.Errorf("growing once more = %d, %v; want %d", again, err, p.Size)
			}
		})
	}
}

// partitionNamed finds UROOT on the disk.
func (m *machine) partitionNamed(d Device) Device {
	m.t.Helper()
	f, err := os.Open(d.Path)
	m.must(err)
	defer f.Close()
	m.must(d.look(f))
	for _, p := range d.match(nil) {
		m.must(p.look(sectionOf(f, p)))
		if p.Content.Label == label {
			return p
		}
	}
	m.t.Fatalf("no UROOT on %s: %+v", d.Path, d.Table)
	return Device{}
}

func (w *worker) growPartitionOf(d, p Device) (int64, error) {
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	n, err := w.growPartition(f, d, p)
	return n, errors.Join(err, f.Close())
}

// growing is a kernel whose partition really grows when it is told.
type growing struct {
	*machine
	told int64
}

func (g *growing) resize(d, p Device) error {
	g.told = p.Size
	piece, err := g.node(context.Background(), d, p)
	return errors.Join(err, os.Truncate(piece, p.Size))
}

func TestNotLast(t *testing.T) {
	m := newMachine(t)
	path := m.disk("sda", 64*mib)
	table, err := gpt.New(64*mib, 512, derived("", "x"))
	m.must(err)
	for i := range int64(2) {
		table, err = table.Add(gpt.Entry{Start: (1 + 10*i) * 2048, Sectors: 2048, Type: gpt.LinuxData, ID: derived("", "y")})
		m.must(err)
	}
	for _, w := range writes(table) {
		m.write(path, w.Offset, w.Data)
	}
	before := m.digest(path)
	d := Device{Path: path, Size: 64 * mib, Sector: 512}
	if _, err := m.worker().growPartitionOf(d, Device{Path: "sda1", Partition: 1, Start: mib, Size: mib}); !fail.Is(err, fail.Conflict) {
		t.Errorf("growing partition 1 of 2 = %v, want a conflict", err)
	}
	if m.digest(path) != before {
		t.Error("the table was written to")
	}
}

func TestResizeFlagCounts(t *testing.T) {
	root := t.TempDir()
	flag := filepath.Join(root, ResizeFlag)
	if g, err := ResizeIfAsked(t.Context(), root, "/nowhere", Tools{}, nil); err != nil || g.Asked {
		t.Fatalf("without a flag: %+v, %v", g, err)
	}
	if err := errors.Join(os.Mkdir(filepath.Dir(flag), 0o700), os.WriteFile(flag, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{"failures=1\n", "failures=2\n", "failures=3\n", "failures=3\n"} {
		_, err := ResizeIfAsked(t.Context(), root, "/nowhere", Tools{}, nil)
		got, readErr := os.ReadFile(flag)
		if err == nil || readErr != nil || string(got) != want {
			t.Errorf("try %d: %v, flag %q, %v; want an error and %q", n+1, err, got, readErr, want)
		}
		if gaveUp := len(fail.Hints(err)) > 0; gaveUp != (n == 3) {
			t.Errorf("try %d: %v; gave up: %v", n+1, err, gaveUp)
		}
	}
}
