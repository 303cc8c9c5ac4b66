package usercontext

import (
	"bytes"
	"strings"
)

// CloudPart is a part as cloud-init sees it.
type CloudPart struct {
	Kind Kind
	Type string // text/x-not-multipart when nothing else fits
	Line int
	// Handled is false when cloud-init skips the part with a warning, which
	// contains the part's first bytes.
	Handled bool
	Data    []byte
}

// CloudInit returns the parts as cloud-init finds them: none for an empty context.
//
// Compat: cloud-init: cloudinit/user_data.py and cloudinit/handlers/__init__.py. A
// text is MIME when "mime-version:" occurs in its first 4096 bytes, wherever.
func (c *Context) CloudInit() []CloudPart {
	if len(bytes.TrimSpace(c.Text)) == 0 {
		return nil
	}
	if c.MIME && c.CloudInitSeesMIME() {
		var parts []CloudPart
		for _, p := range c.Parts {
			if p.Kind == Empty {
				continue
			}
			kind := p.Kind
			if kind == Plain && p.Type != "text/x-shellscript" {
				kind = Unknown
			}
			parts = append(parts, CloudPart{kind, p.Type, p.Line, kind != Unknown, p.Data})
		}
		return parts
	}
	kind, typ := sniff(c.Text)
	if kind == Plain && typ == "text/x-shellscript" {
		return []CloudPart{{ShellScript, typ, 1, true, c.Text}}
	}
	if kind == Plain || kind == Unknown {
		return []CloudPart{{Unknown, "text/x-not-multipart", 1, false, c.Text}}
	}
	return []CloudPart{{kind, typ, 1, true, c.Text}}
}

// CloudInitSeesMIME reports whether cloud-init takes the text for MIME, which it
// does also for a text that only mentions the header.
func (c *Context) CloudInitSeesMIME() bool {
	head := string(c.Text[:min(len(c.Text), 4096)])
	return strings.Contains(lowerASCII(head), "mime-version:")
}
