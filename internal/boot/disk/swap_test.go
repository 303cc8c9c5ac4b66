package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

// TestSwapHeader compares with what mkswap writes.
func TestSwapHeader(t *testing.T) {
	tier.Full(t)
	file := filepath.Join(t.TempDir(), "swap")
	for _, size := range []int64{1 << 20, 5<<20 + 4096} {
		if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		const id = "01234567-89ab-4cde-8f01-23456789abcd"
		if out, err := exec.CommandContext(t.Context(), tier.Tool(t, "mkswap"), "-U", id, file).CombinedOutput(); err != nil {
			t.Fatalf("mkswap: %v: %s", err, out)
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := swapHeader(size, os.Getpagesize(), []byte("\x01\x23\x45\x67\x89\xab\x4c\xde\x8f\x01\x23\x45\x67\x89\xab\xcd"))
		if !bytes.Equal(got, want[:len(got)]) {
			t.Errorf("size %d: the header is not the one of mkswap", size)
		}
	}
}

func onExt4(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.EXT4_SUPER_MAGIC {
		t.Skip("the temporary directory is not on ext4")
	}
	return dir
}

func TestMakeSwap(t *testing.T) {
	dir := onExt4(t)
	s := Swap{Size: "2M", Rand: bytes.NewReader(make([]byte, 64))}
	for range 2 {
		if n, err := s.Make(dir); n != 2<<20 || err != nil {
			t.Fatalf("Make = %d, %v; want 2 MiB", n, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, SwapFile), &st); err != nil || st.Mode&0o777 != 0o600 || st.Blocks*512 < 2<<20 {
		t.Errorf("the file has mode %o and %d blocks, %v; want 0600 and no holes", st.Mode, st.Blocks, err)
	}
	if n, err := (Swap{Size: "100T"}).Make(dir); err == nil || len(fail.Hints(err)) == 0 {
		t.Errorf("Make of 100 TiB = %d, %v; want a refusal with a remedy", n, err)
	}
	if n, err := (Swap{Size: "3M"}).Make(dir); n != 3<<20 || err != nil {
		t.Errorf("Make of another size = %d, %v; want 3 MiB", n, err)
	}
}

func TestNoSwapOnUnion(t *testing.T) {
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil || st.Type == unix.EXT4_SUPER_MAGIC {
		t.Skip("there is no other file system than ext4 here")
	}
	if _, err := (Swap{Size: "2M"}).Make("/dev/shm"); !fail.Is(err, fail.HostLacks) {
		t.Errorf("Make on another file system = %v, want a refusal", err)
	}
}

func TestSwapSizes(t *testing.T) {
	const free = 100 * gib
	for _, tc := range []struct {
		text string
		want int64 // -1: refused
	}{
		{"", 0},
		{"off", 0},
		{"0", 0},
		{"auto", 4 * gib},
		{"AUTO", 4 * gib},
		{"4G", 4 * gib},
		{"512M", 512 << 20},
		{"4g", 4 * gib},
		{"1GiB", gib},
		{"10MB", 10_000_000 / 4096 * 4096},
		{"4194304", 4 << 20},
		{"1 G", gib},
		{"1T", 1 << 40},
		{"x", -1},
		{"-1G", -1},
		{"4Q", -1},
		{"4KM", -1},
		{"100", -1},
		{"99999999999999999999", -1},
		{"9000000000000G", -1},
	} {
		got, err := Swap{Size: tc.text, CPUs: 2}.bytes(free)
		if err != nil {
			got = -1
		}
		if got != tc.want {
			t.Errorf("swap_size %q = %d, %v; want %d", tc.text, got, err, tc.want)
		}
	}
	if got, err := (Swap{Size: "auto", CPUs: 64}).bytes(8 * gib); got != 2*gib || err != nil {
		t.Errorf("auto with 64 CPUs and 8 GiB free = %d, %v; want a quarter", got, err)
	}
}
