package sparse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Copy copies the file at from to the new file at to, with permissions 0600.
// It fails with fs.ErrExist if there is one.
func Copy(ctx context.Context, from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := dst.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(to)
			err = fmt.Errorf("copying %s: %w", from, err)
		}
	}()
	if !clone(dst, src) {
		if err := dst.Truncate(info.Size()); err != nil {
			return err
		}
		if err := copyData(ctx, dst, src, info.Size()); err != nil {
			return err
		}
	}
	return dst.Sync()
}

// copyData copies every stretch of data.
func copyData(ctx context.Context, dst, src *os.File, size int64) error {
	for at := int64(0); at < size; {
		begin, end, err := nextData(src, at, size)
		if err != nil {
			return err
		}
		if begin >= size {
			return nil
		}
		if err := copyRange(ctx, dst, src, begin, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// piece is copied between two looks at the context.
const piece = 1 << 20

// copyRange copies bytes begin to end, pieces of nothing but zeros excepted.
func copyRange(ctx context.Context, dst, src *os.File, begin, end int64) error {
	buf := make([]byte, piece)
	for at := begin; at < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.ReadAt(buf[:min(piece, end-at)], at)
		if n == 0 {
			if errors.Is(err, io.EOF) { // cut short meanwhile
				return io.ErrUnexpectedEOF
			}
			return err
		}
		if !zero(buf[:n]) {
			if _, err := dst.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
	}
	return nil
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
