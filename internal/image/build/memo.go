package build

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/image/build/deb"
	"github.com/micavm/mica/internal/image/build/modules"
)

// memo keeps what takes long to compute and follows from its inputs alone: the
// chosen part of a kernel package, and the packed modules. A file is named after
// the digest of what it was computed from, and holds the digest of itself first,
// so that a damaged one is computed again.
type memo struct{ dir string }

// key names a result after everything it depends on.
func key(kind string, parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:", len(p))
		_, _ = h.Write(p)
	}
	return kind + "-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// load returns a result, or false where there is none that is whole.
func (m memo) load(name string) ([]byte, bool) {
	data, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil || len(data) < sha256.Size {
		return nil, false
	}
	sum := sha256.Sum256(data[sha256.Size:])
	return data[sha256.Size:], bytes.Equal(sum[:], data[:sha256.Size])
}

// save keeps a result.
func (m memo) save(name string, data []byte) error {
	sum := sha256.Sum256(data)
	if err := atomicfile.Write(filepath.Join(m.dir, name), append(sum[:], data...), 0o644); err != nil {
		return fmt.Errorf("keeping a result for the next build: %w", err)
	}
	return nil
}

// kernel reads the kernel and its chosen modules out of a package, or takes them
// from an earlier build.
func (m memo) kernel(ctx context.Context, pkg, digest string, wanted []string) (kernel, error) {
	name := key("kernel", []byte(digest), []byte(strings.Join(wanted, "\n")))
	if data, ok := m.load(name); ok {
		if k, err := decodeKernel(data, wanted); err == nil {
			return k, nil
		}
	}
	k, builtin, err := readKernel(ctx, pkg, wanted)
	if err != nil {
		return k, err
	}
	data, err := encodeKernel(k, builtin)
	if err != nil {
		return k, err
	}
	return k, m.save(name, data)
}

// encodeKernel writes a tar with the paths of the package.
func encodeKernel(k kernel, builtin []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(name string, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	tree := path.Join("lib/modules", k.release)
	err := errors.Join(put("boot/vmlinuz-"+k.release, k.image), put(path.Join(tree, "modules.builtin"), builtin))
	for _, mod := range k.modules.Modules {
		err = errors.Join(err, put(path.Join(tree, mod.Path), mod.Data))
	}
	return b.Bytes(), errors.Join(err, w.Close())
}

// decodeKernel reads such a tar. Choosing again from what was chosen gives the
// same choice.
func decodeKernel(data []byte, wanted []string) (kernel, error) {
	var k kernel
	var all []modules.Module
	var builtin []byte
	t := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return k, err
		}
		one, err := io.ReadAll(t)
		if err != nil {
			return k, err
		}
		if err := k.take(deb.Entry{Path: h.Name}, one, &builtin, func(m modules.Module) error {
			all = append(all, m)
			return nil
		}); err != nil {
			return k, err
		}
	}
	if k.release == "" || len(all) == 0 {
		return k, fs.ErrNotExist
	}
	var err error
	k.modules, err = modules.Choose(all, builtin, wanted)
	return k, err
}
