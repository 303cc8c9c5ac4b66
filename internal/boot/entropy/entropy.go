package entropy

import (
	"context"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ready reports whether the kernel's random numbers can be had without waiting.
func Ready() bool {
	var b [1]byte
	_, err := unix.Getrandom(b[:], unix.GRND_NONBLOCK)
	return !errors.Is(err, unix.EAGAIN)
}

// Wait waits until random numbers can be had, or ctx ends, and reports which.
func Wait(ctx context.Context) bool {
	for !Ready() {
		select {
		case <-ctx.Done():
			return Ready()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true
}

const (
	bits       = 256 // what a pool needs to count as filled
	perBit     = 64  // samples that pass the stuck test for one bit
	mostFailed = 9   // of ten samples may fail, then the clock is too coarse
)

// ErrNoJitter says that the clock shows no jitter to speak of.
var ErrNoJitter = errors.New("the clock is too coarse to measure anything random")

// Jitter measures until it has enough, and returns a digest of it all. clock
// gives the time in nanoseconds, or any finer unit.
func Jitter(ctx context.Context, clock func() int64) ([]byte, error) {
	const want = bits * perBit
	memory := make([]byte, 64<<10) // more than a first-level cache
	var digest [sha512.Size]byte
	var last, lastDelta, lastDelta2 int64
	place := 0
	for passed, failed := 0, 0; passed < want; {
		if failed > want*mostFailed {
			return nil, ErrNoJitter
		}
		if (passed+failed)%1024 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		for range 32 { // touch memory at places that depend on what was measured
			place = (place*1103515245 + 12345 + int(digest[0])) & (len(memory) - 1)
			memory[place]++
		}
		now := clock()
		delta := now - last
		delta2 := delta - lastDelta
		// Stuck: the time, its change, or the change of its change did not move.
		if delta == 0 || delta2 == 0 || delta2-lastDelta2 == 0 {
			failed++
		} else {
			passed++
		}
		last, lastDelta, lastDelta2 = now, delta, delta2
		var sample [sha512.Size + 9]byte
		copy(sample[:], digest[:])
		binary.LittleEndian.PutUint64(sample[sha512.Size:], uint64(now))
		sample[sha512.Size+8] = memory[place]
		digest = sha512.Sum512(sample[:])
	}
	return digest[:], nil
}

// Seed measures jitter and credits it to the kernel's pool.
func Seed(ctx context.Context) error {
	began := time.Now()
	seed, err := Jitter(ctx, func() int64 { return int64(time.Since(began)) })
	if err != nil {
		return fmt.Errorf("gathering randomness: %w", err)
	}
	return credit("/dev/random", seed, bits)
}

// credit gives the kernel's pool data that counts for so many bits
// (RNDADDENTROPY, random(4)).
func credit(device string, data []byte, count int) error {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("crediting randomness: %w", err)
	}
	defer f.Close()
	var info struct {
		count, size int32
		data        [sha512.Size]byte
	}
	info.count, info.size = int32(count), int32(copy(info.data[:], data))
	const rndAddEntropy = 0x40085203
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return fmt.Errorf("crediting randomness: %w", errno)
	}
	return nil
}
