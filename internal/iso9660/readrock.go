package iso9660

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"strings"
)

const (
	maxContinuations = 32
	maxLink          = 4096
)

// detectRockRidge looks for the SP entry in the root's own record.
func (l *loader) detectRockRidge(primary []byte) error {
	root, _, err := parseRecord(primary[156:190])
	if err != nil {
		return err
	}
	b, err := l.sector(root.extent)
	if err != nil {
		return err
	}
	self, _, err := parseRecord(b)
	if err != nil {
		return err
	}
	use := self.systemUse
	if len(use) < 7 || !bytes.HasPrefix(use, []byte("SP\x07\x01\xbe\xef")) {
		return nil
	}
	l.skip = int(use[6])
	return l.susp(use, func(signature string, _ []byte) error {
		if signature == "PX" || signature == "RR" {
			l.rock = true
		}
		return nil
	})
}

// self takes the attributes of a directory from its own record.
func (l *loader) self(d *object, r record) error {
	if !l.rock {
		return nil
	}
	o := *d
	use := r.systemUse
	if bytes.HasPrefix(use, []byte("SP\x07\x01")) {
		use = use[7:]
	} else if len(use) >= l.skip {
		use = use[l.skip:]
	}
	if err := l.rockRidgeEntries(&o, use); err != nil {
		return err
	}
	if o.mode.IsDir() {
		d.mode = o.mode
	}
	return nil
}

func (l *loader) rockRidge(o *object, use []byte) error {
	if len(use) < l.skip {
		return nil
	}
	return l.rockRidgeEntries(o, use[l.skip:])
}

// rockRidgeEntries applies PX, NM and SL.
func (l *loader) rockRidgeEntries(o *object, use []byte) error {
	var name strings.Builder
	var link linkReader
	dir := o.mode.IsDir()
	err := l.susp(use, func(signature string, b []byte) error {
		switch signature {
		case "PX":
			if len(b) < 8 {
				return malformed("short PX entry")
			}
			o.mode = fileMode(binary.LittleEndian.Uint32(b))
		case "NM":
			if len(b) < 1 || name.Len() > maxName {
				return malformed("NM entry")
			}
			name.Write(b[1:])
		case "SL":
			return link.add(b)
		case "CL", "PL", "RE":
			return malformed("relocated directories")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if o.mode.IsDir() != dir {
		return malformed("file type of %q is contradictory", o.name)
	}
	if name.Len() > 0 {
		o.name = name.String()
	}
	if o.mode&fs.ModeSymlink != 0 {
		o.link, o.size = link.String(), 0
	}
	return nil
}

// susp calls f for each system use entry, following continuations.
func (l *loader) susp(b []byte, f func(signature string, payload []byte) error) error {
	for range maxContinuations {
		var next []byte
		for len(b) >= 4 {
			n := int(b[2])
			if b[0] == 0 {
				break // padding
			}
			if n < 4 || n > len(b) {
				return malformed("system use entry of %d bytes", n)
			}
			signature, payload := string(b[:2]), b[4:n]
			b = b[n:]
			switch signature {
			case "ST":
				return nil
			case "CE":
				if len(payload) < 24 {
					return malformed("short CE entry")
				}
				block, offset, size := binary.LittleEndian.Uint32(payload), binary.LittleEndian.Uint32(payload[8:]), binary.LittleEndian.Uint32(payload[16:])
				if offset > SectorSize || size > SectorSize-offset {
					return malformed("continuation crosses a sector")
				}
				s, err := l.sector(block)
				if err != nil {
					return err
				}
				next = s[offset : offset+size]
			default:
				if err := f(signature, payload); err != nil {
					return err
				}
			}
		}
		if next == nil {
			return nil
		}
		b = next
	}
	return malformed("more than %d continuations", maxContinuations)
}

// linkReader puts the target of a symbolic link together.
type linkReader struct {
	text strings.Builder
	more bool // the last component goes on
}

func (r *linkReader) add(b []byte) error {
	if len(b) < 1 {
		return malformed("short SL entry")
	}
	b = b[1:]
	for len(b) >= 2 {
		flags, n := b[0], int(b[1])
		if 2+n > len(b) {
			return malformed("symbolic link component of %d bytes", n)
		}
		if s := r.text.String(); s != "" && !r.more && !strings.HasSuffix(s, "/") {
			r.text.WriteByte('/')
		}
		switch {
		case flags&flagRoot != 0:
			r.text.WriteByte('/')
		case flags&flagParent != 0:
			r.text.WriteString("..")
		case flags&flagCurrent != 0:
			r.text.WriteByte('.')
		default:
			r.text.Write(b[2 : 2+n])
		}
		if r.text.Len() > maxLink {
			return malformed("symbolic link of more than %d bytes", maxLink)
		}
		r.more = flags&flagMore != 0
		b = b[2+n:]
	}
	return nil
}

func (r *linkReader) String() string { return r.text.String() }

// fileMode is the opposite of posix. Other types become irregular files.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & 0o170000 {
	case 0o100000:
	case 0o040000:
		mode |= fs.ModeDir
	case 0o120000:
		mode |= fs.ModeSymlink
	default:
		mode |= fs.ModeIrregular
	}
	if m&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if m&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	if m&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}
