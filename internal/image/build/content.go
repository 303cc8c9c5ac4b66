package build

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/micavm/mica/internal/image/build/deb"
	"github.com/micavm/mica/internal/image/build/modules"
)

const maxFile = 64 << 20 // bytes of one file kept in memory

// content is the files of a package that were wanted, by path.
type content map[string]file

type file struct {
	data []byte
	link string // of a symbolic link, as a path in the package
	mode fs.FileMode
}

// read reads the files that wanted accepts.
func read(ctx context.Context, name string, wanted func(path string) bool) (content, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	files := content{}
	err = deb.Walk(ctx, f, func(e deb.Entry, r io.Reader) error {
		if e.Mode.IsDir() || !wanted(e.Path) {
			return nil
		}
		one := file{mode: e.Mode}
		switch {
		case e.Hard:
			one.link = e.Link
		case e.Mode&fs.ModeSymlink != 0:
			one.link = path.Join(path.Dir(e.Path), e.Link)
			if path.IsAbs(e.Link) {
				one.link = strings.TrimPrefix(path.Clean(e.Link), "/")
			}
		case e.Size > maxFile:
			return fmt.Errorf("file %q of %d bytes is too large", e.Path, e.Size)
		default:
			if one.data, err = io.ReadAll(r); err != nil {
				return fmt.Errorf("file %q: %w", e.Path, err)
			}
		}
		files[e.Path] = one
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("unpacking %s: %w", path.Base(name), err)
	}
	return files, nil
}

// get returns a file's content, following symbolic links within the package.
func (c content) get(p string) ([]byte, error) {
	for range 8 {
		f, ok := c[p]
		if !ok {
			return nil, fmt.Errorf("file %q: %w", p, fs.ErrNotExist)
		}
		if f.link == "" {
			return f.data, nil
		}
		p = f.link
	}
	return nil, fmt.Errorf("file %q: too many symbolic links", p)
}

// find is get for a program or library that may lie in one of several folders.
func (c content) find(name string, dirs ...string) ([]byte, error) {
	for _, dir := range dirs {
		if _, ok := c[path.Join(dir, name)]; ok {
			return c.get(path.Join(dir, name))
		}
	}
	return nil, fmt.Errorf("file %q: %w", name, fs.ErrNotExist)
}

// kernel is what comes of a kernel package.
type kernel struct {
	release string
	image   []byte
	modules modules.Set // with their data
}

// wants says whether a file of a kernel package is of use.
func (k *kernel) wants(e deb.Entry) bool {
	return e.Mode.IsRegular() && !e.Hard && e.Size <= maxFile &&
		(strings.HasPrefix(e.Path, "boot/vmlinuz-") || strings.Contains(e.Path, "lib/modules/") &&
			(path.Base(e.Path) == "modules.builtin" || strings.Contains(path.Base(e.Path), ".ko")))
}

// take sorts one file of a kernel package in; modules go to each.
func (k *kernel) take(e deb.Entry, data []byte, builtin *[]byte, each func(modules.Module) error) error {
	if release, ok := strings.CutPrefix(e.Path, "boot/vmlinuz-"); ok {
		k.release, k.image = release, data
		return nil
	}
	rest, ok := strings.CutPrefix(strings.TrimPrefix(e.Path, "usr/"), "lib/modules/")
	_, below, found := strings.Cut(rest, "/")
	if !ok || !found {
		return nil
	}
	if below == "modules.builtin" {
		*builtin = data
		return nil
	}
	m, err := modules.Parse(below, data)
	if err != nil {
		return err
	}
	return each(m)
}

// readKernel reads the kernel and the chosen modules. A kernel package has four
// thousand modules, of which only the dependencies tell which are wanted: they
// are put aside in a temporary file until that is known.
func readKernel(ctx context.Context, name string, wanted []string) (k kernel, builtin []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return k, nil, err
	}
	defer f.Close()
	aside, err := os.CreateTemp("", "mica-modules-")
	if err != nil {
		return k, nil, fmt.Errorf("making temporary file: %w", err)
	}
	defer os.Remove(aside.Name()) //nolint:errcheck // best effort
	defer aside.Close()
	var all []modules.Module
	type place struct{ offset, size int64 }
	places := map[string]place{}
	var end int64
	keep := func(m modules.Module) error {
		n, err := aside.Write(m.Data)
		if err != nil {
			return fmt.Errorf("putting modules aside: %w", err)
		}
		places[m.Path] = place{end, int64(n)}
		end += int64(n)
		m.Data = nil
		all = append(all, m)
		return nil
	}
	err = deb.Walk(ctx, f, func(e deb.Entry, r io.Reader) error {
		if !k.wants(e) {
			return nil
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		return k.take(e, data, &builtin, keep)
	})
	if err != nil {
		return k, nil, fmt.Errorf("unpacking %s: %w", path.Base(name), err)
	}
	if k.release == "" || len(all) == 0 {
		return k, nil, fmt.Errorf("unpacking %s: there is no kernel with modules in it", path.Base(name))
	}
	if k.modules, err = modules.Choose(all, builtin, wanted); err != nil {
		return k, nil, fmt.Errorf("choosing modules: %w", err)
	}
	for i := range k.modules.Modules {
		m := &k.modules.Modules[i]
		m.Data = make([]byte, places[m.Path].size)
		if _, err := aside.ReadAt(m.Data, places[m.Path].offset); err != nil {
			return k, nil, fmt.Errorf("reading modules back: %w", err)
		}
	}
	return k, builtin, nil
}
