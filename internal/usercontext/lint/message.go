package lint

import (
	"bytes"
	"regexp"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
)

// checkMessage judges MIME and what the parts are.
func (k *checker) checkMessage() {
	c := k.context
	if !c.MIME {
		k.checkPlainKind()
		return
	}
	if !c.CloudInitSeesMIME() {
		k.add("M004", 1, 1, "write MIME-Version: 1.0 as the first line", "cloud-init does not see that this is MIME: MIME-Version is missing from the first 4096 bytes")
	}
	for _, p := range c.Parts {
		k.checkPart(p)
	}
	k.checkAbsorbed()
}

var almostCloudConfig = regexp.MustCompile(`^#[ \t_-]*cloud[ \t_-]*config`)

// checkPlainKind says when a context that is not MIME is none at all.
func (k *checker) checkPlainKind() {
	c := k.context
	p := c.Parts[0]
	top, _, _ := bytes.Cut(bytes.TrimSpace(p.Data), []byte("\n"))
	switch {
	case c.Glidein != nil:
	case p.Kind == usercontext.Empty:
		k.addAs(note, "M004", 0, 0, "", "the context is empty: the machine takes no role")
	case p.Kind == usercontext.Unknown && almostCloudConfig.Match(bytes.ToLower(top)):
		k.add("Y001", 1, 1, "write #cloud-config", "the first line is not exactly #cloud-config, so no agent knows what this is")
	case p.Kind == usercontext.Unknown && bytes.HasPrefix(top, []byte("---")):
		k.add("Y001", 1, 1, "write #cloud-config above it", "a cloud-config starts with the line #cloud-config, not with ---")
	case p.Kind == usercontext.Unknown && bytes.HasPrefix(top, []byte("{")):
		k.add("M004", 1, 1, "convert it with: mica context convert --to context", "no agent reads JSON; is this a definition exported from CernVM Online?")
	case p.Kind == usercontext.Unknown:
		k.add("M004", 1, 1, "start with #!, #cloud-config, or a line like [amiconfig]", "no agent knows what this is")
	case c.CloudInitSeesMIME():
		k.addAs(warning, "M004", 1, 1, "do not write MIME-Version: in the first 4096 bytes", "cloud-init takes the context for a MIME message, because it mentions MIME-Version:")
	}
}

func (k *checker) checkPart(p usercontext.Part) {
	raw := p.Data
	switch {
	case p.Kind == usercontext.Unknown:
		k.add("M004", p.Line, 1, "", "no agent takes a part of type %s", p.Type)
	case p.Kind == usercontext.Plain && (p.Encoding != "" || p.Packed):
		how := p.Encoding
		if how == "" {
			how = "gzip"
		}
		k.add("M002", p.Line, 1, "write the part unencoded (7bit or 8bit)", "the part is encoded (%s), so an original CernVM finds nothing in it", how)
	case p.Kind == usercontext.CloudConfig && bytes.HasPrefix(raw, []byte("#!")):
		k.add("M004", p.Line, 1, "declare it as text/x-shellscript", "the part is a script, but declared as %s", p.Type)
	case p.Kind == usercontext.ShellScript && !bytes.HasPrefix(raw, []byte("#!")):
		k.add("M004", p.Line, 1, "start it with #!/bin/sh", "the part is declared as a script, but does not start with #!")
	}
	if bytes.HasPrefix(raw, []byte("From ")) {
		k.add("M005", p.Line, 1, "", "mail programs put \">\" before a first word From")
	}
}

// checkAbsorbed looks for text outside the amiconfig parts that the original
// takes for options.
func (k *checker) checkAbsorbed() {
	c := k.context
	meant := map[int]bool{}
	plainEnd := 0
	for _, p := range c.Parts {
		if p.Kind != usercontext.Plain || p.Encoding != "" || p.Packed {
			continue
		}
		lines := bytes.Count(p.Data, []byte("\n"))
		for l := p.Line; l < p.Line+lines; l++ {
			meant[l] = true
		}
		plainEnd = p.Line + lines
	}
	told := map[string]bool{}
	for _, o := range c.Original().Amiconfig.Options {
		if meant[o.Line] || o.Line < plainEnd && !meant[o.Line] && isMIMEHeader(o.Key) {
			continue
		}
		p, known := k.plugin(o.Section)
		if !known && o.Section != "amiconfig" {
			continue
		}
		_, real := lookup(p, o.Key)
		real = real || o.Section == "amiconfig" && (o.Key == "plugins" || o.Key == "disabled_plugins")
		switch {
		case real:
			k.add("M003", o.Line, 1, "put the amiconfig part last", "an original CernVM takes this line for %s of [%s]", o.Key, o.Section)
		case !told[o.Section] && !isMIMEHeader(o.Key):
			told[o.Section] = true
			k.addAs(warning, "M003", o.Line, 1, "put the amiconfig part last, or end it with a line [end]", "an original CernVM takes this line and those below for options of [%s]", o.Section)
		}
	}
}

func isMIMEHeader(key string) bool {
	return strings.HasPrefix(key, "content-") || slices.Contains([]string{"mime-version", "from", "boundary"}, key) || strings.HasPrefix(key, "--")
}
