package iso9660

import (
	"errors"
	"io/fs"
	"strings"
	"time"
)

// The ER entry that announces Rock Ridge (RRIP 1.12, 4.3), word for word as
// other writers put it, because readers compare the identifier only.
const (
	rripID          = "RRIP_1991A"
	rripDescription = "THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS"
	rripSource      = "PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN PRIMARY VOLUME DESCRIPTOR FOR CONTACT INFORMATION."
)

const (
	suspMax     = 255 // bytes of one system use entry
	ceLength    = 28
	flagMore    = 0x01 // NM and SL: the next entry goes on
	flagCurrent = 0x02 // SL component "."
	flagParent  = 0x04 // SL component ".."
	flagRoot    = 0x08 // SL component "/"
)

func susp(signature string, payload ...byte) []byte {
	return append([]byte{signature[0], signature[1], byte(4 + len(payload)), 1}, payload...)
}

// posix is the st_mode of a node.
func posix(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	switch {
	case m.IsDir():
		mode |= 0o040000
	case m&fs.ModeSymlink != 0:
		mode |= 0o120000
	default:
		mode |= 0o100000
	}
	if m&fs.ModeSetuid != 0 {
		mode |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		mode |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	return mode
}

// attributes are the PX and TF entries of a node.
func attributes(n *node, t time.Time) [][]byte {
	links := uint32(1)
	if n.isDir() {
		links = 2
		for _, c := range n.children {
			if c.isDir() {
				links++
			}
		}
	}
	px := bothEndian32(nil, posix(n.file.Mode))
	px = bothEndian32(px, links)
	px = bothEndian32(px, 0)
	px = bothEndian32(px, 0)
	const modifyAccessAttributes = 0x0e
	tf := []byte{modifyAccessAttributes}
	for range 3 {
		tf = append(tf, shortTime(t)...)
	}
	return [][]byte{susp("PX", px...), susp("TF", tf...)}
}

// nameEntries are the NM entries of a name.
func nameEntries(name string) [][]byte {
	const room = suspMax - 5
	var entries [][]byte
	for len(name) > room {
		entries = append(entries, susp("NM", append([]byte{flagMore}, name[:room]...)...))
		name = name[room:]
	}
	return append(entries, susp("NM", append([]byte{0}, name...)...))
}

// linkEntries are the SL entries of a symbolic link's target. A component that
// does not fit one entry goes on in the next.
func linkEntries(target string) [][]byte {
	type component struct {
		flags byte
		text  string
	}
	var components []component
	if strings.HasPrefix(target, "/") {
		components = append(components, component{flags: flagRoot})
	}
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "": // repeated, leading and trailing slashes mean nothing
		case ".":
			components = append(components, component{flags: flagCurrent})
		case "..":
			components = append(components, component{flags: flagParent})
		default:
			components = append(components, component{text: part})
		}
	}
	const room = suspMax - 5
	var payloads [][]byte
	var current []byte
	for _, c := range components {
		for {
			free := room - len(current) - 2
			if free < 1 && c.text != "" || free < 0 {
				payloads, current = append(payloads, current), nil
				continue
			}
			n := min(free, len(c.text))
			rest := c.text[n:]
			flags := c.flags
			if rest != "" {
				flags |= flagMore
			}
			current = append(current, flags, byte(n))
			current = append(current, c.text[:n]...)
			if rest == "" {
				break
			}
			c.text = rest
		}
	}
	payloads = append(payloads, current)
	entries := make([][]byte, len(payloads))
	for i, p := range payloads {
		var flags byte
		if i < len(payloads)-1 {
			flags = flagMore
		}
		entries[i] = susp("SL", append([]byte{flags}, p...)...)
	}
	return entries
}

// announce are the SP and ER entries of the root's own record.
func announce() (sp, er []byte) {
	sp = susp("SP", 0xbe, 0xef, 0)
	payload := []byte{byte(len(rripID)), byte(len(rripDescription)), byte(len(rripSource)), 1}
	payload = append(payload, rripID+rripDescription+rripSource...)
	return sp, susp("ER", payload...)
}

var errSystemUse = errors.New("name and link target are too long for Rock Ridge")

// pack puts the entries into a record's system use area and what does not fit
// into the continuation area, which begins at sector ce.
func pack(entries [][]byte, room int, cont area, ce uint32) (inline []byte, _ area, err error) {
	total := 0
	for _, e := range entries {
		total += len(e)
	}
	if total <= room {
		for _, e := range entries {
			inline = append(inline, e...)
		}
		return inline, cont, nil
	}
	for len(entries) > 0 && len(inline)+len(entries[0]) <= room-ceLength {
		inline = append(inline, entries[0]...)
		entries = entries[1:]
	}
	var rest []byte
	for _, e := range entries {
		rest = append(rest, e...)
	}
	if len(rest) > SectorSize {
		return nil, nil, errSystemUse
	}
	cont, at := cont.add(rest)
	where := bothEndian32(nil, ce+uint32(at/SectorSize))
	where = bothEndian32(where, uint32(at%SectorSize))
	where = bothEndian32(where, uint32(len(rest)))
	return append(inline, susp("CE", where...)...), cont, nil
}
