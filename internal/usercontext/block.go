package usercontext

import (
	"fmt"
	"strings"
)

// The lines around the boot loader's block.
const (
	BlockBegin = "[ucernvm-begin]"
	BlockEnd   = "[ucernvm-end]"
)

// Block is the part of a context that the boot loader reads.
type Block struct {
	Found bool
	// Keys is what Mica takes from the block: lower-case key, value without
	// blanks around it and without one pair of quotes; the last one wins.
	Keys map[string]string
	// Settings are the lines of the block that set something, in order.
	Settings []Setting
	// Begin and End are the lines of the markers; End is 0 without one.
	Begin, End int
	Problems   []Problem
}

// Setting is one line `key=value` of the block.
type Setting struct {
	Line, Column int    // of the key
	ValueColumn  int    // of the value
	Key          string // lower case, trimmed
	Value        string // trimmed and unquoted
	Raw          string // the value as written
	// Original is the line that the original loader's parser hands to its shell,
	// without the prefix _UCONTEXT_, "" when it does not see the line at all;
	// Shell is what that shell then makes of it.
	Original string
	Shell    Outcome
}

// Outcome says what the original loader's shell does with a setting.
type Outcome struct {
	Kind  OutcomeKind
	Value string // that the variable has in the end, when Kind is Set or Cut
	Why   string
}

// OutcomeKind is the kind of an Outcome.
type OutcomeKind uint8

// What can become of a line when a shell sources it.
const (
	Set     OutcomeKind = iota // the variable has the value
	Cut                        // the variable has the first part of the value
	Lost                       // the variable is not set
	Unseen                     // the original's parser does not hand the line on
	Expands                    // the shell expands the value, or runs code in it
)

// ParseBlock reads the first block of boot loader keys in data.
//
// Compat: cernvm-micro parse_user_data.cc. Only the first block counts; a stray
// end marker before it disables it; without an end marker it runs to the end;
// there are no comments.
//
// Differs: markers with blanks or a carriage return around them, a last line
// without LF, and blanks around "=" are accepted, each with a Problem.
func ParseBlock(data []byte) Block { return parseBlock(splitLines(data)) }

func parseBlock(lines []line) Block {
	var b Block
	b.Keys = map[string]string{}
	exactBegin := false // the original is inside the block, too
	for _, l := range lines {
		text := strings.TrimSuffix(l.text, "\r")
		word := strings.Trim(text, " \t")
		exact := l.ended && l.text == word
		switch {
		case b.End != 0:
			if word == BlockBegin {
				b.add("U004", Error, l.number, 1, "a second block; only the first one counts", "move its keys into the first block")
				return b
			}
		case word == BlockEnd && !b.Found:
			b.add("U004", Error, l.number, 1, "end marker before any begin marker: no block after it is read", "remove the line")
			b.End = l.number
		case word == BlockEnd:
			if !exact {
				b.marker(l, word)
			}
			b.End = l.number
		case word == BlockBegin:
			if b.Found {
				b.add("U004", Warning, l.number, 1, "begin marker inside the block", "remove the line")
			} else {
				b.Begin = l.number
			}
			if !exact {
				b.marker(l, word)
			} else {
				exactBegin = true
			}
			b.Found = true
		case b.Found:
			b.setting(l, text, exactBegin)
		}
	}
	if b.Found && b.End == 0 {
		b.add("U004", Error, b.Begin, 1, "the block has no end marker: every later line with \"=\" counts as a key of it", "add the line "+BlockEnd)
	}
	return b
}

func (b *Block) add(rule string, s Severity, line, column int, text, remedy string) {
	b.Problems = append(b.Problems, Problem{rule, s, line, column, text, remedy})
}

func (b *Block) marker(l line, word string) {
	why := "blanks around"
	switch {
	case strings.HasSuffix(l.text, "\r"):
		why = "a carriage return after"
	case !l.ended:
		why = "no line end after"
	}
	b.add("U004", Error, l.number, 1, fmt.Sprintf("%s %s: the original boot loader does not see this line", why, word), "write exactly "+word+" and a line feed")
}

// setting takes one line inside the block. seen says that the original is inside
// the block as well.
func (b *Block) setting(l line, text string, seen bool) {
	rawKey, rawValue, found := strings.Cut(text, "=")
	if !found {
		_, header := sectionHeader(text) // of a block without an end, which is said once
		if word := strings.TrimSpace(text); word != "" && word[0] != '#' && !header {
			b.add("U002", Error, l.number, 1, "a line without \"=\" in the block is ignored", "write key=value")
		}
		return
	}
	key := strings.Trim(rawKey, " \t")
	value := strings.Trim(rawValue, " \t")
	if strings.HasPrefix(key, "#") {
		b.add("U002", Warning, l.number, 1, "the block has no comments: the original boot loader hands this line to its shell", "move the comment out of the block")
		return
	}
	s := Setting{Line: l.number, Column: 1 + strings.Index(rawKey, key), Key: lowerASCII(key), Raw: rawValue}
	s.ValueColumn = len(rawKey) + 2 + len(rawValue) - len(strings.TrimLeft(rawValue, " \t"))
	s.Value = unquote(value)
	switch {
	case !seen:
		s.Shell = Outcome{Kind: Unseen, Why: "the begin marker is not exact"}
	case !l.ended:
		s.Shell = Outcome{Kind: Unseen, Why: "the last line has no line end"}
		b.add("U002", Error, l.number, 1, "the last line has no line end: the original boot loader ignores it", "end the file with a line feed")
	default:
		// The original keeps everything, the carriage return of the line included.
		_, whole, _ := strings.Cut(l.text, "=")
		s.Original = upperASCII(rawKey) + "=" + booleanWord(whole)
		s.Shell = source(rawKey, booleanWord(whole))
	}
	switch {
	case key == "" || strings.Trim(lowerASCII(key), keyBytes) != "":
		b.add("U002", Error, l.number, s.Column, fmt.Sprintf("%q is not a key: letters, digits and \"_\" only", key), "")
	case key != rawKey || value != rawValue:
		b.add("U002", Error, l.number, s.Column, fmt.Sprintf("blanks around \"=\" of %s: the original boot loader does not set it", s.Key), "write "+s.Key+"=value")
	}
	b.Settings = append(b.Settings, s)
	b.Keys[s.Key] = s.Value
}

const keyBytes = "abcdefghijklmnopqrstuvwxyz0123456789_"

// unquote removes one pair of quotes around the whole value.
func unquote(v string) string {
	if n := len(v); n >= 2 && (v[0] == '"' || v[0] == '\'') && v[n-1] == v[0] {
		return v[1 : n-1]
	}
	return v
}

// booleanWord is the original's conversion: words for true and false become
// digits, for whatever key, unless they are quoted.
func booleanWord(v string) string {
	switch lowerASCII(v) {
	case "yes", "on", "true":
		return "1"
	case "no", "off", "false":
		return "0"
	}
	return v
}

// source tells what a POSIX shell makes of KEY=value when it sources the line.
func source(key, value string) Outcome {
	if key == "" || strings.Trim(lowerASCII(key), keyBytes) != "" {
		return Outcome{Kind: Lost, Why: "the key is not a name, so the shell looks for a command of that name"}
	}
	var out strings.Builder
	var quote byte
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case quote == '\'' && c != '\'', quote == '"' && c != '"' && c != '$' && c != '`' && c != '\\':
			out.WriteByte(c)
		case c == '\'' || c == '"':
			if quote == 0 {
				quote = c
			} else {
				quote = 0
			}
		case c == '$' || c == '`':
			return Outcome{Kind: Expands, Why: "the shell expands what follows " + string(c) + ", and runs commands in it as root"}
		case c == '\\':
			if i+1 < len(value) {
				i++
				if quote == '"' && !strings.ContainsRune("$`\"\\", rune(value[i])) {
					out.WriteByte('\\')
				}
				out.WriteByte(value[i])
			}
		case c == '~' && (i == 0 || value[i-1] == ':'):
			return Outcome{Kind: Expands, Why: "the shell replaces ~ by a home directory"}
		case c == ' ' || c == '\t':
			rest := strings.Trim(value[i:], " \t")
			if rest == "" || rest[0] == '#' {
				return Outcome{Kind: Set, Value: out.String()}
			}
			if rest[0] == ';' {
				return Outcome{Kind: Cut, Value: out.String(), Why: "the shell ends the command at \";\""}
			}
			return Outcome{Kind: Lost, Why: "the shell runs the second word as a command"}
		case c == ';':
			return Outcome{Kind: Cut, Value: out.String(), Why: "the shell ends the command at \";\""}
		case c == '|' && strings.HasPrefix(value[i:], "||"):
			return Outcome{Kind: Cut, Value: out.String(), Why: "the shell ends the command at \"||\""}
		case c == '&' && strings.HasPrefix(value[i:], "&&"):
			return Outcome{Kind: Cut, Value: out.String(), Why: "the shell ends the command at \"&&\", and runs what follows"}
		case c == '|':
			return Outcome{Kind: Lost, Why: "the shell makes the assignment in a pipeline, where it is lost"}
		case c == '&':
			return Outcome{Kind: Lost, Why: "the shell makes the assignment in the background, where it is lost"}
		case c == '<':
			return Outcome{Kind: Lost, Why: "the shell wants to read from a file at \"<\""}
		case c == '>':
			return Outcome{Kind: Cut, Value: out.String(), Why: "the shell writes a file at \">\""}
		case c == '(' || c == ')':
			return Outcome{Kind: Lost, Why: "the shell stops with a syntax error"}
		default:
			out.WriteByte(c)
		}
	}
	if quote != 0 {
		return Outcome{Kind: Lost, Why: "a quote is not closed, so the shell takes the following lines into the value"}
	}
	return Outcome{Kind: Set, Value: out.String()}
}
