package convert

import (
	"bytes"
	"io"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/multipart"
)

// partType is the type below text/ of a part that was read.
func partType(p usercontext.Part) string {
	if p.Kind == usercontext.Plain && p.Type != "text/ucernvm" {
		return "amiconfig-user-data"
	}
	return strings.TrimPrefix(p.Type, "text/")
}

// toMIME splits a plain context into parts that each agent knows.
func toMIME(c *usercontext.Context, random io.Reader) ([]byte, error) {
	var parts []multipart.Part
	if c.MIME {
		for _, p := range c.Parts {
			parts = append(parts, multipart.Part{Type: partType(p), Filename: p.Filename, Data: p.Data})
		}
		return multipart.Write(parts, false, random)
	}
	if k := c.Parts[0].Kind; k != usercontext.Plain {
		return multipart.Write([]multipart.Part{{Type: partType(c.Parts[0]), Filename: "context", Data: c.Parts[0].Data}}, false, random)
	}
	script, sections, block := pieces(c)
	if len(script) > 0 {
		parts = append(parts, multipart.Part{Type: "x-shellscript", Filename: "script", Data: script})
	}
	if len(block) > 0 {
		parts = append(parts, multipart.Part{Type: "ucernvm", Filename: "ucernvm", Data: block})
	}
	if len(bytes.TrimSpace(sections)) > 0 {
		parts = append(parts, multipart.Part{Type: "amiconfig-user-data", Filename: "amiconfig", Data: sections})
	}
	return multipart.Write(parts, false, random)
}

// pieces cuts a plain context into script, sections and block. Comments stay with
// the sections.
func pieces(c *usercontext.Context) (script, sections, block []byte) {
	s, b := c.Script(), c.Block()
	text := bytes.ReplaceAll(bytes.TrimPrefix(c.Text, []byte("\xef\xbb\xbf")), []byte("\r\n"), []byte("\n"))
	lines := bytes.SplitAfter(text, []byte("\n"))
	end := b.End
	if b.Found && end == 0 {
		end = len(lines)
	}
	for i, l := range lines {
		switch n := i + 1; {
		case s.Present && s.Bounded && n <= s.End:
		case b.Found && n >= b.Begin && n <= end:
			block = append(block, l...)
		default:
			sections = append(sections, l...)
		}
	}
	if s.Present && s.Bounded {
		script = s.Text
	}
	return script, bytes.TrimLeft(sections, "\n"), block
}
