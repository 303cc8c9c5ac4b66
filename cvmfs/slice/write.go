package slice

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/cvmfs/profile"
)

// File is a file of a slice that is no object.
type File struct {
	Name string
	Data []byte
}

// ahead is how many objects are fetched at the same time, and held in memory.
const ahead = 8

// Write writes the slice with the objects of a profile. get returns one of
// them as it is stored; it is called for several at a time. done, if not nil,
// hears after each object how many there are. The same profile and objects give
// the same bytes.
func Write(ctx context.Context, w io.Writer, p *profile.Profile, files []File,
	get func(context.Context, profile.Object) ([]byte, error), done func(n int, bytes int64),
) error {
	tw := tar.NewWriter(w)
	all := append([]File{{Name, p.Text()}}, files...)
	for _, f := range all {
		if err := add(tw, f.Name, p.Recorded, f.Data); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	waiting := make(chan chan []byte, ahead) // in the order of the profile
	group.Go(func() error {
		defer close(waiting)
		for _, o := range p.Objects {
			result := make(chan []byte, 1)
			select {
			case waiting <- result:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			group.Go(func() error {
				data, err := get(ctx, o)
				if err != nil {
					return fmt.Errorf("object %s: %w", o.Path(), err)
				}
				result <- data
				return nil
			})
		}
		return nil
	})
	group.Go(func() error {
		n, bytes := 0, int64(0)
		for result := range waiting {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case data := <-result:
				if err := add(tw, p.Objects[n].Path(), p.Recorded, data); err != nil {
					return err
				}
				n, bytes = n+1, bytes+int64(len(data))
				if done != nil {
					done(n, bytes)
				}
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("writing slice: %w", err)
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("writing slice: %w", err)
	}
	return nil
}

func add(w *tar.Writer, name string, at time.Time, data []byte) error {
	h := &tar.Header{Name: name, Mode: 0o444, Size: int64(len(data)), ModTime: at, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("writing slice: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("writing slice: %w", err)
	}
	return nil
}
