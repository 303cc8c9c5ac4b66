package convert

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/base64"
	"io"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext"
)

// Unmapped is something that the other form cannot express.
type Unmapped struct {
	Line int    `json:"line,omitempty"`
	What string `json:"what"`
	Why  string `json:"why"`
}

// Target is a form to convert to.
type Target struct {
	Name, Text string
	convert    func(Loaded, io.Reader) ([]byte, []Unmapped, error)
}

// Targets returns every form.
func Targets() []Target {
	return []Target{
		{"context", "script, sections and boot loader's block in one text", func(l Loaded, _ io.Reader) ([]byte, []Unmapped, error) {
			out, left := toPlain(l.Context)
			return out, left, nil
		}},
		{"mime", "one part for each agent", func(l Loaded, r io.Reader) ([]byte, []Unmapped, error) {
			out, err := toMIME(l.Context, r)
			return out, nil, err
		}},
		{"cloud-config", "what cloud-init can do of it", func(l Loaded, r io.Reader) ([]byte, []Unmapped, error) {
			return toCloudConfig(l.Context, r)
		}},
		{"context.sh", "OpenNebula's shell fragment", func(l Loaded, _ io.Reader) ([]byte, []Unmapped, error) {
			return []byte("EC2_USER_DATA=\"" + base64.StdEncoding.EncodeToString(l.Text) + "\"\nONE_CONTEXT_PATH=\"/var/lib/amiconfig\"\n"), nil, nil
		}},
		{"base64", "in base64, on one line", func(l Loaded, _ io.Reader) ([]byte, []Unmapped, error) {
			return append(base64.StdEncoding.AppendEncode(nil, l.Text), '\n'), nil, nil
		}},
		{"gzip", "compressed", func(l Loaded, _ io.Reader) ([]byte, []Unmapped, error) {
			out, err := compress(l.Text)
			return out, nil, err
		}},
	}
}

func compress(text []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// To converts a context to the named form. What could not be expressed is listed.
func To(l Loaded, name string, random io.Reader) ([]byte, []Unmapped, error) {
	if random == nil {
		random = rand.Reader
	}
	for _, t := range Targets() {
		if t.Name == name {
			return t.convert(l, random)
		}
	}
	names := ""
	for _, t := range Targets() {
		names += " " + t.Name
	}
	return nil, nil, fail.New(fail.Usage, "unknown form %q", name).Hint("the forms are:%s", names)
}

// toPlain puts the parts that amiconfig and the boot loader read into one text.
func toPlain(c *usercontext.Context) ([]byte, []Unmapped) {
	if !c.MIME {
		if k := c.Parts[0].Kind; k != usercontext.Plain {
			return c.Text, nil
		}
		return c.Parts[0].Data, nil
	}
	var left []Unmapped
	var out bytes.Buffer
	s := c.Script()
	if s.Present {
		out.Write(s.Text)
		if !bytes.HasSuffix(s.Text, []byte("\n")) {
			out.WriteByte('\n')
		}
		if !bytes.HasSuffix(bytes.TrimSpace(lastLine(s.Text)), []byte("exit")) && !bytes.HasPrefix(lastLine(s.Text), []byte("exit")) {
			out.WriteString("exit 0\n")
		}
		out.WriteByte('\n')
	}
	for _, p := range c.Parts {
		switch {
		case p.Kind == usercontext.Plain:
			data := p.Data
			if ps := usercontext.ParseScript(data); ps.Present {
				data = data[min(len(data), len(ps.Text)):]
			}
			if len(bytes.TrimSpace(data)) > 0 {
				out.Write(bytes.TrimSuffix(data, []byte("[end]\n")))
				out.WriteByte('\n')
			}
		case p.Kind == usercontext.Empty:
		case p.Kind == usercontext.ShellScript && s.Present && bytes.Equal(p.Data, s.Text):
		default:
			left = append(left, Unmapped{p.Line, "part of type " + p.Type, "only cloud-init reads it"})
		}
	}
	return append(bytes.TrimRight(out.Bytes(), "\n"), '\n'), left
}

func lastLine(text []byte) []byte {
	text = bytes.TrimRight(text, "\n \t")
	return text[bytes.LastIndexByte(text, '\n')+1:]
}
