package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
)

// maxFile bounds what is read into memory: configuration files, never data.
const maxFile = 16 << 20

// Attr is what a written file or directory should look like. The zero value
// keeps mode and owner of what is there, and makes new files 0644 root:root and
// new directories 0755 root:root.
type Attr struct {
	Mode   fs.FileMode // permission bits, setuid, setgid, sticky; zero as above
	Owned  bool        // UID and GID count
	UID    int
	GID    int
	Backup bool // keep the first version, once, as NAME.orig
	Secret bool // never show the content

	// NoFollow replaces a symbolic link at the end of the name instead of what it
	// points to: for files in directories that others may write to.
	NoFollow bool
}

// Owner returns a with the owner set.
func (a Attr) Owner(uid, gid int) Attr {
	a.Owned, a.UID, a.GID = true, uid, gid
	return a
}

// ReadFile returns the content of a file.
func (r *Root) ReadFile(name string) ([]byte, error) {
	at, err := r.resolve(name, true)
	if err != nil {
		return nil, about("reading", name, err)
	}
	f, err := r.dir.OpenFile(at, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, about("reading", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, about("reading", name, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("reading %s: longer than %d MiB", clean(name), maxFile>>20)
	}
	return data, nil
}

// Stat describes a file, links followed.
func (r *Root) Stat(name string) (fs.FileInfo, error) {
	at, err := r.resolve(name, true)
	if err != nil {
		return nil, about("looking at", name, err)
	}
	info, err := r.dir.Stat(at)
	if err != nil {
		return nil, about("looking at", name, err)
	}
	return info, nil
}

// Exists reports whether there is something at name, links followed.
func (r *Root) Exists(name string) bool {
	_, err := r.Stat(name)
	return err == nil
}

// ReadDir lists a directory, sorted by name.
func (r *Root) ReadDir(name string) ([]fs.DirEntry, error) {
	at, err := r.resolve(name, true)
	if err != nil {
		return nil, about("listing", name, err)
	}
	list, err := fs.ReadDir(r.dir.FS(), at)
	if err != nil {
		return nil, about("listing", name, err)
	}
	return list, nil
}

// Glob returns the names in dir that match the pattern of path.Match, sorted,
// each with dir before it. A missing directory is an empty one.
func (r *Root) Glob(dir, pattern string) []string {
	entries, err := r.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if ok, err := path.Match(pattern, e.Name()); ok && err == nil {
			names = append(names, path.Join(dir, e.Name()))
		}
	}
	return names
}

// WriteFile replaces the content of a file in one step: at any moment the file
// has either its old content or the new one. Missing directories above it are
// made. A symbolic link is followed, and stays.
func (r *Root) WriteFile(name string, data []byte, a Attr) error {
	at, err := r.resolve(name, !a.NoFollow)
	if err != nil {
		return about("writing", name, err)
	}
	if at == "." {
		return about("writing", name, syscall.EISDIR)
	}
	info, err := r.dir.Lstat(at)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return about("writing", name, err)
	}
	if !fresh && info.Mode()&fs.ModeSymlink != 0 {
		fresh, info = true, nil
	}
	if fresh {
		if err := r.MkdirAll(path.Dir("/"+at), Attr{}); err != nil {
			return err
		}
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("writing %s: not a regular file", clean(name))
	}
	a = r.wanted(a, "/"+at, info, 0o644)
	old, same := []byte(nil), false
	if !fresh {
		if old, err = r.ReadFile("/" + at); err != nil {
			return err
		}
		same = bytes.Equal(old, data)
	}
	if same {
		return r.setAttr(at, info, a)
	}
	if a.Backup && !fresh && !r.Exists("/"+at+".orig") {
		if err := r.replace(at+".orig", old, r.wanted(Attr{}, "/"+at, info, 0o644)); err != nil {
			return about("keeping the first version of", name, err)
		}
	}
	if err := r.replace(at, data, a); err != nil {
		return about("writing", name, err)
	}
	r.Note(r.fileAction(KindFile, name, a))
	return nil
}

// replace writes a file under a temporary name and renames it.
func (r *Root) replace(at string, data []byte, a Attr) error {
	suffix, err := r.Random(8)
	if err != nil {
		return err
	}
	temp := path.Join(path.Dir(at), ".mica-"+suffix)
	f, err := r.dir.OpenFile(temp, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = func() error {
		if _, err := f.Write(data); err != nil {
			return err
		}
		// The owner first: changing it clears setuid bits.
		if r.options.Owners {
			if err := f.Chown(a.UID, a.GID); err != nil {
				return err
			}
		}
		if err := f.Chmod(a.Mode); err != nil {
			return err
		}
		if r.options.Volatile {
			return nil
		}
		return f.Sync()
	}()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = r.dir.Rename(temp, at)
	}
	if err != nil {
		_ = r.dir.Remove(temp)
		return err
	}
	r.owners["/"+at] = [2]int{a.UID, a.GID}
	return nil
}

// wanted fills what a leaves open from what is there (info may be nil).
func (r *Root) wanted(a Attr, name string, info fs.FileInfo, mode fs.FileMode) Attr {
	if info != nil {
		mode = info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	}
	if a.Mode == 0 {
		a.Mode = mode
	}
	if !a.Owned {
		a.UID, a.GID = r.owner(name, info)
	}
	return a
}

// owner returns who a file belongs to, or should where owners are recorded only.
func (r *Root) owner(name string, info fs.FileInfo) (uid, gid int) {
	if who, ok := r.owners[name]; ok {
		return who[0], who[1]
	}
	if info != nil && r.options.Owners {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			return int(st.Uid), int(st.Gid)
		}
	}
	return 0, 0
}

func (r *Root) fileAction(kind Kind, name string, a Attr) Action {
	return Action{
		Kind: kind, Target: clean(name), Mode: fmt.Sprintf("%04o", octal(a.Mode)),
		Owner: fmt.Sprintf("%d:%d", a.UID, a.GID), Secret: a.Secret || a.Mode&0o077 == 0 && kind == KindFile,
	}
}

// octal is the mode as chmod(1) writes it.
func octal(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.mode != 0 {
			bits |= b.bit
		}
	}
	return bits
}

// setAttr makes mode and owner of something that exists be as wanted.
func (r *Root) setAttr(at string, info fs.FileInfo, a Attr) error {
	uid, gid := r.owner("/"+at, info)
	mode := info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	if uid == a.UID && gid == a.GID && mode == a.Mode {
		return nil
	}
	if r.options.Owners && (uid != a.UID || gid != a.GID) {
		if err := r.dir.Chown(at, a.UID, a.GID); err != nil {
			return about("changing the owner of", at, err)
		}
		mode = ^mode // the kernel may have cleared bits
	}
	if mode != a.Mode {
		if err := r.dir.Chmod(at, a.Mode); err != nil {
			return about("changing the mode of", at, err)
		}
	}
	r.owners["/"+at] = [2]int{a.UID, a.GID}
	r.Note(r.fileAction(KindAttr, "/"+at, a))
	return nil
}

// SetAttr gives an existing file or directory the mode and owner in a.
func (r *Root) SetAttr(name string, a Attr) error {
	at, err := r.resolve(name, true)
	if err != nil {
		return about("changing", name, err)
	}
	info, err := r.dir.Stat(at)
	if err != nil {
		return about("changing", name, err)
	}
	return r.setAttr(at, info, r.wanted(a, "/"+at, info, 0))
}

// MkdirAll makes a directory and those above it. The attributes are those of
// the last one, if it has to be made; those above are 0755 root:root. A
// directory that is there is left as it is.
func (r *Root) MkdirAll(name string, a Attr) error {
	at, err := r.resolve(name, true)
	if err != nil {
		return about("making directory", name, err)
	}
	if at == "." {
		return nil
	}
	info, err := r.dir.Stat(at)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return about("making directory", name, syscall.ENOTDIR)
	case !errors.Is(err, fs.ErrNotExist):
		return about("making directory", name, err)
	}
	if err := r.MkdirAll(path.Dir("/"+at), Attr{}); err != nil {
		return err
	}
	a = r.wanted(a, "/"+at, nil, 0o755)
	if err := r.dir.Mkdir(at, 0o700); err != nil {
		return about("making directory", name, err)
	}
	if r.options.Owners {
		if err := r.dir.Chown(at, a.UID, a.GID); err != nil {
			return about("making directory", name, err)
		}
	}
	if err := r.dir.Chmod(at, a.Mode); err != nil {
		return about("making directory", name, err)
	}
	r.owners["/"+at] = [2]int{a.UID, a.GID}
	r.Note(r.fileAction(KindDirectory, name, a))
	return nil
}

// Symlink makes name a symbolic link to target, replacing a link or a file but
// no directory.
func (r *Root) Symlink(target, name string) error {
	at, err := r.resolve(name, false)
	if err != nil {
		return about("linking", name, err)
	}
	if info, err := r.dir.Lstat(at); err == nil {
		if info.IsDir() {
			return about("linking", name, syscall.EISDIR)
		}
		if old, err := r.dir.Readlink(at); err == nil && old == target {
			return nil
		}
	}
	if err := r.MkdirAll(path.Dir("/"+at), Attr{}); err != nil {
		return err
	}
	suffix, err := r.Random(8)
	if err != nil {
		return err
	}
	temp := path.Join(path.Dir(at), ".mica-"+suffix)
	if err := r.dir.Symlink(target, temp); err != nil {
		return about("linking", name, err)
	}
	if err := r.dir.Rename(temp, at); err != nil {
		_ = r.dir.Remove(temp)
		return about("linking", name, err)
	}
	r.Note(Action{Kind: KindLink, Target: clean(name), Detail: target})
	return nil
}

// Remove removes a file or a link (not what it points to). Nothing there is fine.
func (r *Root) Remove(name string) error {
	at, err := r.resolve(name, false)
	if err != nil {
		return about("removing", name, err)
	}
	if err := r.dir.Remove(at); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return about("removing", name, err)
	}
	r.Note(Action{Kind: KindRemove, Target: clean(name)})
	return nil
}

// Rename moves a file or directory within one file system of the Root.
func (r *Root) Rename(from, to string) error {
	a, err := r.resolve(from, false)
	if err != nil {
		return about("moving", from, err)
	}
	b, err := r.resolve(to, false)
	if err != nil {
		return about("moving", from, err)
	}
	if err := r.dir.Rename(a, b); err != nil {
		return about("moving", from, err)
	}
	r.Note(Action{Kind: KindRemove, Target: clean(from), Detail: "moved to " + clean(to)})
	return nil
}

// Edit rewrites a text file line by line: change gets the lines without their
// ends and returns the new ones. A missing file has no lines. The file ends in a
// line break afterwards, unless it is empty.
func (r *Root) Edit(name string, a Attr, change func(lines []string) []string) error {
	var data []byte
	at, err := r.resolve(name, !a.NoFollow)
	if err != nil {
		return about("reading", name, err)
	}
	if info, lerr := r.dir.Lstat(at); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
		err = fs.ErrNotExist // a link that is not followed is about to be replaced
	} else {
		data, err = r.ReadFile("/" + at)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lines := change(Lines(data))
	if err != nil && len(lines) == 0 {
		return nil
	}
	return r.WriteFile(name, Text(lines), a)
}

// Lines splits text into lines without their ends.
func Lines(data []byte) []string {
	text := strings.TrimSuffix(string(data), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// Text joins lines, each with its end.
func Text(lines []string) []byte {
	if len(lines) == 0 {
		return nil
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// AppendFile adds to a log file, making it with mode 0600.
func (r *Root) AppendFile(name string, data []byte) error {
	f, err := r.OpenLog(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return about("writing", name, err)
	}
	return nil
}
