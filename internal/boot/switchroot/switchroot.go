package switchroot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// inits is where an init is looked for, in the order of the kernel.
var inits = []string{"/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/etc/init", "/bin/init"}

// ErrNoInit says that a tree has nothing to run as PID 1.
var ErrNoInit = errors.New("no init")

// FindInit returns the path of the init in a tree, as it is called once the
// tree is the root. wanted, if not empty, is the only candidate.
func FindInit(tree, wanted string) (string, error) {
	candidates := inits
	if wanted != "" {
		candidates = []string{wanted}
	}
	var reasons []string
	for _, name := range candidates {
		if err := executable(tree, name); err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		return name, nil
	}
	return "", fmt.Errorf("%w can be run in the operating system's tree: %s", ErrNoInit, strings.Join(reasons, "; "))
}

// executable checks that the file behind a name in the tree can be executed,
// and that the interpreter it asks for is there too: a tree that was published
// without its dynamic linker fails here with a reason, not with a kernel panic.
func executable(tree, name string) error {
	file, err := Resolve(tree, name)
	if err != nil {
		return err
	}
	fi, err := os.Stat(file)
	if err != nil {
		return pathless(err)
	}
	if !fi.Mode().IsRegular() || fi.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("not an executable file (%s)", fi.Mode())
	}
	need, err := interpreter(file)
	if err != nil {
		return err
	}
	if need == "" {
		return nil
	}
	loader, err := Resolve(tree, need)
	if err != nil {
		return fmt.Errorf("needs %s: %w", need, err)
	}
	if fi, err := os.Stat(loader); err != nil || fi.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("needs %s, which cannot be executed", need)
	}
	return nil
}

// interpreter returns what the kernel runs for a file: the dynamic linker of a
// program, the program of a script, or nothing for a static program.
func interpreter(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", pathless(err)
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("reading it: %w", pathless(err))
	}
	head = head[:n]
	if line, ok := strings.CutPrefix(string(head), "#!"); ok {
		line, _, _ = strings.Cut(line, "\n")
		if fields := strings.Fields(line); len(fields) > 0 {
			return fields[0], nil
		}
		return "", errors.New("a script without an interpreter")
	}
	return elfInterpreter(f, head)
}

// elfInterpreter reads the name of the dynamic linker from the program headers
// (elf(5)); none is a static program. The standard library's reader of such files
// would bring debuggers' formats into the guest binary, which has no use for them.
func elfInterpreter(r io.ReaderAt, head []byte) (string, error) {
	const ptInterp, longest, mostHeaders = 3, 4096, 512
	if len(head) < 64 || string(head[:4]) != "\x7fELF" {
		return "", errors.New("neither a program nor a script")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	is64 := head[4] == 2
	offset, size, count := int64(order.Uint32(head[28:])), int(order.Uint16(head[42:])), int(order.Uint16(head[44:]))
	if is64 {
		offset, size, count = int64(order.Uint64(head[32:])), int(order.Uint16(head[54:])), int(order.Uint16(head[56:]))
	}
	least := 32
	if is64 {
		least = 56
	}
	if size < least || size > longest || count > mostHeaders || offset < 0 {
		return "", errors.New("a program with damaged headers")
	}
	h := make([]byte, size)
	for i := range count {
		if _, err := r.ReadAt(h, offset+int64(i*size)); err != nil {
			return "", errors.New("a program with damaged headers")
		}
		if order.Uint32(h) != ptInterp {
			continue
		}
		at, n := int64(order.Uint32(h[4:])), int64(order.Uint32(h[16:]))
		if is64 {
			at, n = int64(order.Uint64(h[8:])), int64(order.Uint64(h[32:]))
		}
		if at < 0 || n < 0 || n > longest {
			return "", errors.New("a program with damaged headers")
		}
		text := make([]byte, n)
		if _, err := r.ReadAt(text, at); err != nil {
			return "", errors.New("a program with damaged headers")
		}
		return strings.TrimRight(string(text), "\x00"), nil
	}
	return "", nil
}

// Resolve returns the file behind a name in a tree, following symbolic links as
// they will be followed once the tree is the root: an absolute link starts at
// the tree.
func Resolve(tree, name string) (string, error) {
	const most = 40
	rest := strings.Split(path.Clean("/"+name), "/")[1:]
	done := "/"
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		fi, err := os.Lstat(filepath.Join(tree, next))
		if err != nil {
			return "", pathless(err)
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > most {
			return "", errors.New("too many symbolic links")
		}
		target, err := os.Readlink(filepath.Join(tree, next))
		if err != nil {
			return "", pathless(err)
		}
		if path.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return filepath.Join(tree, done), nil
}

func pathless(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Move moves the mounts that the next system keeps using from the current root
// to the tree. A missing mount point is made if the tree can be written.
func Move(tree string, mounts []string) error {
	for _, m := range mounts {
		target := filepath.Join(tree, m)
		if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making the mount point %s: %w", target, pathless(err))
		}
		if err := unix.Mount(m, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving %s to %s: %w", m, target, err)
		}
	}
	return nil
}

// Enter makes the tree the root of this process and of all that follow. It
// returns the old root, open, for Free.
func Enter(tree string) (*os.File, error) {
	old, err := os.Open("/")
	if err != nil {
		return nil, fmt.Errorf("switching to the operating system's root: %w", err)
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"entering it", func() error { return unix.Chdir(tree) }},
		{"moving it over the old one", func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") }},
		{"changing root", func() error { return unix.Chroot(".") }},
		{"entering it", func() error { return unix.Chdir("/") }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			_ = old.Close()
			return nil, fmt.Errorf("switching to the operating system's root: %s: %w", s.what, err)
		}
	}
	return old, nil
}

// ErrNotRAM says that a file system is not one that lives in memory.
var ErrNotRAM = errors.New("not a RAM file system")

// Free deletes what is in the old root, so that its memory is free. It stays on
// the device of dir and refuses to touch anything but a RAM file system. Errors
// of single files are not reported: memory is all there is to lose.
func Free(dir *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("freeing the initramfs: %w", err)
	}
	if st.Type != unix.RAMFS_MAGIC && st.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("freeing the initramfs: %w", ErrNotRAM)
	}
	return Delete(dir)
}

// Delete deletes everything below an open directory that is on the same device,
// without following links and without entering mounts. The directory stays.
func Delete(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("freeing the initramfs: %w", err)
	}
	deleteBelow(dir, st.Dev, 0)
	return nil
}

func deleteBelow(dir *os.File, dev uint64, depth int) {
	const deepest = 200
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != dev {
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			_ = unix.Unlinkat(int(dir.Fd()), name, 0)
			continue
		}
		if depth < deepest {
			fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == nil {
				sub := os.NewFile(uintptr(fd), name)
				deleteBelow(sub, dev, depth+1)
				_ = sub.Close()
			}
		}
		_ = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	}
}
