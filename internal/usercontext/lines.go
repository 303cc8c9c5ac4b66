package usercontext

import (
	"bytes"
	"strings"
)

// MaxSize bounds a context after unwrapping. The largest one any known cloud
// hands out is a quarter of it.
const MaxSize = 1 << 20

// line is one line of a text: without its LF, but with everything else.
type line struct {
	number int
	text   string
	ended  bool // by LF; only the last line of a text is not
}

// splitLines cuts text at LF. A text that ends in LF has no empty last line.
func splitLines(data []byte) []line {
	lines := make([]line, 0, bytes.Count(data, []byte{'\n'})+1)
	for number := 1; len(data) > 0; number++ {
		text, rest, ended := bytes.Cut(data, []byte{'\n'})
		lines = append(lines, line{number, string(text), ended})
		data = rest
	}
	return lines
}

// isSpace is Python 2's idea of white space in a byte string.
func isSpace(b byte) bool {
	return b == ' ' || b >= '\t' && b <= '\r'
}

const pythonSpace = " \t\n\v\f\r"

func trimSpace(s string) string      { return strings.Trim(s, pythonSpace) }
func trimRightSpace(s string) string { return strings.TrimRight(s, pythonSpace) }
func trimLeftSpace(s string) string  { return strings.TrimLeft(s, pythonSpace) }

// lowerASCII and upperASCII change letters of ASCII only, byte by byte.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func upperASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// sectionHeader returns the name in a line that opens a section: at column 1, a
// bracket, at least one byte, the closing bracket; what follows is ignored.
func sectionHeader(text string) (string, bool) {
	if !strings.HasPrefix(text, "[") {
		return "", false
	}
	name, _, closed := strings.Cut(text[1:], "]")
	return name, closed && name != ""
}
