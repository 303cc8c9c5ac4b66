package usercontext

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"path"
	"strings"
)

const (
	maxParts   = 256
	maxNesting = 4
)

// message is what the MIME reader found.
type message struct {
	parts    []Part
	problems []Problem
	size     int // of all decoded parts
}

func (m *message) add(rule string, s Severity, line int, text, remedy string) {
	m.problems = append(m.problems, Problem{rule, s, line, 1, text, remedy})
}

// readMIME reads lines as a MIME message if they start with a header that makes
// them one.
func readMIME(lines []line) (*message, bool) {
	i := 0
	for i < len(lines) && strings.TrimRight(lines[i].text, " \t\r") == "" {
		i++
	}
	start := i
	if i < len(lines) && strings.HasPrefix(lines[i].text, "From ") { // mailbox line
		i++
	}
	head, body := readHeader(lines[i:])
	typ, isMIME := head["content-type"]
	_, versioned := head["mime-version"]
	if !isMIME || !versioned && !strings.HasPrefix(strings.ToLower(typ), "multipart/") {
		return nil, false
	}
	m := &message{}
	if start > 0 {
		m.add("M005", Warning, 1, "blank lines before the MIME header", "remove them")
	}
	if i > start {
		m.add("M005", Warning, lines[start].number, "a mailbox line before the MIME header", "remove it")
	}
	m.entity(lines[i:], head, body, 0)
	if len(m.parts) == 0 {
		m.add("M001", Error, lines[start].number, "the MIME message has no part", "")
	}
	return m, true
}

// readHeader reads header lines, and returns them by lower-case name with the
// number of lines up to the body, the blank line included.
func readHeader(lines []line) (map[string]string, int) {
	head := map[string]string{}
	last := ""
	for i, l := range lines {
		text := strings.TrimSuffix(l.text, "\r")
		if text == "" {
			return head, i + 1
		}
		if text[0] == ' ' || text[0] == '\t' {
			if last != "" {
				head[last] += " " + strings.TrimSpace(text)
			}
			continue
		}
		name, value, found := strings.Cut(text, ":")
		if !found || name == "" || strings.ContainsAny(name, " \t[]=#") {
			return head, i // no header line: the body starts without a blank line
		}
		last = strings.ToLower(name)
		head[last] = strings.TrimSpace(value)
	}
	return head, len(lines)
}

// entity reads one header with its body.
func (m *message) entity(lines []line, head map[string]string, body, depth int) {
	number := 0
	if len(lines) > 0 {
		number = lines[0].number
	}
	declared, params, err := mime.ParseMediaType(head["content-type"])
	if err != nil {
		declared, params = bareType(head["content-type"]), nil
		if head["content-type"] != "" {
			m.add("M001", Warning, number, "the Content-Type header is malformed", "")
		}
	}
	if !strings.HasPrefix(declared, "multipart/") {
		m.leaf(lines, head, body, declared)
		return
	}
	boundary := params["boundary"]
	switch {
	case boundary == "":
		m.add("M001", Error, number, "the multipart header names no boundary", "add boundary=\"…\" to the Content-Type")
		return
	case len(boundary) > 70:
		m.add("M001", Error, number, "the boundary is longer than 70 characters", "")
	case depth == maxNesting:
		m.add("M001", Error, number, fmt.Sprintf("multipart messages are nested more than %d deep", maxNesting), "")
		return
	}
	m.multipart(lines[body:], boundary, number, depth)
}

func (m *message) multipart(lines []line, boundary string, header, depth int) {
	start, closed := -1, false
	part := func(end int) {
		if start < 0 || len(m.parts) == maxParts {
			return
		}
		inner := lines[start:end]
		head, body := readHeader(inner)
		if body == 0 && len(inner) > 0 {
			m.add("M001", Warning, inner[0].number, "no blank line between the part's header and its body", "insert one")
		}
		m.entity(inner, head, body, depth+1)
	}
	for i, l := range lines {
		text := strings.TrimRight(l.text, " \t\r")
		if text == "--"+boundary {
			part(i)
			start = i + 1
		}
		if text == "--"+boundary+"--" {
			part(i)
			start, closed = -1, true
			break
		}
	}
	switch {
	case closed:
	case start < 0:
		m.add("M001", Error, header, "the boundary that the header names never occurs", "check the boundary parameter")
	default:
		part(len(lines))
		m.add("M001", Warning, header, "the final boundary is missing", "end the message with --"+boundary+"--")
	}
	if len(m.parts) == maxParts {
		m.add("M001", Error, header, fmt.Sprintf("more than %d parts; the rest is not read", maxParts), "")
	}
}

// leaf decodes a part that has no parts.
func (m *message) leaf(lines []line, head map[string]string, body int, declared string) {
	if len(m.parts) == maxParts {
		return
	}
	p := Part{Type: declared, Line: 1}
	if len(lines) > 0 {
		p.Header, p.Line = lines[0].number, lines[0].number+body
	}
	// The line end before a boundary belongs to the boundary, not to the body; a
	// text that would lose its last line end that way keeps it.
	raw := bytes.TrimSuffix(join(lines[body:]), []byte("\n"))
	if len(raw) > 0 && raw[len(raw)-1] != '\n' {
		raw = append(raw, '\n')
	}
	switch enc := strings.ToLower(strings.TrimSpace(head["content-transfer-encoding"])); enc {
	case "", "7bit", "8bit", "binary":
		p.Data = raw
	case "base64":
		p.Encoding = enc
		data, err := base64.StdEncoding.DecodeString(stripSpace(raw))
		if err != nil {
			m.add("M001", Error, p.Line, "the part says that it is base64 and is not", "")
		}
		p.Data = data
	case "quoted-printable":
		p.Encoding = enc
		data, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(raw)))
		if err != nil {
			m.add("M001", Error, p.Line, "the part says that it is quoted-printable and is not", "")
		}
		p.Data = data
	default:
		m.add("M001", Error, p.Header, fmt.Sprintf("unknown transfer encoding %q", enc), "use 7bit or 8bit")
		p.Data = raw
	}
	if bytes.HasPrefix(p.Data, []byte{0x1f, 0x8b}) {
		plain, _, err := gunzip(p.Data)
		if err != nil {
			m.add("M001", Error, p.Line, fmt.Sprintf("the part cannot be decompressed: %v", err), "")
		} else {
			p.Packed, p.Data = true, plain
		}
	}
	if m.size += len(p.Data); m.size > MaxSize {
		m.add("Z001", Error, p.Line, "the parts together are larger than 1 MiB; the rest is not read", "")
		p.Data = nil
	}
	if _, params, err := mime.ParseMediaType(head["content-disposition"]); err == nil && params["filename"] != "" {
		p.Filename = params["filename"]
		if path.Base(p.Filename) != p.Filename {
			m.add("M005", Warning, p.Header, "the part's file name has a path in it", "use the base name")
		}
	}
	p.Kind, p.Type = partKind(declared, p.Data)
	m.parts = append(m.parts, p)
}

// partKind trusts the declared type where cloud-init does, and looks at the
// content otherwise.
func partKind(declared string, data []byte) (Kind, string) {
	switch declared {
	case "text/amiconfig-user-data", "text/ucernvm":
		return Plain, declared
	case "text/cloud-config":
		return CloudConfig, declared
	case "text/cloud-config-archive":
		return CloudArchive, declared
	case "text/cloud-config-jsonp":
		return CloudPatch, declared
	case "text/cloud-boothook":
		return Boothook, declared
	case "text/part-handler":
		return PartHandler, declared
	case "text/x-include-url", "text/x-include-once-url":
		return Include, declared
	case "text/jinja2":
		return Template, declared
	case "text/x-shellscript-per-boot", "text/x-shellscript-per-instance", "text/x-shellscript-per-once":
		return ShellScript, declared
	case "", "text/plain", "text/x-not-multipart", "text/x-shellscript":
		kind, typ := sniff(data)
		if declared == "text/x-shellscript" && (kind == Plain || kind == Unknown) {
			return ShellScript, declared
		}
		return kind, typ
	}
	return Unknown, declared
}

// sniffed are the beginnings by which cloud-init knows a part, longest first.
func sniffed() []struct {
	prefix, typ string
	kind        Kind
} {
	return []struct {
		prefix, typ string
		kind        Kind
	}{
		{"#cloud-config-archive", "text/cloud-config-archive", CloudArchive},
		{"#cloud-config-jsonp", "text/cloud-config-jsonp", CloudPatch},
		{"## template: jinja", "text/jinja2", Template},
		{"#cloud-boothook", "text/cloud-boothook", Boothook},
		{"#cloud-config", "text/cloud-config", CloudConfig},
		{"#part-handler", "text/part-handler", PartHandler},
		{"#include-once", "text/x-include-once-url", Include},
		{"#include", "text/x-include-url", Include},
		{"#!", "text/x-shellscript", Plain}, // amiconfig runs it, too, and sections may follow
	}
}

// sniff guesses what a text is.
func sniff(data []byte) (Kind, string) {
	head := bytes.TrimLeft(data, pythonSpace)
	low := lowerASCII(string(head[:min(len(head), 64)]))
	for _, s := range sniffed() {
		if strings.HasPrefix(low, s.prefix) {
			return s.kind, s.typ
		}
	}
	if len(head) == 0 {
		return Empty, "text/plain"
	}
	for _, l := range splitLines(data) {
		if _, ok := sectionHeader(l.text); ok {
			return Plain, "text/plain"
		}
	}
	return Unknown, "text/plain"
}

// bareType is the type of a header that is otherwise malformed.
func bareType(header string) string {
	typ, _, _ := strings.Cut(header, ";")
	return strings.ToLower(strings.TrimSpace(typ))
}

func stripSpace(data []byte) string {
	return string(bytes.Join(bytes.Fields(data), nil))
}
