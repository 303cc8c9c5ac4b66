package iso9660

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// write writes the planned image front to back.
func (p *plan) write(ctx context.Context, w io.Writer) error {
	out := &counter{ctx: ctx, w: w}
	system := make([]byte, primarySector*SectorSize)
	if p.hybrid() {
		copy(system, p.hybridSector())
	}
	out.put(system)
	out.put(p.descriptor(p.primary))
	if p.catalog != nil {
		out.put(bootRecord(p.catalog.extent))
	}
	if p.joliet != nil {
		out.put(p.descriptor(p.joliet))
	}
	end := make([]byte, SectorSize)
	copy(end, "\xffCD001\x01")
	out.put(end)
	for _, h := range p.hierarchies() {
		out.put(area(h.pathTable(binary.LittleEndian)).pad())
		out.put(area(h.pathTable(binary.BigEndian)).pad())
	}
	for _, h := range p.hierarchies() {
		for _, d := range h.dirs {
			records, cont, err := h.records(d)
			if err != nil {
				return err
			}
			out.put(records)
			out.put(cont)
		}
	}
	for _, n := range p.files {
		if err := p.content(out, n); err != nil {
			return err
		}
	}
	out.fill(int64(p.sectors) * SectorSize)
	return out.err
}

// content writes one file's extent.
func (p *plan) content(out *counter, n *node) error {
	if n.file.Size == 0 {
		return nil
	}
	out.fill(int64(n.extent) * SectorSize)
	if n == p.catalog {
		out.put(bootCatalog(p.v.Boot, p.boot))
		return nil
	}
	r, err := n.file.Open()
	if err != nil {
		return fmt.Errorf("file %q: %w", n.file.Path, err)
	}
	defer r.Close()
	var src io.Reader = r
	if n.patch != nil {
		head := make([]byte, infoEnd)
		if _, err := io.ReadFull(r, head); err != nil {
			return fmt.Errorf("file %q: %w", n.file.Path, err)
		}
		copy(head[infoOffset:], n.patch)
		src = io.MultiReader(bytes.NewReader(head), r)
	}
	copied, err := io.Copy(out, io.LimitReader(src, n.file.Size))
	switch {
	case err != nil:
		return fmt.Errorf("file %q: %w", n.file.Path, err)
	case copied < n.file.Size:
		return fmt.Errorf("file %q: has %d bytes instead of %d", n.file.Path, copied, n.file.Size)
	}
	if k, err := src.Read(make([]byte, 1)); k > 0 {
		return fmt.Errorf("file %q: is longer than the %d bytes announced", n.file.Path, n.file.Size)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("file %q: %w", n.file.Path, err)
	}
	out.fill((out.n + SectorSize - 1) / SectorSize * SectorSize)
	return nil
}

// descriptor is the primary descriptor, or the supplementary one of Joliet.
func (p *plan) descriptor(h *hierarchy) []byte {
	b := make([]byte, 0, SectorSize)
	kind, text := byte(1), spaced
	if h.joliet {
		kind, text = 2, spacedUCS2
	}
	b = append(b, kind)
	b = append(b, "CD001\x01\x00"...)
	b = append(b, text(p.v.System, 32)...)
	b = append(b, text(p.v.Label, 32)...)
	b = append(b, make([]byte, 8)...)
	b = bothEndian32(b, p.sectors)
	escape := make([]byte, 32)
	if h.joliet {
		copy(escape, "%/E") // UCS-2 level 3
	}
	b = append(b, escape...)
	b = bothEndian16(b, 1) // volume set size
	b = bothEndian16(b, 1) // sequence number
	b = bothEndian16(b, SectorSize)
	b = bothEndian32(b, h.pathSize)
	b = binary.LittleEndian.AppendUint32(b, h.pathL)
	b = append(b, make([]byte, 4)...)
	b = binary.BigEndian.AppendUint32(b, h.pathM)
	b = append(b, make([]byte, 4)...)
	root := h.dirs[0]
	b = append(b, directoryRecord([]byte{0}, root.extent, root.size, p.v.Time, true, nil)...)
	b = append(b, text("", 128)...)            // volume set
	b = append(b, text(p.v.Publisher, 128)...) // publisher
	b = append(b, text(p.v.Publisher, 128)...) // data preparer
	b = append(b, text("", 128)...)            // application
	for range 3 {
		b = append(b, text("", 37)...) // copyright, abstract and bibliographic file
	}
	b = append(b, longTime(p.v.Time)...)             // creation
	b = append(b, longTime(p.v.Time)...)             // modification
	b = append(b, strings.Repeat("0", 16)+"\x00"...) // expiration: none
	b = append(b, longTime(p.v.Time)...)             // effective
	b = append(b, 1, 0)                              // structure version
	return append(b, make([]byte, SectorSize-len(b))...)
}

func spaced(s string, n int) []byte {
	return append([]byte(s), bytes.Repeat([]byte{' '}, n-len(s))...)
}

// spacedUCS2 keeps as many characters of s as fit n bytes. An odd last byte,
// which three of the fields have, is zero.
func spacedUCS2(s string, n int) []byte {
	b := ucs2(s)
	b = b[:min(len(b), n/2*2)]
	for len(b)+2 <= n {
		b = append(b, 0, ' ')
	}
	if len(b) < n {
		b = append(b, 0)
	}
	return b
}

// counter knows how far the image is written. After an error it writes nothing.
type counter struct {
	ctx context.Context
	w   io.Writer
	n   int64
	err error
}

// Write implements io.Writer and looks at the context between pieces.
func (c *counter) Write(b []byte) (int, error) {
	if c.err == nil {
		c.err = c.ctx.Err()
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.w.Write(b)
	c.n += int64(n)
	c.err = err
	return n, err
}

func (c *counter) put(b []byte) { _, _ = c.Write(b) } // the error stays in c

// fill writes zeros up to offset end.
func (c *counter) fill(end int64) {
	zeros := make([]byte, 32*SectorSize)
	for c.err == nil && c.n < end {
		c.put(zeros[:min(int64(len(zeros)), end-c.n)])
	}
}
