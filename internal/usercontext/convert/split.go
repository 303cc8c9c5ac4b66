package convert

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
)

// File is one piece of a context as a file of its own.
type File struct {
	Name string `json:"name"` // a base name, safe to create
	Type string `json:"type"` // MIME type
	Line int    `json:"line"` // where it starts in the context
	Data []byte `json:"-"`
}

var unsafe = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// Split takes a context apart: the parts of a MIME message, or script, block and
// sections of a plain one.
func Split(c *usercontext.Context) []File {
	var files []File
	used := map[string]bool{}
	add := func(name, typ string, line int, data []byte) {
		if len(strings.TrimSpace(string(data))) == 0 {
			return
		}
		name = strings.Trim(unsafe.ReplaceAllString(path.Base(name), "-"), ".-")
		if name == "" {
			name = "part"
		}
		base, ext := name, path.Ext(name)
		base = strings.TrimSuffix(base, ext)
		for i := 2; used[name]; i++ {
			name = fmt.Sprintf("%s-%d%s", base, i, ext)
		}
		used[name] = true
		files = append(files, File{name, typ, line, data})
	}
	if !c.MIME && c.Parts[0].Kind == usercontext.Plain {
		script, sections, block := pieces(c)
		add("script.sh", "text/x-shellscript", c.Script().Line, script)
		add("ucernvm.txt", "text/ucernvm", c.Block().Begin, block)
		first := 1
		if a := c.Amiconfig(); len(a.Headers) > 0 {
			first = a.Headers[0].Line
		}
		add("amiconfig.txt", "text/amiconfig-user-data", first, sections)
		return files
	}
	for _, p := range c.Parts {
		name := p.Filename
		if name == "" {
			name = strings.TrimPrefix(p.Type, "text/") + ".txt"
		}
		typ := p.Type
		if p.Kind == usercontext.Plain && typ != "text/ucernvm" {
			typ = "text/amiconfig-user-data"
		}
		add(name, typ, p.Line, p.Data)
	}
	return files
}
