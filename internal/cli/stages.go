package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/micavm/mica/internal/stage"
)

// stageView shows the stages of a boot as they come.
type stageView struct {
	w     io.Writer
	name  string // before every line, where several machines are shown
	live  bool   // a terminal: a started stage shows at once, and is written over
	open  string // what stands on the unfinished line
	plain func(stage.Event)
}

// stages returns the view that --progress asks for. With a name its lines say
// whose they are.
func (a *app) stages(name string) *stageView {
	v := &stageView{w: a.Err, live: isTerminal(a.Err)}
	if name != "" {
		v.name, v.live = name+": ", false
	}
	switch a.progress {
	case "none":
		v.plain = func(stage.Event) {}
	case "jsonl":
		enc := json.NewEncoder(a.Err)
		v.plain = func(e stage.Event) { _ = enc.Encode(e) }
	case "lines":
		v.live = false
	}
	return v
}

func (v *stageView) event(e stage.Event) {
	if v.plain != nil {
		v.plain(e)
		return
	}
	if e.State == stage.Started {
		if v.live {
			v.end()
			v.open = stageName(e) + " ..."
			_, _ = io.WriteString(v.w, v.open)
		}
		return
	}
	if v.open != "" {
		_, _ = io.WriteString(v.w, "\r\x1b[K")
		v.open = ""
	}
	_, _ = io.WriteString(v.w, v.name+stageLine(e)+"\n")
}

// end finishes a line that waits for its stage.
func (v *stageView) end() {
	if v.open != "" {
		_, _ = fmt.Fprintln(v.w)
		v.open = ""
	}
}

// stageName is the stage's name; a plugin goes by its own.
func stageName(e stage.Event) string {
	if name := e.Facts["plugin"]; e.Stage == stage.Plugin && name != "" {
		return clean("plugin " + name)
	}
	return clean(e.Stage)
}

// stageLine is "network ... done 0.5 s: detail (remedy)".
func stageLine(e stage.Event) string {
	line := stageName(e) + " ... " + clean(string(e.State))
	if e.Seconds > 0 {
		line += fmt.Sprintf(" %.1f s", e.Seconds)
	}
	if e.Detail != "" {
		line += ": " + clean(e.Detail)
	}
	if e.Remedy != "" {
		line += " (" + clean(e.Remedy) + ")"
	}
	return line
}

// clean keeps what a guest says from moving the cursor or worse.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return ' '
		case r < ' ', r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, text)
}
