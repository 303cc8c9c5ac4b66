package modules

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// largest is the limit on an unpacked module. The largest in Debian is 30 MB.
const largest = 128 << 20

// moduleInitCompressed is MODULE_INIT_COMPRESSED_FILE of linux/module.h.
const moduleInitCompressed = 4

// Loader loads modules from one tree. It is not safe for concurrent use: the
// order of loading decides the order of devices, which must not change from
// boot to boot.
type Loader struct {
	index  *Index
	dir    string
	insert func(file string) error
	loaded map[string]bool
}

// NewLoader returns a loader for the module tree in dir.
func NewLoader(dir string) (*Loader, error) {
	index, err := Open(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	return &Loader{index: index, dir: dir, insert: Insert, loaded: map[string]bool{}}, nil
}

// Load loads a module, by its name or by an alias, with what it needs. A module
// that is loaded already or built in is fine.
func (l *Loader) Load(name string) error {
	files, err := l.index.Resolve(name)
	if err != nil {
		return err
	}
	for _, file := range files {
		if l.loaded[file] {
			continue
		}
		if err := l.insert(filepath.Join(l.dir, file)); err != nil {
			return fmt.Errorf("loading kernel module %q: %w", Name(file), err)
		}
		l.loaded[file] = true
	}
	return nil
}

// Loaded returns the names of the modules that this loader loaded, sorted.
func (l *Loader) Loaded() []string {
	var names []string
	for file := range l.loaded {
		names = append(names, Name(file))
	}
	slices.Sort(names)
	return names
}

// Coldplug loads the modules of the hardware that is there: one pass over the
// modalias files of sysfs, repeated while new modules bring new devices (a bus
// driver makes its children appear). It returns the errors of modules that did
// not load, which are rarely a reason to stop.
func (l *Loader) Coldplug(ctx context.Context, sys string) []error {
	const passes = 8 // PCI → virtio → SCSI host → disk is four deep
	var errs []error
	tried := map[string]bool{}
	for range passes {
		before := len(l.loaded)
		for _, alias := range Modaliases(sys) {
			if ctx.Err() != nil {
				return append(errs, ctx.Err())
			}
			if tried[alias] {
				continue
			}
			tried[alias] = true
			// No driver in the image for a piece of hardware: expected.
			if err := l.Load(alias); err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, err)
			}
		}
		if len(l.loaded) == before {
			break
		}
	}
	return errs
}

// Modaliases returns the aliases of the devices of every bus, each once, sorted.
// Devices without a bus are parts of others, or have nothing to load.
func Modaliases(sys string) []string {
	files, err := filepath.Glob(filepath.Join(sys, "bus/*/devices/*/modalias"))
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // devices come and go while we look
		}
		if text := strings.TrimSpace(string(data)); text != "" {
			seen[text] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// Insert gives one module file to the kernel.
func Insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	packed := !strings.HasSuffix(file, ".ko")
	flags := 0
	if packed {
		flags = moduleInitCompressed
	}
	err = unix.FinitModule(int(f.Fd()), "", flags)
	// A kernel that cannot decompress says EINVAL (before 5.17) or EOPNOTSUPP.
	if packed && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOEXEC)) {
		var image []byte
		if image, err = Unpack(file, f); err == nil {
			err = unix.InitModule(image, "")
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// Unpack decompresses a module according to its extension.
func Unpack(file string, r io.Reader) ([]byte, error) {
	var plain io.Reader
	switch filepath.Ext(file) {
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		plain = z
	case ".xz":
		z, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		plain = z
	case ".ko":
		plain = r
	default:
		return nil, fmt.Errorf("the kernel does not unpack modules, and no way is known to unpack %q", filepath.Base(file))
	}
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(plain, largest+1))
	if err != nil {
		return nil, err
	}
	if n > largest {
		return nil, fmt.Errorf("kernel module is larger than %d bytes when unpacked", largest)
	}
	return out.Bytes(), nil
}
