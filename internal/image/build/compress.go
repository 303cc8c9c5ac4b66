package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/run"
)

// Compression is how an initramfs is packed. Debian's kernels unpack either.
type Compression string

// The compressions. Of 31 MB for a boot image liblzma leaves 7.7, Go's xz writer
// 9.8, Go's zstd writer 9.5 and zstd -19 8.4. A machine unpacks them in 0.7 s and
// 0.1 s; an emulated one spends five seconds more on xz.
const (
	XZ   Compression = "xz"   // smallest; packed by xz of Debian's package
	Zstd Compression = "zstd" // unpacks fastest; packed in process
)

// window is zstd's: larger than the initramfs gains nothing, smaller loses.
const window = 32 << 20

// check refuses what does not exist, before anything is downloaded.
func (c Compression) check() error {
	if c != XZ && c != Zstd {
		return fail.New(fail.Usage, "unknown compression %q", c).Hint("use xz or zstd")
	}
	return nil
}

// compress packs an archive. Code says that most of it is x86 programs.
func (b *builder) compress(ctx context.Context, archive []byte, code bool) ([]byte, error) {
	in := &meter{ctx: ctx, r: bytes.NewReader(archive), total: int64(len(archive)), sink: b.sink}
	if b.o.Compression == XZ {
		return b.xz(ctx, in, code)
	}
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(z, in); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// xz runs the xz that came with the packages, with its own loader and
// libraries, so that the bytes do not depend on this computer's.
func (b *builder) xz(ctx context.Context, in io.Reader, code bool) ([]byte, error) {
	dir, err := os.MkdirTemp(b.o.Cache, ".xz-")
	if err != nil {
		return nil, fmt.Errorf("making temporary folder: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // best effort
	p, err := readProgram(b.packer.program)
	if err != nil {
		return nil, err
	}
	program := filepath.Join(dir, "xz")
	if err := os.WriteFile(program, b.packer.program, 0o700); err != nil { //nolint:gosec // a program
		return nil, fmt.Errorf("unpacking xz: %w", err)
	}
	for name, data := range b.packer.libraries {
		if err := os.WriteFile(filepath.Join(dir, path.Base(name)), data, 0o700); err != nil { //nolint:gosec // a loader
			return nil, fmt.Errorf("unpacking xz: %w", err)
		}
	}
	// The kernel's decoder knows no other checksum than CRC32.
	args := []string{"--library-path", dir, program, "--format=xz", "--check=crc32", "--threads=1", "--stdout"}
	if code {
		args = append(args, "--x86")
	}
	r, err := b.o.Run.Run(ctx, run.Command{
		Name: filepath.Join(dir, path.Base(p.interp)), Args: append(args, "--lzma2=preset=9"),
		Env:   []string{"XZ_OPT=", "XZ_DEFAULTS="},
		Stdin: in,
	})
	if err != nil {
		return nil, fail.New(fail.HostLacks, "running xz of package %s: %w", xzPackage, err).
			Hint("use --compression=zstd, which runs no program, or build on an x86-64 computer")
	}
	return r.Stdout, nil
}

// packer is a program with its libraries, by path.
type packer struct {
	program   []byte
	libraries map[string][]byte
}

// meter reports how much was read.
type meter struct {
	ctx         context.Context //nolint:containedctx // lives for one copy
	r           io.Reader
	done, total int64
	shown       int64
	sink        progress.Sink
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.done += int64(n)
	const step = 1 << 20
	if m.done-m.shown >= step || m.shown == 0 {
		m.shown = m.done
		m.sink.Emit(progress.Event{ID: workID, Phase: "packing initramfs", Done: m.done, Total: m.total, Unit: progress.Bytes})
	}
	return n, err
}
