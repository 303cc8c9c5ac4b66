package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/image/build/packages"
)

// The programs for file systems that a boot image has, and other names for them.
var fileSystemTools = map[string][]string{
	"mke2fs":    {"mkfs.ext4"},
	"e2fsck":    {"fsck.ext4"},
	"resize2fs": nil,
	"tune2fs":   nil,
}

// programDirs are where Debian has such programs, before and after its merge of
// / and /usr.
var programDirs = []string{"sbin", "usr/sbin", "bin", "usr/bin"}

// libraryDirs are where its dynamic loader looks by itself, on any architecture.
func libraryDirs(files content) []string {
	var dirs []string
	for p := range files {
		dir := path.Dir(p)
		if (strings.HasPrefix(dir, "lib/") || strings.HasPrefix(dir, "usr/lib/")) && strings.HasSuffix(dir, "-linux-gnu") && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// isLibrary accepts what a shared library may be called in a package.
func isLibrary(p string) bool {
	dir := path.Dir(p)
	return strings.Contains(path.Base(p), ".so") && (strings.HasSuffix(dir, "-linux-gnu") || strings.HasPrefix(dir, "lib64") || strings.HasPrefix(dir, "usr/lib64"))
}

// source is an unpacked package.
type source struct {
	pkg   packages.Package
	files content
}

// missing are libraries that no package at hand has.
type missing []string

func (m missing) Error() string {
	return fmt.Sprintf("no package at hand has %s", strings.Join(m, ", "))
}

// closure finds the libraries that programs need, and what those need. It
// returns them by their path in the image, and the sources that were used. A
// library that is nowhere is a missing error.
func closure(programs map[string][]byte, sources []source) (libraries map[string][]byte, used []packages.Package, err error) {
	libraries = map[string][]byte{}
	var absent missing
	seen := map[string]bool{}
	var need func(name string, data []byte) error
	need = func(name string, data []byte) error {
		p, err := readProgram(data)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if p.interp != "" && !seen[p.interp] {
			seen[p.interp], seen[path.Base(p.interp)] = true, true
			if err := add(libraries, &used, sources, path.Base(p.interp), strings.TrimPrefix(p.interp, "/"), &absent, need); err != nil {
				return err
			}
		}
		for _, lib := range p.needed {
			if seen[lib] {
				continue
			}
			seen[lib] = true
			if err := add(libraries, &used, sources, lib, "", &absent, need); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range sortedKeys(programs) {
		if err := need(name, programs[name]); err != nil {
			return nil, nil, err
		}
	}
	if len(absent) > 0 {
		slices.Sort(absent)
		return nil, nil, absent
	}
	return libraries, used, nil
}

// add puts one library into the image, at the given path or in the folder of its
// package.
func add(libraries map[string][]byte, used *[]packages.Package, sources []source, name, at string, absent *missing, need func(string, []byte) error) error {
	for _, s := range sources {
		for _, dir := range libraryDirs(s.files) {
			data, err := s.files.find(name, dir)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("library %s of package %s: %w", name, s.pkg.Name, err)
			}
			if at == "" {
				// The merged and the unmerged folder are both looked in; one
				// place makes images of both alike.
				at = path.Join(strings.TrimPrefix(dir, "usr/"), name)
			}
			libraries[at] = data
			if !slices.Contains(*used, s.pkg) {
				*used = append(*used, s.pkg)
			}
			return need(name, data)
		}
	}
	*absent = append(*absent, name)
	return nil
}

// unpackSources reads the libraries of every package.
func (b *builder) unpackSources(ctx context.Context, pkgs []packages.Package) ([]source, error) {
	var sources []source
	for _, p := range pkgs {
		if !strings.HasPrefix(p.Name, "lib") {
			continue
		}
		files, err := read(ctx, b.cache.Path(p), isLibrary)
		if err != nil {
			return nil, err
		}
		sources = append(sources, source{p, files})
	}
	return sources, nil
}
