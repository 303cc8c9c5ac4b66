package explain

import (
	"fmt"
	"io"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
)

// Options say how much to tell.
type Options struct {
	Reveal bool // show secrets
}

// Explanation is what a context does.
type Explanation struct {
	Schema int      `json:"schema"`
	Name   string   `json:"name"`
	Bytes  int      `json:"bytes"`
	Form   string   `json:"form"`   // what the context is
	Layers []string `json:"layers"` // what it was wrapped in
	Agents []Agent  `json:"agents"` // in the order in which they act
}

// Agent is one reader of the context.
type Agent struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	Steps   []Step `json:"steps"`
}

// Step is one thing an agent does.
type Step struct {
	Line     int    `json:"line,omitempty"` // of the context
	Text     string `json:"text"`
	Original string `json:"original,omitempty"` // what an original CernVM does instead
	When     string `json:"when,omitempty"`     // "" is once, at the first boot
	Details  []Step `json:"details,omitempty"`
}

// Explain tells what c does.
func Explain(c *usercontext.Context, o Options) Explanation {
	e := Explanation{Schema: 1, Name: c.Name, Bytes: len(c.Raw), Form: form(c), Layers: c.Layers}
	if e.Layers == nil {
		e.Layers = []string{}
	}
	e.Agents = []Agent{bootLoader(c), contextAgent(c, o), cloudInit(c)}
	for i := range e.Agents {
		if e.Agents[i].Steps == nil {
			e.Agents[i].Steps = []Step{}
		}
	}
	return e
}

// form says what a context is made of.
func form(c *usercontext.Context) string {
	if c.Glidein != nil {
		return "options of a glideinWMS pilot"
	}
	if c.MIME {
		var kinds []string
		for _, p := range c.Parts {
			kind := p.Kind.String()
			if p.Kind == usercontext.Plain {
				kind = strings.TrimPrefix(p.Type, "text/")
			}
			kinds = append(kinds, kind)
		}
		return fmt.Sprintf("MIME with %d parts: %s", len(c.Parts), strings.Join(kinds, ", "))
	}
	if k := c.Parts[0].Kind; k != usercontext.Plain {
		return k.String()
	}
	var has []string
	if c.Script().Present {
		has = append(has, "script")
	}
	sections := 0
	for _, h := range c.Amiconfig().Sections {
		if !strings.HasPrefix(h.Name, "ucernvm-") {
			sections++
		}
	}
	if sections > 0 {
		has = append(has, "sections")
	}
	if c.Block().Found {
		has = append(has, "boot loader's block")
	}
	return strings.Join(has, ", ")
}

// Text writes the explanation for people.
func (e Explanation) Text(w io.Writer) error {
	p := printer{w: w}
	p.printf("%s: %d bytes, %s", e.Name, e.Bytes, e.Form)
	if len(e.Layers) > 0 {
		p.printf(", inside %s", strings.Join(e.Layers, ", "))
	}
	p.printf("\n")
	for i, a := range e.Agents {
		p.printf("\n%d. %s\n   %s\n", i+1, a.Name, a.Summary)
		p.steps(a.Steps, "   - ")
	}
	return p.err
}

type printer struct {
	w   io.Writer
	err error
}

func (p *printer) steps(steps []Step, mark string) {
	for _, s := range steps {
		p.printf("%s%s", mark, s.Text)
		var about []string
		if s.When != "" {
			about = append(about, s.When)
		}
		if s.Line > 0 {
			about = append(about, fmt.Sprintf("line %d", s.Line))
		}
		if len(about) > 0 {
			p.printf(" (%s)", strings.Join(about, ", "))
		}
		p.printf("\n")
		indent := strings.Repeat(" ", len(mark))
		if s.Original != "" {
			p.printf("%s! an original CernVM %s\n", indent, s.Original)
		}
		p.steps(s.Details, indent+"- ")
	}
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}
