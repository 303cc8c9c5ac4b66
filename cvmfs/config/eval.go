package config

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// scope is what one file, and those it reads in, see and assign.
type scope struct {
	r       *reader
	values  map[string]Value // assigned here
	noticed []string         // names that the outer file assigns, executed or not

	file string // being evaluated
	dir  string // of the outer file: relative names start here
}

func newScope(r *reader) *scope { return &scope{r: r, values: map[string]Value{}} }

// source evaluates a file. returned says that it ended by return.
func (s *scope) source(name string, data []byte, depth int) (returned bool, err error) {
	f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(bytes.NewReader(data), name)
	if err != nil {
		return false, fmt.Errorf("%w: %w", err, ErrSyntax)
	}
	outer := s.file
	s.file = name
	defer func() { s.file = outer }()
	if depth == 0 {
		s.dir = filepath.Dir(name)
		syntax.Walk(f, func(n syntax.Node) bool {
			if a, ok := n.(*syntax.Assign); ok && a.Name != nil && !a.Naked && !slices.Contains(s.noticed, a.Name.Value) {
				s.noticed = append(s.noticed, a.Name.Value)
			}
			return true
		})
	}
	_, returned, err = s.run(f.Stmts, depth)
	return returned, err
}

func (s *scope) fail(at syntax.Pos, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w: %s", s.file, at.Line(), ErrSyntax, fmt.Sprintf(format, args...))
}

// run executes statements. ok is whether the last one succeeded.
func (s *scope) run(list []*syntax.Stmt, depth int) (ok, returned bool, err error) {
	ok = true
	for _, st := range list {
		if ok, returned, err = s.statement(st, depth); err != nil || returned {
			return ok, returned, err
		}
	}
	return ok, false, nil
}

func (s *scope) statement(st *syntax.Stmt, depth int) (ok, returned bool, err error) {
	if st.Background || st.Coprocess || st.Disown || len(st.Redirs) > 0 {
		return false, false, s.fail(st.Pos(), "redirections and background commands")
	}
	ok, returned, err = s.command(st.Cmd, depth)
	if st.Negated {
		ok = !ok
	}
	return ok, returned, err
}

func (s *scope) command(cmd syntax.Command, depth int) (ok, returned bool, err error) {
	switch c := cmd.(type) {
	case nil:
		return true, false, nil
	case *syntax.CallExpr:
		if len(c.Args) == 0 {
			return true, false, s.assign(c.Assigns)
		}
		if len(c.Assigns) > 0 {
			return false, false, s.fail(c.Pos(), "an assignment in front of a command")
		}
		return s.call(c, depth)
	case *syntax.DeclClause:
		if c.Variant.Value != "export" && c.Variant.Value != "readonly" {
			return false, false, s.fail(c.Pos(), "%s", c.Variant.Value)
		}
		return true, false, s.assign(c.Args)
	case *syntax.Block:
		return s.run(c.Stmts, depth)
	case *syntax.IfClause:
		for branch := c; branch != nil; branch = branch.Else {
			taken := true
			if len(branch.Cond) > 0 { // an else has none
				if taken, returned, err = s.run(branch.Cond, depth); err != nil || returned {
					return false, returned, err
				}
			}
			if taken {
				return s.run(branch.Then, depth)
			}
		}
		return true, false, nil
	case *syntax.BinaryCmd:
		if c.Op != syntax.AndStmt && c.Op != syntax.OrStmt {
			return false, false, s.fail(c.Pos(), "pipes")
		}
		ok, returned, err = s.statement(c.X, depth)
		if err != nil || returned || ok != (c.Op == syntax.AndStmt) {
			return ok, returned, err
		}
		return s.statement(c.Y, depth)
	}
	return false, false, s.fail(cmd.Pos(), "a construct other than assignments, tests and if")
}

func (s *scope) assign(list []*syntax.Assign) error {
	for _, a := range list {
		switch {
		case a.Name == nil || a.Index != nil || a.Array != nil:
			return s.fail(a.Pos(), "arrays and options")
		case a.Naked:
			continue // export of what is there: everything is
		}
		text := ""
		if a.Append {
			text = s.get(a.Name.Value)
		}
		if a.Value != nil {
			value, err := s.text(a.Value)
			if err != nil {
				return err
			}
			text += value
		}
		if len(text) > maxValue {
			return s.fail(a.Pos(), "a value longer than %d bytes", maxValue)
		}
		s.values[a.Name.Value] = Value{Name: a.Name.Value, Value: text, Origin: fmt.Sprintf("%s:%d", s.file, a.Pos().Line())}
	}
	return nil
}

// lookup finds a variable: of this file, of files before, of the environment.
func (s *scope) lookup(name string) (string, bool) {
	switch name {
	case "$":
		return strconv.Itoa(s.r.opt.PID), true
	case "CVMFS_FQRN":
		return s.r.Name, true
	}
	if v, ok := s.values[name]; ok {
		return v.Value, true
	}
	if v, ok := s.r.values[name]; ok && v.Origin != "default" {
		return v.Value, true
	}
	if name == "CVMFS_MOUNT_DIR" {
		return s.r.values[name].Value, true
	}
	text := s.r.opt.Env(name)
	return text, text != ""
}

func (s *scope) get(name string) string {
	text, _ := s.lookup(name)
	return text
}

// call runs one of the few commands that there are.
func (s *scope) call(c *syntax.CallExpr, depth int) (ok, returned bool, err error) {
	var args []string
	for _, w := range c.Args {
		f, err := s.fields(w)
		if err != nil {
			return false, false, err
		}
		args = append(args, f...)
	}
	if len(args) == 0 {
		return true, false, nil
	}
	switch name := args[0]; {
	case name == "[" && args[len(args)-1] == "]":
		ok, err = s.test(c.Pos(), args[1:len(args)-1])
		return ok, false, err
	case name == "test":
		ok, err = s.test(c.Pos(), args[1:])
		return ok, false, err
	case (name == ":" || name == "true" || name == "false") && len(args) == 1:
		return name != "false", false, nil
	case name == "return" && len(args) <= 2:
		return len(args) == 1 || args[1] == "0", true, nil
	case (name == "." || name == "source") && len(args) == 2:
		return s.include(c.Pos(), args[1], depth)
	}
	return false, false, s.fail(c.Pos(), "the command %.100q", args[0])
}

func (s *scope) include(at syntax.Pos, name string, depth int) (ok, returned bool, err error) {
	if depth == maxDepth {
		return false, false, s.fail(at, "files that read files more than %d deep", maxDepth)
	}
	if inside, ok := strings.CutPrefix(s.file, knownPrefix); ok {
		name = knownPrefix + path.Join(path.Dir(inside), name)
	} else if !filepath.IsAbs(name) {
		name = filepath.Join(s.dir, name)
	}
	data, err := s.r.load(name)
	if err != nil {
		return false, false, err
	}
	if data == nil {
		return false, false, s.fail(at, "a file to read in that does not exist: %s", name)
	}
	_, err = s.source(name, data, depth+1) // its return ends it alone
	return true, false, err
}

// test evaluates what stands between [ and ].
func (s *scope) test(at syntax.Pos, args []string) (bool, error) {
	switch len(args) {
	case 0:
		return false, nil
	case 1:
		return args[0] != "", nil
	case 2:
		switch args[0] {
		case "!":
			return args[1] == "", nil
		case "-n":
			return args[1] != "", nil
		case "-z":
			return args[1] == "", nil
		case "-e", "-f", "-d", "-r", "-s":
			return s.exists(args[0], args[1]), nil
		}
	case 3:
		if n, m, ok := numbers(args[0], args[2]); ok {
			switch args[1] {
			case "-eq":
				return n == m, nil
			case "-ne":
				return n != m, nil
			case "-lt":
				return n < m, nil
			case "-le":
				return n <= m, nil
			case "-gt":
				return n > m, nil
			case "-ge":
				return n >= m, nil
			}
		}
		switch args[1] {
		case "=", "==":
			return args[0] == args[2], nil
		case "!=":
			return args[0] != args[2], nil
		}
	}
	if len(args) > 1 && len(args) <= 4 && args[0] == "!" {
		ok, err := s.test(at, args[1:])
		return !ok, err
	}
	return false, s.fail(at, "the test %.100q", args)
}

func numbers(a, b string) (n, m int, ok bool) {
	n, err := strconv.Atoi(a)
	if err != nil {
		return 0, 0, false
	}
	m, err = strconv.Atoi(b)
	return n, m, err == nil
}

func (s *scope) exists(kind, name string) bool {
	if !filepath.IsAbs(name) {
		name = filepath.Join(s.dir, name)
	}
	info, err := os.Stat(name)
	if err != nil {
		return false
	}
	switch kind {
	case "-f":
		return info.Mode().IsRegular()
	case "-d":
		return info.IsDir()
	case "-s":
		return info.Size() > 0
	}
	return true
}

// text is the value of a word that is not divided into fields.
func (s *scope) text(w *syntax.Word) (string, error) {
	var out strings.Builder
	for _, p := range w.Parts {
		text, _, err := s.part(p, false)
		if err != nil {
			return "", err
		}
		if out.WriteString(text); out.Len() > maxValue {
			return "", s.fail(w.Pos(), "a value longer than %d bytes", maxValue)
		}
	}
	return out.String(), nil
}

// fields is the value of a word where unquoted variables are divided at blanks.
func (s *scope) fields(w *syntax.Word) ([]string, error) {
	var out []string
	current, open := "", false
	for _, p := range w.Parts {
		text, quoted, err := s.part(p, false)
		if err != nil {
			return nil, err
		}
		if quoted {
			current, open = current+text, true
			continue
		}
		for i, f := range strings.FieldsFunc(text, blank) {
			if i > 0 || open && blank(rune(text[0])) {
				out, current = append(out, current), ""
			}
			current, open = current+f, true
		}
		if open && text != "" && blank(rune(text[len(text)-1])) {
			out, current, open = append(out, current), "", false
		}
	}
	if open {
		out = append(out, current)
	}
	return out, nil
}

func blank(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }

// part is the value of a part of a word. quoted says that it is not to be
// divided.
func (s *scope) part(p syntax.WordPart, inQuotes bool) (text string, quoted bool, err error) {
	switch p := p.(type) {
	case *syntax.Lit:
		return unescape(p.Value, inQuotes), true, nil
	case *syntax.SglQuoted:
		if !p.Dollar {
			return p.Value, true, nil
		}
	case *syntax.DblQuoted:
		if p.Dollar {
			break
		}
		var out strings.Builder
		for _, q := range p.Parts {
			text, _, err := s.part(q, true)
			if err != nil {
				return "", false, err
			}
			if out.WriteString(text); out.Len() > maxValue {
				return "", false, s.fail(p.Pos(), "a value longer than %d bytes", maxValue)
			}
		}
		return out.String(), true, nil
	case *syntax.ParamExp:
		text, err := s.parameter(p)
		return text, false, err
	case *syntax.ArithmExp:
		if p.Bracket || p.Unsigned {
			break
		}
		n, err := s.sum(p.X)
		return strconv.Itoa(n), false, err
	case *syntax.CmdSubst:
		return "", false, s.fail(p.Pos(), "the output of a command")
	}
	return "", false, s.fail(p.Pos(), "a kind of expansion")
}

// unescape takes backslashes away as a shell does.
func unescape(text string, inQuotes bool) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			out.WriteByte(text[i])
			continue
		}
		switch next := text[i+1]; {
		case next == '\n':
			i++
		case !inQuotes || strings.IndexByte("$`\"\\", next) >= 0:
			out.WriteByte(next)
			i++
		default:
			out.WriteByte('\\')
		}
	}
	return out.String()
}

func (s *scope) parameter(p *syntax.ParamExp) (string, error) {
	if p.Param == nil || p.Flags != nil || p.Excl || p.Length || p.Width || p.IsSet || p.NestedParam != nil || p.Index != nil ||
		len(p.Modifiers) > 0 || p.Slice != nil || p.Repl != nil || p.Names != 0 {
		return "", s.fail(p.Pos(), "a kind of expansion")
	}
	name := p.Param.Value
	if name != "$" && !syntax.ValidName(name) {
		return "", s.fail(p.Pos(), "the parameter $%s", name)
	}
	text, set := s.lookup(name)
	if p.Exp == nil {
		return text, nil
	}
	other := func(use bool) (string, error) {
		switch {
		case use && p.Exp.Word != nil:
			return s.text(p.Exp.Word)
		case use:
			return "", nil
		}
		return text, nil
	}
	switch p.Exp.Op {
	case syntax.DefaultUnset:
		return other(!set)
	case syntax.DefaultUnsetOrNull:
		return other(text == "")
	case syntax.AlternateUnset:
		return other(set)
	case syntax.AlternateUnsetOrNull:
		return other(text != "")
	}
	return "", s.fail(p.Pos(), "a kind of expansion")
}

// sum evaluates an arithmetic expression.
func (s *scope) sum(x syntax.ArithmExpr) (int, error) {
	switch x := x.(type) {
	case *syntax.Word:
		text, err := s.text(x)
		if err != nil {
			return 0, err
		}
		if syntax.ValidName(text) {
			text = s.get(text)
		}
		if text = strings.TrimSpace(text); text == "" {
			return 0, nil
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0, s.fail(x.Pos(), "%.100q in a sum", text)
		}
		return n, nil
	case *syntax.ParenArithm:
		return s.sum(x.X)
	case *syntax.BinaryArithm:
		n, err := s.sum(x.X)
		if err != nil {
			return 0, err
		}
		m, err := s.sum(x.Y)
		if err != nil {
			return 0, err
		}
		switch x.Op {
		case syntax.Add:
			return n + m, nil
		case syntax.Sub:
			return n - m, nil
		case syntax.Mul:
			return n * m, nil
		case syntax.Quo, syntax.Rem:
			if m == 0 {
				return 0, s.fail(x.Pos(), "a division by zero")
			}
			if x.Op == syntax.Quo {
				return n / m, nil
			}
			return n % m, nil
		}
	}
	return 0, s.fail(x.Pos(), "a kind of sum")
}
