package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// maxSkel bounds how many files a home directory starts with.
const maxSkel = 10000

// makeHome makes a home directory from /etc/skel. One that exists is left alone.
func (r *Root) makeHome(acc Account) error {
	if acc.Home == "" || acc.Home == "/" || r.Exists(acc.Home) {
		return nil
	}
	if err := r.MkdirAll(acc.Home, Attr{Mode: 0o700}.Owner(acc.UID, acc.GID)); err != nil {
		return err
	}
	left := maxSkel
	return r.copyTree("/etc/skel", acc.Home, acc, &left)
}

// copyTree copies what is in one directory into another, for a user.
func (r *Root) copyTree(from, to string, acc Account, left *int) error {
	entries, err := r.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if *left--; *left < 0 {
			return fmt.Errorf("copying %s: more than %d files", from, maxSkel)
		}
		src, dst := path.Join(from, e.Name()), path.Join(to, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		attr := Attr{Mode: info.Mode().Perm()}.Owner(acc.UID, acc.GID)
		switch {
		case info.IsDir():
			if err := r.MkdirAll(dst, attr); err != nil {
				return err
			}
			if err := r.copyTree(src, dst, acc, left); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			data, err := r.ReadFile(src)
			if err != nil {
				return err
			}
			if err := r.WriteFile(dst, data, attr); err != nil {
				return err
			}
		case info.Mode()&fs.ModeSymlink != 0:
			at, err := r.resolve(src, false)
			if err != nil {
				return about("copying", src, err)
			}
			target, err := r.dir.Readlink(at)
			if err != nil {
				return about("copying", src, err)
			}
			if err := r.Symlink(target, dst); err != nil {
				return err
			}
			if r.options.Owners {
				if at, err = r.resolve(dst, false); err == nil {
					err = r.dir.Lchown(at, acc.UID, acc.GID)
				}
				if err != nil {
					return about("copying", src, err)
				}
			}
		}
	}
	return nil
}

// addSubIDs gives a user subordinate ids for containers without root, where the
// system hands them out (subuid(5)).
func (r *Root) addSubIDs(name string) error {
	const size = 65536
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if !r.Exists(file) {
			continue
		}
		err := r.Edit(file, Attr{}, func(lines []string) []string {
			next := 100000
			for _, line := range lines {
				f := strings.Split(line, ":")
				if f[0] == name {
					return lines
				}
				if len(f) != 3 {
					continue
				}
				start, err := strconv.Atoi(f[1])
				n, err2 := strconv.Atoi(f[2])
				if err == nil && err2 == nil && start >= 0 && n > 0 && start < 1<<31 && n < 1<<31 && start+n > next {
					next = start + n
				}
			}
			return append(lines, fmt.Sprintf("%s:%d:%d", name, next, size))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
