package ova

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha1" //nolint:gosec // what OVF 1.x manifests have
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/micavm/mica/internal/fail"
)

// Bounds of what is read.
const (
	maxDescription = 4 << 20
	maxManifest    = 1 << 20
	maxEntries     = 1000
	maxDisk        = 1 << 46 // 64 TiB
)

// Appliance is what an OVA file holds.
type Appliance struct {
	Name      string
	CPUs      int // 0 where the description does not say
	MemoryMiB int
	Disks     []Disk // in the order of the description
	Manifest  bool   // there are digests to verify the disks by

	path    string
	digests map[string]digest
	sizes   map[string]int64
}

// Disk is one disk image of an appliance.
type Disk struct {
	File     string // its name in the archive
	Size     int64  // in the archive
	Capacity int64  // of the disk, in bytes; 0 where the description does not say
	Format   string // vmdk, vpc, vdi, qcow2, raw; empty where the description says something else
	gzip     bool
}

type digest struct {
	algorithm, sum string
}

func (d digest) hash() hash.Hash {
	switch d.algorithm {
	case "SHA1":
		return sha1.New() //nolint:gosec // a manifest's choice; it tells damage, not forgery
	case "SHA512":
		return sha512.New()
	}
	return sha256.New()
}

func bad(file, format string, args ...any) error {
	return fail.New(fail.Unverified, "appliance %s: %s", file, fmt.Sprintf(format, args...)).Hint("fetch it again")
}

func unsupported(file, format string, args ...any) error {
	return fail.New(fail.Usage, "appliance %s: %s", file, fmt.Sprintf(format, args...))
}

// Open reads the description and the manifest, verifies the former and looks at
// every name; the disks are not read yet.
func Open(ctx context.Context, file string) (*Appliance, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := Read(ctx, f, file)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Read is Open for an archive that is open already; file is its path.
func Read(ctx context.Context, r io.ReadSeeker, file string) (*Appliance, error) {
	a := &Appliance{path: file, sizes: map[string]int64{}}
	var description, manifest []byte
	var ovf string
	archive := tar.NewReader(r)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, bad(file, "no whole tar archive: %v", err)
		}
		if err := a.admit(h, n); err != nil {
			return nil, err
		}
		switch ext := strings.ToLower(path.Ext(h.Name)); {
		case ext == ".ovf" && ovf == "":
			ovf = h.Name
			description, err = bounded(archive, maxDescription)
		case ext == ".mf" && manifest == nil:
			manifest, err = bounded(archive, maxManifest)
		}
		if err != nil {
			return nil, bad(file, "reading %q: %v", h.Name, err)
		}
	}
	if ovf == "" {
		return nil, bad(file, "it holds no .ovf description")
	}
	if manifest != nil {
		a.Manifest = true
		if err := a.readManifest(manifest); err != nil {
			return nil, err
		}
		if err := a.verify(ovf, description); err != nil {
			return nil, err
		}
	}
	return a, a.describe(description)
}

// admit looks at one entry's header.
func (a *Appliance) admit(h *tar.Header, n int) error {
	_, twice := a.sizes[h.Name]
	switch {
	case n >= maxEntries:
		return bad(a.path, "more than %d files", maxEntries)
	case h.Typeflag != tar.TypeReg:
		return bad(a.path, "%q is no plain file", h.Name)
	case h.Name == "" || h.Name == "." || h.Name == ".." || strings.ContainsAny(h.Name, "/\\\x00"):
		return bad(a.path, "%q is no plain name", h.Name)
	case twice:
		return bad(a.path, "%q is in it twice", h.Name)
	}
	a.sizes[h.Name] = h.Size
	return nil
}

func bounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	return data, err
}

var manifestLine = regexp.MustCompile(`^(SHA1|SHA256|SHA512) ?\((.+)\) ?= ?([0-9a-fA-F]+)$`)

func (a *Appliance) readManifest(text []byte) error {
	a.digests = map[string]digest{}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		m := manifestLine.FindStringSubmatch(line)
		if m == nil {
			return bad(a.path, "the manifest has a line %.80q", line)
		}
		d := digest{m[1], strings.ToLower(m[3])}
		if len(d.sum) != hex.EncodedLen(d.hash().Size()) {
			return bad(a.path, "the manifest has no whole digest of %q", m[2])
		}
		if _, ok := a.sizes[m[2]]; !ok {
			return bad(a.path, "%q is in the manifest, but not in the archive", m[2])
		}
		a.digests[m[2]] = d
	}
	return nil
}

// verify compares a file in memory with the manifest.
func (a *Appliance) verify(name string, data []byte) error {
	d, ok := a.digests[name]
	if !ok {
		return bad(a.path, "the manifest lacks %q", name)
	}
	h := d.hash()
	h.Write(data)
	return a.compare(name, d, h)
}

func (a *Appliance) compare(name string, d digest, h hash.Hash) error {
	if sum := hex.EncodeToString(h.Sum(nil)); sum != d.sum {
		return bad(a.path, "%s of %q is %s, the manifest says %s", d.algorithm, name, sum, d.sum)
	}
	return nil
}

// Extract writes one disk image, unpacked, to w. What it wrote is to be thrown
// away if it fails: the digest is known at the end only.
func (a *Appliance) Extract(ctx context.Context, disk Disk, w io.Writer) error {
	f, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer f.Close()
	archive := tar.NewReader(f)
	for {
		h, err := archive.Next()
		if err != nil {
			return bad(a.path, "looking for %q: %v", disk.File, err)
		}
		if h.Name == disk.File {
			break
		}
	}
	var from io.Reader = reader{ctx, archive}
	d, listed := a.digests[disk.File]
	if a.Manifest && !listed {
		return bad(a.path, "the manifest lacks %q", disk.File)
	}
	sum := d.hash()
	from = io.TeeReader(from, sum)
	if err := pour(w, from, disk); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("extracting %s: %w", disk.File, ctx.Err())
		}
		return fmt.Errorf("extracting %s of %s: %w", disk.File, a.path, err)
	}
	if _, err := io.Copy(io.Discard, from); err != nil { // what a decompressor leaves
		return fmt.Errorf("extracting %s of %s: %w", disk.File, a.path, err)
	}
	if !a.Manifest {
		return nil
	}
	return a.compare(disk.File, d, sum)
}

// pour copies the image, unpacked, as far as an image of that disk can go.
func pour(w io.Writer, from io.Reader, disk Disk) error {
	if disk.gzip {
		z, err := gzip.NewReader(from)
		if err != nil {
			return err
		}
		from = z
	}
	limit := int64(maxDisk)
	if disk.Capacity > 0 && disk.Capacity < maxDisk/2 { // an image is not much larger than its disk
		limit = disk.Capacity + disk.Capacity/8 + 64<<20
	}
	n, err := io.Copy(w, io.LimitReader(from, limit))
	if err == nil && n == limit {
		err = fmt.Errorf("it unpacks to more than %d bytes", limit)
	}
	return err
}

// reader stops reading when ctx is cancelled.
type reader struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
