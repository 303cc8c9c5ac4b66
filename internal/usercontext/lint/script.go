package lint

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/micavm/mica/internal/usercontext"
)

// checkScript judges the leading script, and the syntax of scripts that are parts
// of their own.
func (k *checker) checkScript() {
	s := k.script
	if s.Present && !s.CloudInit { // which is among the parts
		k.checkPhases(s)
		k.checkEnd(s)
		k.checkShell(s.Text, s.Line, s.End > s.Line)
		k.checkChanges(s)
		if !k.context.MIME && !s.Guarded {
			severity := note
			if k.options.CloudInit {
				severity = warning
			}
			k.addAs(severity, "S006", s.Line, 1, "exit unless a process above is amiconfig, or disable cloud-init", "where the operating system has cloud-init, that runs the script, too")
		}
	}
	for _, p := range k.context.Parts {
		if p.Kind == usercontext.ShellScript && bytes.HasPrefix(p.Data, []byte("#!")) {
			k.checkShell(p.Data, p.Line, p.Encoding == "" && !p.Packed)
		}
	}
}

func (k *checker) checkPhases(s usercontext.Script) {
	o := s.Original
	switch {
	case k.context.MIME:
	case o.Before && o.After:
		repeats := unrepeatable(s)
		text := "amiconfig runs the script before and after the plugins, because of a second #! line in it"
		if len(repeats) > 0 {
			text += "; the second time these do something else: " + strings.Join(repeats, ", ")
		}
		k.add("S003", s.Line, 1, "write the inner #! line another way, such as with printf", "%s", text)
	case !o.Before && !o.After && (s.Before || s.After):
		k.add("S002", s.Line, 1, "write #!/bin/sh.after or #!/bin/sh.before, without options or blanks behind it", "an original CernVM never runs the script: %s", why(o.Why))
	case !s.Before && !s.After:
		k.add("S002", s.Line, 1, "start with #!/bin/sh.after", "amiconfig runs shell scripts only; this is left to cloud-init")
	}
}

func why(text string) string {
	if text == "" {
		return "the #! line is not one of a shell"
	}
	return text
}

// checkEnd looks for the exit ahead of the sections.
func (k *checker) checkEnd(s usercontext.Script) {
	if s.Bounded {
		return
	}
	for _, h := range k.context.Amiconfig().Headers {
		if h.Line > s.Line && h.Line <= s.End && usercontext.KnownSection(strings.ToLower(h.Name)) {
			k.add("S001", h.Line, 1, "end the script with a line exit 0 at the left margin", "the script above has no exit at its end, so the shell runs this line and all that follow")
			return
		}
	}
}

// checkShell parses a script. Lines are counted from line on, unless mapped is
// false.
func (k *checker) checkShell(text []byte, line int, mapped bool) {
	at := func(p syntax.Pos) (int, int) {
		if !mapped || !p.IsValid() {
			return line, 1
		}
		return line + int(p.Line()) - 1, int(p.Col())
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(bytes.NewReader(text), "")
	if err != nil {
		pos, what := parseFailure(err)
		l, c := at(pos)
		if isShell(text) {
			k.add("S004", l, c, "", "the shell stops here: %s", what)
		}
		return
	}
	if asksForSh(text) {
		if _, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(bytes.NewReader(text), ""); err != nil {
			pos, what := parseFailure(err)
			l, c := at(pos)
			k.add("S005", l, c, "start the script with #!/bin/bash, or write it another way", "only bash knows this: %s", what)
		} else {
			for _, b := range bashisms(file) {
				l, c := at(b.pos)
				k.add("S005", l, c, "start the script with #!/bin/bash, or write it another way", "only bash knows %s", b.what)
			}
		}
	}
	for _, r := range risks(file) {
		l, c := at(r.pos)
		k.add("S008", l, c, "", "%s", r.what)
	}
}

func isShell(text []byte) bool {
	top, _, _ := bytes.Cut(text, []byte("\n"))
	return bytes.Contains(top, []byte("sh"))
}

var shLine = regexp.MustCompile(`^#![ \t]*(?:/\S*/)?(?:env[ \t]+)?(?:/\S*/)?sh(?:\.before|\.after)?(?:[ \t\r]|$)`)

func asksForSh(text []byte) bool {
	top, _, _ := bytes.Cut(text, []byte("\n"))
	return shLine.Match(top)
}

func parseFailure(err error) (syntax.Pos, string) {
	var p syntax.ParseError
	var l syntax.LangError
	switch {
	case errors.As(err, &p):
		return p.Pos, p.Text
	case errors.As(err, &l):
		return l.Pos, l.Feature
	}
	return syntax.Pos{}, err.Error()
}

type mark struct {
	pos  syntax.Pos
	what string
}

// bashisms finds what a POSIX parser takes for something harmless.
func bashisms(file *syntax.File) []mark {
	var found []mark
	seen := map[string]bool{}
	add := func(n syntax.Node, what string) {
		if !seen[what] { // the first of a kind is enough
			seen[what] = true
			found = append(found, mark{n.Pos(), what})
		}
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		call, ok := n.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		switch call.Args[0].Lit() {
		case "source":
			add(call, "source (write a dot)")
		case "[", "test":
			for _, a := range call.Args {
				if a.Lit() == "==" {
					add(a, "== in a test (write =)")
				}
			}
		case "pushd", "popd", "shopt", "declare", "typeset", "let":
			add(call, call.Args[0].Lit())
		}
		for _, a := range call.Args {
			if copied := *a; len(a.Parts) > 0 && syntax.SplitBraces(&copied) {
				add(a, "braces that expand to several words")
			}
		}
		return true
	})
	return found
}

var plainDownload = regexp.MustCompile(`^(?:"|')?http://`)

// risks finds commands that open the machine to others.
func risks(file *syntax.File) []mark {
	var found []mark
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.BinaryCmd:
			if n.Op == syntax.Pipe && isDownload(n.X) && isInterpreter(n.Y) {
				found = append(found, mark{n.Pos(), "what is downloaded is run without a look at it"})
			}
		case *syntax.CallExpr:
			found = append(found, callRisks(n)...)
		}
		return true
	})
	return found
}

func callRisks(call *syntax.CallExpr) []mark {
	var found []mark
	if len(call.Args) == 0 {
		return nil
	}
	name := call.Args[0].Lit()
	for _, a := range call.Args[1:] {
		word := printed(a)
		switch {
		case (name == "curl" || name == "wget") && plainDownload.MatchString(word):
			found = append(found, mark{a.Pos(), name + " over plain http: anybody on the way can replace the content"})
		case name == "chmod" && worldWritable.MatchString(word):
			found = append(found, mark{a.Pos(), "chmod " + word + " lets everybody write"})
		case strings.Contains(word, "StrictHostKeyChecking=no"):
			found = append(found, mark{a.Pos(), "ssh no longer notices another host in place of the right one"})
		case (name == "curl" && (word == "-k" || word == "--insecure")) || (name == "wget" && word == "--no-check-certificate"):
			found = append(found, mark{a.Pos(), name + " does not check the server's certificate"})
		}
	}
	return found
}

var worldWritable = regexp.MustCompile(`^(?:[0-7]?[0-7]{2}[2367]|[aou]*[ao][aou]*\+[rx]*w[rx]*)$`)

func isDownload(s *syntax.Stmt) bool {
	call, ok := s.Cmd.(*syntax.CallExpr)
	return ok && len(call.Args) > 0 && slices.Contains([]string{"curl", "wget"}, call.Args[0].Lit())
}

func isInterpreter(s *syntax.Stmt) bool {
	call, ok := s.Cmd.(*syntax.CallExpr)
	return ok && len(call.Args) > 0 && slices.Contains([]string{"sh", "bash", "dash", "python", "python3", "perl"}, call.Args[0].Lit())
}

// printed is a word as written, without its outer quotes.
func printed(w *syntax.Word) string {
	if lit := w.Lit(); lit != "" {
		return lit
	}
	var out strings.Builder
	for _, part := range w.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			out.WriteString(p.Value)
		case *syntax.SglQuoted:
			out.WriteString(p.Value)
		case *syntax.DblQuoted:
			for _, inner := range p.Parts {
				if l, ok := inner.(*syntax.Lit); ok {
					out.WriteString(l.Value)
				}
			}
		}
	}
	return out.String()
}

// unrepeatable lists commands that do something else the second time, with their
// lines.
func unrepeatable(s usercontext.Script) []string {
	file, err := syntax.NewParser().Parse(bytes.NewReader(s.Text), "")
	if err != nil {
		return nil
	}
	var found []string
	add := func(n syntax.Node, what string) {
		found = append(found, what+" in line "+strconv.Itoa(s.Line+int(n.Pos().Line())-1))
	}
	created := map[string]bool{} // files that the script itself starts afresh
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Stmt:
			for _, r := range n.Redirs {
				switch file := printed(r.Word); {
				case r.Op == syntax.RdrOut:
					created[file] = true
				case r.Op == syntax.AppOut && !created[file]:
					add(n, ">>")
				}
			}
		case *syntax.CallExpr:
			if len(n.Args) == 0 {
				break
			}
			flags := ""
			for _, a := range n.Args[1:] {
				if strings.HasPrefix(a.Lit(), "-") {
					flags += a.Lit()
				}
			}
			switch name := n.Args[0].Lit(); {
			case name == "ln" && !strings.Contains(flags, "f"),
				name == "mkdir" && !strings.Contains(flags, "p"),
				name == "mv", name == "useradd", name == "groupadd":
				add(n, name)
			}
		}
		return true
	})
	return found
}

// checkChanges looks for text that amiconfig changes before it runs the script,
// or takes for sections.
func (k *checker) checkChanges(s usercontext.Script) {
	if k.context.MIME {
		return
	}
	blanks, first := 0, 0
	for _, span := range multiline(s) {
		lines := strings.Split(string(s.Text), "\n")
		for i := span[0]; i <= span[1] && i <= len(lines); i++ {
			if strings.Trim(lines[i-1], " ") == "" {
				blanks++
				if first == 0 {
					first = s.Line + i - 1
				}
			}
		}
	}
	if blanks > 0 {
		k.add("S007", first, 1, "write the text so that blank lines do not matter", "%d blank lines in quoted text or here-documents: an original CernVM drops them", blanks)
	}
	if !s.Bounded {
		return
	}
	for _, h := range k.context.Amiconfig().Headers {
		if h.Line > s.Line && h.Line <= s.End {
			severity := note
			if usercontext.KnownSection(h.Name) {
				severity = warning
			}
			k.addAs(severity, "S007", h.Line, 1, "indent the line, or print it another way", "amiconfig takes this line of the script for the section [%s] of the context", h.Name)
		}
	}
}

// multiline returns the first and last lines of here-documents and quoted texts
// that span several lines, counted in the script.
func multiline(s usercontext.Script) [][2]int {
	file, err := syntax.NewParser(syntax.RecoverErrors(1)).Parse(bytes.NewReader(s.Text), "")
	if err != nil || file == nil {
		return nil
	}
	var spans [][2]int
	add := func(n syntax.Node) {
		if from, to := int(n.Pos().Line()), int(n.End().Line()); to > from {
			spans = append(spans, [2]int{from, to})
		}
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.SglQuoted:
			add(n)
			return false
		case *syntax.DblQuoted:
			add(n)
			return false
		case *syntax.Redirect:
			if n.Hdoc != nil {
				from, to := int(n.Hdoc.Pos().Line()), int(n.Hdoc.End().Line())-1
				if to >= from {
					spans = append(spans, [2]int{from, to})
				}
				return false
			}
		}
		return true
	})
	return spans
}
