package publish

import (
	"bytes"
	"context"
	"hash"
	"io"
	"os"

	"github.com/klauspost/compress/zlib"

	"github.com/micavm/mica/cvmfs"
)

// packer stores objects, one at a time. Each worker has its own: the compressor
// holds a megabyte.
type packer struct {
	g    *staging
	c    cvmfs.Compression
	z    *zlib.Writer
	sum  hash.Hash
	mem  []byte   // the last part of the stored form, all of it while it is small
	file *os.File // the stored form before that, once there is some
	size int64    // stored
	drop bool     // only the hash is wanted
}

func (g *staging) packer(c cvmfs.Compression) *packer { return &packer{g: g, c: c} }

// spill is the stored size from which an object is written to a file before its
// name is known. The compressor gives its output in small pieces; they are
// hashed and written as one.
const spill = 256 << 10

// begin starts an object.
func (p *packer) begin() error {
	p.abort()
	p.sum = p.g.algorithm.New()
	if p.c == cvmfs.Plain {
		return nil
	}
	if p.z == nil {
		var err error
		p.z, err = zlib.NewWriterLevel(sink{p}, 6)
		return err
	}
	p.z.Reset(sink{p})
	return nil
}

// Write adds plain bytes to the object.
func (p *packer) Write(b []byte) (int, error) {
	if p.c == cvmfs.Plain {
		return sink{p}.Write(b)
	}
	return p.z.Write(b)
}

// finish ends the object and returns it: what kind it is may become known only
// later. What it returns is good until the packer begins the next object.
func (p *packer) finish() (packed, error) {
	if p.c != cvmfs.Plain {
		if err := p.z.Close(); err != nil {
			return packed{}, err
		}
	}
	if p.file != nil {
		if err := p.spill(); err != nil {
			return packed{}, err
		}
	}
	_, _ = p.sum.Write(p.mem) // never fails
	o := packed{hash: cvmfs.NewHash(p.g.algorithm, p.sum), size: p.size, data: p.mem, elsewhere: p.drop}
	if p.file != nil {
		o.file, o.data = p.file.Name(), nil
		err := p.file.Close()
		p.file = nil
		return o, err
	}
	return o, nil
}

// abort forgets an object half written.
func (p *packer) abort() {
	if p.file != nil {
		_ = p.file.Close()
		_ = os.Remove(p.file.Name())
		p.file = nil
	}
	p.mem = p.mem[:0]
	p.size = 0
}

// sink takes the stored form.
type sink struct{ p *packer }

func (s sink) Write(b []byte) (int, error) {
	p := s.p
	p.size += int64(len(b))
	if len(p.mem)+len(b) > spill {
		if err := p.spill(); err != nil {
			return 0, err
		}
	}
	p.mem = append(p.mem, b...)
	return len(b), nil
}

// spill hashes what is in memory and writes it to the file.
func (p *packer) spill() (err error) {
	_, _ = p.sum.Write(p.mem) // never fails
	if !p.drop {
		if p.file == nil {
			if p.file, err = p.g.stage.Create(); err != nil {
				return err
			}
		}
		if _, err := p.file.Write(p.mem); err != nil {
			return err
		}
	}
	p.mem = p.mem[:0]
	return nil
}

// packed is an object that has been compressed and hashed.
type packed struct {
	hash      cvmfs.Hash
	size      int64
	data      []byte // the packer's, or
	file      string // or
	elsewhere bool   // it is not to be stored
}

// keep stages a packed object under its kind.
func (g *staging) keep(ctx context.Context, o packed, suffix cvmfs.Suffix) error {
	if o.elsewhere {
		return nil
	}
	path := o.hash.ObjectPath(suffix)
	known, err := g.known(ctx, path, o.size)
	if err != nil {
		return err
	}
	if known {
		if o.file != "" {
			return os.Remove(o.file)
		}
		return nil
	}
	file := o.file
	if file == "" {
		f, err := g.stage.Create()
		if err != nil {
			return err
		}
		file = f.Name()
		_, err = f.Write(o.data)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return g.add(ctx, path, file, o.size)
}

// putBytes stages data as a zlib object.
func (g *staging) putBytes(ctx context.Context, data []byte, suffix cvmfs.Suffix) (cvmfs.Hash, error) {
	return g.put(ctx, bytes.NewReader(data), suffix)
}

// putFile stages a file as a zlib object.
func (g *staging) putFile(ctx context.Context, file string, suffix cvmfs.Suffix) (cvmfs.Hash, error) {
	f, err := os.Open(file)
	if err != nil {
		return cvmfs.Hash{}, err
	}
	defer f.Close()
	return g.put(ctx, f, suffix)
}

func (g *staging) put(ctx context.Context, r io.Reader, suffix cvmfs.Suffix) (cvmfs.Hash, error) {
	p, ok := g.idle.Get().(*packer)
	if !ok {
		p = g.packer(cvmfs.Zlib)
	}
	defer func() {
		p.abort()
		g.idle.Put(p)
	}()
	if err := p.begin(); err != nil {
		return cvmfs.Hash{}, err
	}
	if _, err := io.Copy(p, r); err != nil {
		return cvmfs.Hash{}, err
	}
	o, err := p.finish()
	if err != nil {
		return cvmfs.Hash{}, err
	}
	return o.hash, g.keep(ctx, o, suffix)
}
