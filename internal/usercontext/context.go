package usercontext

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Context is a whole context: what it is wrapped in, its parts, and what each
// agent finds in it. Make one with Parse; it does not change afterwards.
type Context struct {
	Name   string   // for messages, usually a file name
	Raw    []byte   // as given
	Layers []string // what was taken off, outermost first: gzip, base64, context.sh …
	Text   []byte   // under the layers; positions refer to it
	MIME   bool     // Text is a MIME message
	Parts  []Part   // one, unless MIME
	// Glidein are the options of a glideinWMS pilot, nil without them.
	Glidein  *Glidein
	Problems []Problem // of the text and its containers; the readers have their own

	lines []line // of Text, without a byte order mark
}

// Part is one part of a context.
type Part struct {
	Kind     Kind
	Type     string // MIME type: as declared, or as cloud-init guesses it
	Filename string
	Encoding string // content transfer encoding when it hides the text, else ""
	Packed   bool   // the part itself was gzip
	Data     []byte // decoded
	Line     int    // of Text, where the part's body starts
	Header   int    // of Text, where the part's header starts; 0 outside MIME
}

// Kind says what a part is, whatever its declared type.
type Kind uint8

// The kinds of parts.
const (
	Empty       Kind = iota // nothing but white space
	Plain                   // script, sections and block, as amiconfig and the boot loader read them
	ShellScript             // a script for cloud-init
	CloudConfig
	CloudArchive // #cloud-config-archive
	CloudPatch   // #cloud-config-jsonp
	Boothook
	PartHandler
	Include
	Template
	Unknown
)

// String names the kind as people call it.
func (k Kind) String() string {
	names := []string{
		"nothing", "context", "script", "cloud-config", "cloud-config archive", "cloud-config patch",
		"boot hook", "part handler", "include list", "template", "unknown",
	}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Parse reads a context in any of the forms a machine may be handed: plain, MIME,
// cloud-config, a glideinWMS pilot's, each possibly inside gzip, base64 or an
// OpenNebula context.sh. It never fails for bad content, which it states as
// Problems; the error, if any, says that the content could not be reached at all,
// and the Context holds what was. Name is used in messages only.
func Parse(name string, data []byte) (*Context, error) {
	c := &Context{Name: name, Raw: data}
	text, layers, err := Unwrap(data)
	c.Layers = layers
	if inner, found := unwrapAssignments(text); err == nil && found != "" {
		c.Layers = append(c.Layers, found)
		var more []string
		text, more, err = Unwrap(inner)
		c.Layers = append(c.Layers, more...)
	}
	c.Text = text
	if err == nil && bytes.HasPrefix(text, []byte(encryptedPrefix)) {
		err = ErrEncrypted
	}
	if g, ok := ParseGlidein(text); ok {
		c.Glidein = &g
	}
	c.checkText()
	c.lines = splitLines(bytes.TrimPrefix(text, byteOrderMark))
	if m, ok := readMIME(c.lines); ok {
		c.MIME = true
		c.Parts = m.parts
		c.Problems = append(c.Problems, m.problems...)
	} else {
		kind, typ := sniff(join(c.lines))
		c.Parts = []Part{{Kind: kind, Type: typ, Data: join(c.lines), Line: 1}}
	}
	if err != nil {
		return c, fmt.Errorf("reading context %s: %w", name, err)
	}
	return c, nil
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// checkText states what is wrong with the bytes, whatever they mean.
func (c *Context) checkText() {
	add := func(s Severity, line, column int, text, remedy string) {
		c.Problems = append(c.Problems, Problem{"Z002", s, line, column, text, remedy})
	}
	text := c.Text
	if bytes.HasPrefix(text, byteOrderMark) {
		add(Error, 1, 1, "the file starts with a byte order mark, which hides the first line from every original agent", "save as UTF-8 without a byte order mark")
	}
	at := func(offset int) (int, int) {
		return 1 + bytes.Count(text[:offset], []byte{'\n'}), offset - bytes.LastIndexByte(text[:offset], '\n')
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		l, col := at(i)
		add(Error, l, col, "a NUL byte: some clouds cut the context here, or drop the byte", "remove it")
	}
	if i := invalidUTF8(text); i >= 0 {
		l, col := at(i)
		add(Error, l, col, "a byte that is not UTF-8", "save the file as UTF-8")
	}
	if i := bytes.IndexByte(text, '\r'); i >= 0 {
		l, col := at(i)
		ends := "carriage returns at line ends: a script does not run, and the boot loader's block is not seen, on an original CernVM"
		if n := bytes.Count(text, []byte("\r\n")); n < bytes.Count(text, []byte("\n")) {
			ends = "mixed line ends: " + ends
		}
		add(Error, l, col, ends, "save with Unix line ends")
	}
	if len(text) > 0 && text[len(text)-1] != '\n' && c.Glidein == nil {
		l, col := at(len(text) - 1)
		add(Error, l, col+1, "the last line has no line end, so text that is appended sticks to it", "end the file with a line feed")
	}
}

func invalidUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// plainLines returns the lines of the parts that hold a context of amiconfig's
// kind, with their numbers in Text. Lines of an encoded part all have the number
// of its first line.
func (c *Context) plainLines() []line {
	if !c.MIME {
		return c.lines
	}
	var lines []line
	for _, p := range c.Parts {
		if p.Kind == Plain {
			lines = append(lines, p.lines()...)
		}
	}
	return lines
}

// lines returns the part's lines with their numbers in the text of the context.
func (p Part) lines() []line {
	lines := splitLines(p.Data)
	for i := range lines {
		if p.Encoding != "" || p.Packed {
			lines[i].number = p.Line
		} else {
			lines[i].number += p.Line - 1
		}
		lines[i].ended = true // the part's end ends it
	}
	return lines
}

// Block returns the boot loader's keys as Mica reads them, from every part that
// can hold some, however it is encoded.
func (c *Context) Block() Block {
	if c.Glidein != nil {
		return c.Glidein.Block()
	}
	if b := parseBlock(c.plainLines()); b.Found || !c.MIME {
		return b
	}
	return parseBlock(c.lines) // perhaps between the parts; the original sees it there
}

// Amiconfig returns the sections and options as Mica reads them. It differs from
// the original's reading of the same file only where the context is MIME, begins
// with a byte order mark or has carriage returns.
func (c *Context) Amiconfig() *Amiconfig {
	lines := slices.Clone(c.plainLines())
	for i := range lines {
		lines[i].text = strings.TrimSuffix(lines[i].text, "\r")
	}
	return parseAmiconfig(lines)
}

// Script returns the script as Mica reads it: at the start of the context; in
// MIME, at the start of the first of amiconfig's parts that has one, else the
// first part that is a shell script. The latter is cloud-init's as well, which the
// field CloudInit says.
func (c *Context) Script() Script {
	if !c.MIME {
		return parseScript(c.lines)
	}
	for _, kind := range []Kind{Plain, ShellScript} {
		for _, p := range c.Parts {
			if p.Kind != kind {
				continue
			}
			if s := parseScript(p.lines()); s.Present {
				s.Original = OriginalScript{Why: "amiconfig does not look into MIME parts for a script"}
				// The endings .before and .after are amiconfig's alone.
				s.CloudInit = kind == ShellScript && !phaseEnding.Match(s.Text)
				return s
			}
		}
	}
	return Script{Original: OriginalScript{Why: "the first line does not start with #!"}}
}

// Original is what the original agents read from the same bytes.
type Original struct {
	Block     Block // of which only Setting.Original and Setting.Shell count
	Amiconfig *Amiconfig
	Script    OriginalScript
}

// Original returns the original agents' readings. Base64 and context.sh count as
// taken off by the way in which the context is delivered; gzip only by those that
// can: the boot loader, not amiconfig.
func (c *Context) Original() Original {
	o := Original{Block: parseBlock(splitLines(c.Text))}
	if slices.ContainsFunc(c.Layers, func(l string) bool { return strings.HasPrefix(l, "gzip") }) {
		o.Amiconfig = &Amiconfig{}
		o.Script.Why = "amiconfig cannot decompress gzip"
		return o
	}
	o.Amiconfig = ParseAmiconfig(c.Text)
	o.Script = originalScript(splitLines(c.Text))
	return o
}
