package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/internal/fail"
)

func newRepoGet(a *app) *cobra.Command {
	var s repoSource
	cmd := &cobra.Command{
		Use:   "get URL|DIR|NAME PATH DEST",
		Short: "Copy a file or a tree out of a repository",
		Long: `Copy a file or a tree out of a repository to DEST, which must not exist. Modes
and modification times are kept; owners, devices, pipes and sockets are not.`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.open(cmd.Context(), a, args[0])
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // as above
			if _, err := os.Lstat(args[2]); !errors.Is(err, fs.ErrNotExist) {
				return fail.New(fail.Conflict, "%s exists", args[2]).Hint("name a destination that does not exist")
			}
			skipped, err := copyRepo(cmd.Context(), r, path.Clean("/"+args[1]), args[2])
			return leftOut(skipped, copyError(args[2], err))
		},
	}
	s.flags(cmd)
	return cmd
}

// leftOut is how a copy ends that left out so many special files.
func leftOut(skipped int, err error) error {
	if err != nil {
		return repoError(err)
	}
	if skipped > 0 {
		return fail.New(fail.Partial, "%d devices, pipes or sockets were left out", skipped)
	}
	return nil
}

func newRepoCp(a *app) *cobra.Command {
	var s repoSource
	var recursive bool
	cmd := &cobra.Command{
		Use:   "cp URL|DIR|NAME PATH... DEST",
		Short: "Copy files out of a repository, into a directory or over what is there",
		Long: `Copy files of a repository, and with -r directories, as cp(1) does: into DEST if it
is a directory, else to DEST. Files that are there are replaced, directories are
filled up. Modes and modification times are kept; owners, devices, pipes and
sockets are not. 'mica repo get' touches nothing that is there.`,
		Example: `  mica repo cp -r software.eessi.io /versions/2023.06/init .`,
		Args:    cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			dest, paths := args[len(args)-1], args[1:len(args)-1]
			info, err := os.Stat(dest)
			into := err == nil && info.IsDir()
			if len(paths) > 1 && !into {
				return fail.New(fail.Usage, "%s is no directory", dest).Hint("several paths are copied into a directory that exists")
			}
			r, err := s.open(cmd.Context(), a, args[0])
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // as above
			skipped := 0
			for _, p := range paths {
				p = path.Clean("/" + p)
				e, err := r.Lookup(cmd.Context(), p)
				if err != nil {
					return repoError(err)
				}
				if e.IsDir() && !recursive {
					return fail.New(fail.Usage, "%s is a directory", p).Hint("copy it, with all below, with -r")
				}
				to := dest
				if into && p != "/" {
					to = filepath.Join(dest, path.Base(p))
				}
				n, err := copyOver(cmd.Context(), r, p, to)
				if skipped += n; err != nil {
					return repoError(copyError(to, err))
				}
			}
			return leftOut(skipped, nil)
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "copy directories with all below")
	return cmd
}

// copyError gives an error of the disk that is copied to its class and a hint. The
// cache's disk has none of these: what it does not take goes to memory.
func copyError(dest string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fail.New(fail.HostLacks, "copying to %s: %w", dest, err).Hint("make room there, or name a destination on another disk")
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fail.New(fail.HostLacks, "copying to %s: %w", dest, err).Hint("name a destination that you may write to")
	}
	return err
}

// openParent opens the directory that a copy is made in.
func openParent(dest string) (*os.Root, error) {
	parent, err := os.OpenRoot(filepath.Dir(dest))
	if err != nil {
		return nil, fail.New(fail.NotFound, "copying to %s: %w", dest, err).Hint("make the directory first, or name one that is there")
	}
	return parent, nil
}

// copyOver copies from to the path dest, over what is there, and returns how many
// special files it left out.
func copyOver(ctx context.Context, r *client.Repository, from, dest string) (skipped int, err error) {
	if dest, err = filepath.Abs(dest); err != nil { // "." has no name to work with
		return 0, err
	}
	parent, err := openParent(dest)
	if err != nil {
		return 0, err
	}
	defer parent.Close() //nolint:errcheck // a directory
	return copyTree(ctx, r, from, parent, filepath.Base(dest), true)
}

// copyRepo copies from to the new path dest and returns how many special files it
// left out. A copy that fails leaves nothing.
func copyRepo(ctx context.Context, r *client.Repository, from, dest string) (skipped int, err error) {
	parent, err := openParent(dest)
	if err != nil {
		return 0, err
	}
	defer parent.Close() //nolint:errcheck // a directory
	base := fmt.Sprintf(".%.100s.%s", filepath.Base(dest), rand.Text())
	defer func() {
		if err == nil {
			err = parent.Rename(base, filepath.Base(dest))
		}
		if err != nil {
			_ = parent.RemoveAll(base) // the error says why there is no copy
		}
	}()
	return copyTree(ctx, r, from, parent, base, false)
}

// copyTree copies from to the name base in a directory, over what is there if
// that is wanted.
func copyTree(ctx context.Context, r *client.Repository, from string, parent *os.Root, base string, over bool) (skipped int, err error) {
	type dir struct {
		name string
		e    catalog.Entry
	}
	var dirs []dir
	err = walkRepo(ctx, r, from, func(p string, e catalog.Entry) error {
		name := base + strings.TrimPrefix(p, strings.TrimSuffix(from, "/"))
		if p == from {
			name = base
		}
		switch {
		case e.IsDir():
			if info, err := parent.Stat(name); over && err == nil && info.IsDir() {
				return nil // it keeps its attributes
			}
			dirs = append(dirs, dir{name, e})
			return parent.Mkdir(name, 0o700)
		case e.IsSymlink():
			target, err := r.Readlink(ctx, p)
			if err != nil {
				return err
			}
			return settle(parent, name, over, func(name string) error { return parent.Symlink(target, name) })
		case e.IsRegular():
			return settle(parent, name, over, func(name string) error {
				if err := copyFile(ctx, r, p, parent, name); err != nil {
					return err
				}
				return setAttributes(parent, name, e)
			})
		}
		skipped++
		return nil
	})
	if err != nil {
		return skipped, err
	}
	for i := len(dirs) - 1; i >= 0; i-- { // the deepest first: they may become read-only
		if err := setAttributes(parent, dirs[i].name, dirs[i].e); err != nil {
			return skipped, err
		}
	}
	return skipped, nil
}

// settle has something made under the name; in place of what is there by way of
// another name, so that the old is there until the new is whole.
func settle(root *os.Root, name string, over bool, write func(name string) error) error {
	if !over {
		return write(name)
	}
	if info, err := root.Lstat(name); err == nil && info.IsDir() {
		return fail.New(fail.Conflict, "%s is a directory, and no file can take its place", filepath.Join(root.Name(), name))
	}
	temporary := filepath.Join(filepath.Dir(name), ".mica-"+rand.Text())
	err := write(temporary)
	if err == nil {
		err = root.Rename(temporary, name)
	}
	if err != nil {
		_ = root.Remove(temporary) // it may not be there
	}
	return err
}

func copyFile(ctx context.Context, r *client.Repository, p string, to *os.Root, name string) error {
	f, err := r.Open(ctx, p)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	out, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.NewSectionReader(f, 0, f.Size()))
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return err
}

func setAttributes(root *os.Root, name string, e catalog.Entry) error {
	if err := root.Chtimes(name, client.MTime(e), client.MTime(e)); err != nil {
		return err
	}
	return root.Chmod(name, client.FileMode(e)&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
}
