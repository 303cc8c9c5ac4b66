package iso9660

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf16"
)

const (
	maxPlain  = 30 // characters of name and extension together, ECMA-119 7.5.1
	maxDirID  = 31 // characters of a directory identifier, ECMA-119 7.6.1
	maxJoliet = 64 // UCS-2 characters
)

// plainNames gives each child of a directory its identifier in the primary
// hierarchy: upper case, one dot, version 1, unique.
//
// Differs: the standard allows A to Z, 0 to 9 and the underscore; the hyphen is
// kept, as libcernvm's context images keep it, so that readers without Rock
// Ridge still find "user-data".
func plainNames(children []*node) [][]byte {
	ids := make([][]byte, len(children))
	taken := map[string]bool{}
	for i, n := range children {
		base, ext := n.name, ""
		if dot := strings.LastIndexByte(n.name, '.'); dot > 0 && !n.isDir() {
			base, ext = n.name[:dot], n.name[dot+1:]
		}
		base, ext = plainText(base), plainText(ext)
		if len(ext) > maxPlain/2 {
			ext = ext[:maxPlain/2]
		}
		room := maxPlain - len(ext)
		if n.isDir() {
			room = maxDirID
		}
		ids[i] = []byte(unique(base, room, taken, func(base string) string {
			if n.isDir() {
				return base
			}
			return base + "." + ext + ";1"
		}))
	}
	return ids
}

func plainText(s string) string {
	var b strings.Builder
	for _, r := range strings.ToUpper(s) {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	return b.String()
}

// jolietNames is plainNames for the Joliet hierarchy, in big endian UCS-2. They
// carry no version, as those of genisoimage and xorriso: every reader copes,
// and some would show it.
func jolietNames(children []*node) [][]byte {
	ids := make([][]byte, len(children))
	taken := map[string]bool{}
	for i, n := range children {
		text := strings.Map(func(r rune) rune {
			if r < ' ' || strings.ContainsRune(`*/:;?\`, r) || r > 0xffff || r == 0xfffd {
				return '_'
			}
			return r
		}, n.name)
		ids[i] = ucs2(unique(text, maxJoliet, taken, func(base string) string { return base }))
	}
	return ids
}

// unique shortens base to room characters and, where the identifier made of it
// is taken, replaces its end by a number.
func unique(base string, room int, taken map[string]bool, id func(string) string) string {
	runes := []rune(base)
	if len(runes) > room {
		runes = runes[:room]
	}
	name := id(string(runes))
	for n := 0; taken[name]; n++ {
		tail := fmt.Sprintf("%03d", n)
		name = id(string(runes[:min(len(runes), room-len(tail))]) + tail)
	}
	taken[name] = true
	return name
}

func ucs2(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u>>8), byte(u))
	}
	return b
}

// comparePlain orders identifiers as ECMA-119 9.3 wants: name padded with
// spaces, then extension, then version.
func comparePlain(a, b []byte) int {
	nameA, extA, _ := bytes.Cut(a, []byte("."))
	nameB, extB, _ := bytes.Cut(b, []byte("."))
	if c := comparePadded(nameA, nameB); c != 0 {
		return c
	}
	return comparePadded(extA, extB)
}

func comparePadded(a, b []byte) int {
	n := max(len(a), len(b))
	for i := range n {
		x, y := byte(' '), byte(' ')
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return int(x) - int(y)
		}
	}
	return 0
}
