package convert

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/lint"
)

// Info is what a file is as a context.
type Info struct {
	Schema int         `json:"schema"`
	Name   string      `json:"name"`
	Bytes  int         `json:"bytes"`      // as given
	Text   int         `json:"text_bytes"` // unwrapped
	Gzip   int         `json:"gzip_bytes"` // when compressed
	Base64 int         `json:"base64_bytes"`
	SHA256 string      `json:"sha256"` // of the unwrapped text
	Layers []string    `json:"layers"`
	MIME   bool        `json:"mime"`
	Parts  []InfoPart  `json:"parts"`
	Fits   []InfoLimit `json:"fits"` // on which platform
}

// InfoPart is one part.
type InfoPart struct {
	Line     int    `json:"line"`
	Bytes    int    `json:"bytes"`
	Kind     string `json:"kind"`
	Type     string `json:"type"`
	Filename string `json:"filename,omitempty"`
	Encoding string `json:"encoding,omitempty"`
}

// InfoLimit says whether a platform delivers the context.
type InfoLimit struct {
	Target string `json:"target"`
	Limit  int    `json:"limit"`
	Fits   bool   `json:"fits"`
}

// Inspect measures a context and lists its parts.
func Inspect(c *usercontext.Context) (Info, error) {
	packed, err := compress(c.Text)
	if err != nil {
		return Info{}, err
	}
	sum := sha256.Sum256(c.Text)
	i := Info{
		Schema: 1, Name: c.Name, Bytes: len(c.Raw), Text: len(c.Text), Gzip: len(packed), Base64: base64.StdEncoding.EncodedLen(len(c.Text)),
		SHA256: hex.EncodeToString(sum[:]), Layers: c.Layers, MIME: c.MIME, Parts: []InfoPart{}, Fits: []InfoLimit{},
	}
	if i.Layers == nil {
		i.Layers = []string{}
	}
	for _, p := range c.Parts {
		encoding := p.Encoding
		if p.Packed {
			encoding = strings.TrimSpace(encoding + " gzip")
		}
		i.Parts = append(i.Parts, InfoPart{p.Line, len(p.Data), p.Kind.String(), p.Type, p.Filename, encoding})
	}
	limits := lint.Targets()
	for _, target := range slices.Sorted(maps.Keys(limits)) {
		i.Fits = append(i.Fits, InfoLimit{target, limits[target], len(c.Text) <= limits[target]})
	}
	return i, nil
}

// Print writes the information for people.
func (i Info) Print(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s: %d bytes", i.Name, i.Bytes)
	if len(i.Layers) > 0 {
		fmt.Fprintf(&out, " (%s), %d bytes of text", strings.Join(i.Layers, ", "), i.Text)
	}
	fmt.Fprintf(&out, "\nsha256 %s\n%d bytes when compressed, %d as base64\n", i.SHA256, i.Gzip, i.Base64)
	tw := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "\nLINE\tBYTES\tKIND\tTYPE\tNAME")
	for _, p := range i.Parts {
		_, _ = fmt.Fprintf(tw, "%d\t%d\t%s\t%s\t%s\n", p.Line, p.Bytes, p.Kind, strings.TrimSpace(p.Type+" "+p.Encoding), p.Filename)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	var no []string
	for _, f := range i.Fits {
		if !f.Fits {
			no = append(no, fmt.Sprintf("%s (%d bytes)", f.Target, f.Limit))
		}
	}
	if len(no) > 0 {
		fmt.Fprintf(&out, "\ntoo large for %s\n", strings.Join(no, ", "))
	}
	_, err := w.Write(out.Bytes())
	return err
}
