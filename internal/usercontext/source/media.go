package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
)

const azureTag = "E6DA6616-8EC4-48E0-BE93-58CE6ACE3CFB.tag"

// wanted lists every file that any source reads from a medium, with its limit.
func wanted() map[string]int {
	return map[string]int{
		"openstack/latest/user_data":      MaxUserData,
		"openstack/latest/meta_data.json": maxMeta,
		"ec2/latest/user-data":            MaxUserData,
		"ec2/latest/meta-data.json":       maxMeta,
		"user-data":                       MaxUserData,
		"meta-data":                       maxMeta,
		"context.sh":                      2 * MaxUserData, // base64 in it
		"user-data.txt":                   MaxUserData,
		"deltacloud-user-data.txt":        MaxUserData,
		"ovf-env.xml":                     2 * MaxUserData,
		"CustomData.bin":                  MaxUserData,
		azureTag:                          maxMeta,
	}
}

// medium is a device and the files of it that may matter. Every device is
// mounted once, for all sources.
type medium struct {
	Device
	files  map[string][]byte // by the name in wanted
	rooted []byte            // the file that ROOT_PUBKEY of context.sh names
}

func (m medium) has(name string) bool { _, ok := m.files[name]; return ok }

// isMedium reports whether contexts come on such a file system. Disks with ext4,
// NTFS and the like are left alone.
func isMedium(d Device) bool { return d.Type == "iso9660" || d.Type == "vfat" || d.Type == "udf" }

// readMedia reads all media, in the natural order of their names; those that
// cannot be read are logged.
func (s *search) readMedia(ctx context.Context) []medium {
	if s.looked || s.Mounter == nil {
		return s.media
	}
	s.looked = true
	for _, d := range s.Devices {
		if !isMedium(d) {
			continue
		}
		m, err := s.readMedium(ctx, d)
		if err != nil {
			s.Log.Warn("medium not read", "device", d.Path, "error", err)
			continue
		}
		s.media = append(s.media, m)
	}
	return s.media
}

func (s *search) readMedium(ctx context.Context, d Device) (m medium, err error) {
	files, done, err := s.Mounter.Mount(ctx, d)
	if err != nil {
		return medium{}, err
	}
	defer func() { err = errors.Join(err, done()) }()
	m = medium{Device: d, files: map[string][]byte{}}
	for name, limit := range wanted() {
		data, err := readFile(files, name, limit)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return medium{}, fmt.Errorf("reading %s: %w", name, err)
		}
		m.files[name] = data
	}
	if script, ok := m.files["context.sh"]; ok {
		for _, a := range usercontext.ParseAssignments(script) {
			if a.Name == "ROOT_PUBKEY" && a.Value != "" && fs.ValidPath(path.Base(a.Value)) {
				if m.rooted, err = readFile(files, path.Base(a.Value), maxMeta); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return medium{}, fmt.Errorf("reading the key file %q: %w", a.Value, err)
				}
			}
		}
	}
	return m, nil
}

// readFile reads a file whose name may be written in any case, as plain ISO and
// short FAT names are.
func readFile(files fs.FS, name string, limit int) ([]byte, error) {
	dir := "."
	for part := range strings.SplitSeq(name, "/") {
		entries, err := fs.ReadDir(files, dir)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == part })
		if i < 0 {
			i = slices.IndexFunc(entries, func(e fs.DirEntry) bool { return strings.EqualFold(e.Name(), part) })
		}
		if i < 0 {
			return nil, fs.ErrNotExist
		}
		dir = path.Join(dir, entries[i].Name())
	}
	f, err := files.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a link could lead out of the medium
		return nil, fs.ErrNotExist
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, limit)
	}
	return data, nil
}

// labelled sorts media so that those with one of the labels come first, and
// otherwise leaves their order.
func labelled(media []medium, labels ...string) []medium {
	var with, without []medium
	for _, m := range media {
		if slices.Contains(labels, m.Label) {
			with = append(with, m)
		} else {
			without = append(without, m)
		}
	}
	return append(with, without...)
}
