package disk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/fail"
)

// SwapFile is the name of the swap file below UROOT.
//
// Compat: cernvm-config: etc/cernvm/cernvm.d/S35swap.sh.
const SwapFile = "swapfile"

const (
	swapPerCPU = 2 << 30
	keepFree   = 512 << 20 // for everything else on UROOT
	minSwap    = 1 << 20
)

// Swap is a wish for swap space.
type Swap struct {
	Size string    // swap_size: "4G", "512M", "auto"; empty or "off" for none
	CPUs int       // for "auto"
	Rand io.Reader // for the identifier; nil is crypto/rand
}

// Enable makes the swap file in dir, which has to be the root of UROOT, unless
// one of that size is there, and turns it on. It returns its length in bytes, 0
// if no swap is wanted.
func (s Swap) Enable(dir string) (int64, error) {
	size, err := s.Make(dir)
	if err != nil || size == 0 {
		return 0, err
	}
	path, err := unix.BytePtrFromString(filepath.Join(dir, SwapFile))
	if err != nil {
		return 0, err
	}
	_, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), 0, 0)
	if errno != 0 && errno != unix.EBUSY { // busy: it is on already
		return 0, fmt.Errorf("turning on the swap file: %w", errno)
	}
	return size, nil
}

// Make is Enable without turning it on.
func (s Swap) Make(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("looking at the file system of %s: %w", dir, err)
	}
	if st.Type != unix.EXT4_SUPER_MAGIC {
		return 0, fail.New(fail.HostLacks, "a swap file needs ext4, and %s is not on it", dir).
			Hint("leave swap_size out, or start with a disk for UROOT")
	}
	path := filepath.Join(dir, SwapFile)
	var have int64
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		have = info.Size()
	}
	free := int64(st.Bavail)*st.Bsize + have // the old one would make room
	size, err := s.bytes(free)
	if err != nil || size == 0 || size == have {
		return size, err
	}
	if size > free-keepFree {
		return 0, fail.New(fail.Failed, "a swap file of %s does not fit: UROOT has %s free, and %s must stay so", amount(size), amount(free), amount(keepFree)).
			Hint("ask for less with swap_size, or attach a larger disk")
	}
	return size, s.create(path, size)
}

// bytes is the length that is wished for, in whole pages.
func (s Swap) bytes(free int64) (int64, error) {
	page := int64(os.Getpagesize())
	switch text := strings.ToLower(strings.TrimSpace(s.Size)); text {
	case "", "off", "no", "0", "false":
		return 0, nil
	case "auto":
		// Compat: two gigabytes a CPU. Differs: never more than a quarter of what
		// is free, which a small disk could not spare.
		size := min(int64(max(s.CPUs, 1))*swapPerCPU, free/4) / page * page
		if size < minSwap {
			return 0, nil
		}
		return size, nil
	default:
		n, err := parseSize(text)
		if err != nil {
			return 0, fail.New(fail.Usage, "swap_size is %q: %w", s.Size, err).Hint("write a number with K, M or G, such as 4G, or auto")
		}
		if n = n / page * page; n < minSwap {
			return 0, fail.New(fail.Usage, "swap_size is %q, less than %s", s.Size, amount(minSwap)).Hint("write a size such as 4G, or auto")
		}
		return n, nil
	}
}

// parseSize reads the sizes that fallocate takes: K, M, G, T with or without
// "iB" are powers of 1024, with "B" alone powers of 1000.
func parseSize(text string) (int64, error) {
	i := 0
	for i < len(text) && text[i] >= '0' && text[i] <= '9' {
		i++
	}
	n, err := strconv.ParseInt(text[:i], 10, 64)
	if err != nil {
		return 0, errors.New("not a size")
	}
	unit, base := strings.TrimSpace(text[i:]), int64(1024)
	switch {
	case strings.HasSuffix(unit, "ib"):
		unit = strings.TrimSuffix(unit, "ib")
	case len(unit) == 2 && unit[1] == 'b':
		unit, base = unit[:1], 1000
	}
	power := strings.Index("kmgt", unit) + 1
	if unit == "" || unit == "b" {
		power = 0
	} else if len(unit) != 1 || power == 0 {
		return 0, errors.New("not a size")
	}
	for range power {
		if n > math.MaxInt64/base {
			return 0, errors.New("too large")
		}
		n *= base
	}
	return n, nil
}

// create writes the file beside its place and moves it there.
func (s Swap) create(path string, size int64) (err error) {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("making the swap file: %w", err)
	}
	f, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("making the swap file: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("making the swap file: %w", err)
			_ = f.Close()
			_ = os.Remove(next)
		}
	}()
	if err := allocate(f, size); err != nil {
		return err
	}
	id := make([]byte, 16)
	source := s.Rand
	if source == nil {
		source = rand.Reader
	}
	if _, err := io.ReadFull(source, id); err != nil {
		return err
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	if _, err := f.WriteAt(swapHeader(size, os.Getpagesize(), id), 0); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// allocate gives the file its blocks: the kernel refuses a swap file with holes.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zeros := make([]byte, mib)
	for off := int64(0); off < size; off += mib {
		if _, err := f.WriteAt(zeros[:min(mib, size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// swapHeader is the first page of a swap area, version 1 (linux/swap.h).
func swapHeader(size int64, page int, id []byte) []byte {
	h := make([]byte, page)
	le := binary.NativeEndian
	le.PutUint32(h[1024:], 1)
	le.PutUint32(h[1028:], uint32(min(size/int64(page)-1, math.MaxUint32)))
	copy(h[1036:], id)
	copy(h[page-10:], "SWAPSPACE2")
	return h
}
