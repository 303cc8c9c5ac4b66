package multipart

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"path"
	"slices"
	"unicode/utf8"

	"github.com/micavm/mica/internal/fail"
)

// Part is one part of a MIME message to be made.
type Part struct {
	Type     string // below text/: cloud-config, amiconfig-user-data, ucernvm, x-shellscript …
	Filename string
	Data     []byte
}

// Write puts parts together the way every agent can read: header at the first
// byte, line feeds only, bodies unencoded, a boundary that is no option of
// amiconfig's, and amiconfig's parts last, unless keepOrder; then a neutral section
// ends them instead.
func Write(parts []Part, keepOrder bool, random io.Reader) ([]byte, error) {
	parts = slices.Clone(parts)
	for i := range parts {
		p := &parts[i]
		p.Data = bytes.ReplaceAll(p.Data, []byte("\r\n"), []byte("\n"))
		if len(p.Data) > 0 && p.Data[len(p.Data)-1] != '\n' {
			p.Data = append(bytes.Clone(p.Data), '\n')
		}
		if !utf8.Valid(p.Data) || bytes.IndexByte(p.Data, 0) >= 0 {
			return nil, fail.New(fail.Failed, "part %q is not text, and amiconfig reads no encoded parts", p.Filename).
				Hint("remove bytes that are not UTF-8")
		}
	}
	if !keepOrder {
		slices.SortStableFunc(parts, func(a, b Part) int { return rank(a.Type) - rank(b.Type) })
	}
	lastIs := len(parts) > 0 && parts[len(parts)-1].Type == "amiconfig-user-data"
	for i := range parts {
		if parts[i].Type == "amiconfig-user-data" && (i < len(parts)-1 || !lastIs) {
			parts[i].Data = append(bytes.Clone(parts[i].Data), "[end]\n"...)
		}
	}
	boundary, err := freshBoundary(parts, random)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "Content-Type: multipart/mixed; boundary=\"%s\"\nMIME-Version: 1.0\n", boundary)
	for _, p := range parts {
		encoding := "7bit"
		if bytes.ContainsFunc(p.Data, func(r rune) bool { return r > 126 }) {
			encoding = "8bit"
		}
		fmt.Fprintf(&out, "\n--%s\nContent-Type: text/%s; charset=\"utf-8\"\nMIME-Version: 1.0\nContent-Transfer-Encoding: %s\n", boundary, p.Type, encoding)
		if name := path.Base(p.Filename); p.Filename != "" {
			out.WriteString("Content-Disposition: " + mime.FormatMediaType("attachment", map[string]string{"filename": name}) + "\n")
		}
		out.WriteByte('\n')
		out.Write(p.Data)
	}
	fmt.Fprintf(&out, "\n--%s--\n", boundary)
	return out.Bytes(), nil
}

// rank orders parts: what amiconfig reads comes last, because it takes everything
// behind its last section for options of it.
func rank(typ string) int {
	switch typ {
	case "amiconfig-user-data":
		return 3
	case "ucernvm":
		return 2
	case "cloud-config":
		return 1
	}
	return 0
}

func freshBoundary(parts []Part, random io.Reader) (string, error) {
	for {
		id := make([]byte, 16)
		if _, err := io.ReadFull(random, id); err != nil {
			return "", fmt.Errorf("reading random bytes: %w", err)
		}
		boundary := "CTX-" + hex.EncodeToString(id)
		if !slices.ContainsFunc(parts, func(p Part) bool { return bytes.Contains(p.Data, []byte(boundary)) }) {
			return boundary, nil
		}
	}
}
