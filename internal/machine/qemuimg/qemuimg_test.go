package qemuimg_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine/qemuimg"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/tier"
)

func TestFill(t *testing.T) {
	program := tier.Tool(t, "qemu-img")
	do := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %q: %v\n%s", args, err, out)
		}
	}
	content := bytes.Repeat([]byte("content "), 1<<14)
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk, with=a comma.raw")
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	tool := qemuimg.Tool{Run: run.Host{}}
	if err := tool.Usable(t.Context()); err != nil {
		t.Errorf("Usable = %v, want nil", err)
	}
	for _, format := range []string{"raw", "qcow2", "vmdk", "vdi", "vpc"} {
		image := qemuimg.Image{Path: filepath.Join(dir, "image."+format), Format: format, Name: "the image"}
		do("convert", "-f", "raw", "-O", format, raw, image.Path)
		size, err := tool.Size(t.Context(), image)
		if err != nil || size < int64(len(content)) || size > 1<<20 {
			t.Errorf("Size of %s = %d, %v; want about %d", format, size, err, len(content))
		}
		if err := tool.Whole(t.Context(), image); err != nil {
			t.Errorf("Whole of %s = %v, want nil", format, err)
		}
		to := qemuimg.Image{Path: filepath.Join(dir, "to.qcow2"), Format: "qcow2"}
		do("create", "-q", "-f", "qcow2", to.Path, "2M")
		if err := tool.Fill(t.Context(), to, image); err != nil {
			t.Errorf("Fill from %s = %v", format, err)
		}
		back := filepath.Join(dir, "back.raw")
		do("convert", "-f", "qcow2", "-O", "raw", to.Path, back)
		if got, err := os.ReadFile(back); err != nil || len(got) != 2<<20 || !bytes.HasPrefix(got, content) {
			t.Errorf("Fill from %s wrote %d bytes, %v; want 2 MiB that begin with the content", format, len(got), err)
		}
	}
}

func TestDamaged(t *testing.T) {
	program := tier.Tool(t, "qemu-img")
	tool := qemuimg.Tool{Run: run.Host{}}
	image := qemuimg.Image{Path: filepath.Join(t.TempDir(), "d.qcow2"), Format: "qcow2", Name: "download"}
	if out, err := exec.CommandContext(t.Context(), program, "create", "-q", "-f", "qcow2", "-o", "preallocation=full", image.Path, "1M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Truncate(image.Path, 200<<10); err != nil {
		t.Fatal(err)
	}
	if err := tool.Whole(t.Context(), image); !fail.Is(err, fail.Unverified) || !strings.Contains(err.Error(), "download") {
		t.Errorf("Whole of half an image = %v, want class Unverified and its name", err)
	}
	if err := os.WriteFile(image.Path, []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tool.Size(t.Context(), image); !fail.Is(err, fail.Unverified) || len(fail.Hints(err)) == 0 {
		t.Errorf("Size of something else = %v, hints %q; want class Unverified and a hint", err, fail.Hints(err))
	}
}

func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := (qemuimg.Tool{Run: run.Host{}}).Usable(t.Context()); !fail.Is(err, fail.HostLacks) || len(fail.Hints(err)) == 0 {
		t.Errorf("Usable without qemu-img = %v, hints %q; want class HostLacks and a hint", err, fail.Hints(err))
	}
}
