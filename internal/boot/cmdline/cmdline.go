package cmdline

import (
	"strconv"
	"strings"
	"time"
)

// Word is one word of a command line. Value is empty and HasValue false for a
// bare flag.
type Word struct {
	Key      string
	Value    string
	HasValue bool
}

// Line is a parsed command line. The zero value has no words.
type Line struct {
	text  string
	words []Word
}

// String returns the text that was parsed.
func (l Line) String() string { return l.text }

// Parse splits a command line into words. It never fails: an open quote runs to
// the end, as it does in the kernel.
func Parse(text string) Line {
	l := Line{text: text}
	for {
		text = strings.TrimLeft(text, " \t\r\n\x00")
		if text == "" {
			return l
		}
		end, quoted := 0, false
		for ; end < len(text); end++ {
			c := text[end]
			if c == '"' {
				quoted = !quoted
			}
			if !quoted && strings.IndexByte(" \t\r\n\x00", c) >= 0 {
				break
			}
		}
		if w, ok := split(text[:end]); ok {
			l.words = append(l.words, w)
		}
		text = text[end:]
	}
}

// split takes one word apart. The kernel drops a quote that opens the word or
// the value, and the one that ends it.
func split(text string) (Word, bool) {
	if rest, ok := strings.CutPrefix(text, `"`); ok {
		text = strings.TrimSuffix(rest, `"`)
	}
	key, value, has := strings.Cut(text, "=")
	if rest, ok := strings.CutPrefix(value, `"`); ok {
		value = strings.TrimSuffix(rest, `"`)
	}
	return Word{Key: key, Value: value, HasValue: has}, key != ""
}

// Get returns the value of the last word with that key.
func (l Line) Get(key string) (string, bool) {
	for i := len(l.words) - 1; i >= 0; i-- {
		if l.words[i].Key == key && l.words[i].HasValue {
			return l.words[i].Value, true
		}
	}
	return "", false
}

// All returns the values of every word with that key, in order.
func (l Line) All(key string) []string {
	var values []string
	for _, w := range l.words {
		if w.Key == key && w.HasValue {
			values = append(values, w.Value)
		}
	}
	return values
}

// Has reports whether the word is there, with or without a value.
func (l Line) Has(key string) bool {
	for _, w := range l.words {
		if w.Key == key {
			return true
		}
	}
	return false
}

// Flag reads a switch: the bare word is on, and so is any value that is not
// one of the words for off.
func (l Line) Flag(key string) bool {
	for i := len(l.words) - 1; i >= 0; i-- {
		if w := l.words[i]; w.Key == key {
			switch strings.ToLower(w.Value) {
			case "0", "n", "no", "off", "false":
				return false
			}
			return true
		}
	}
	return false
}

// Seconds returns a word given in whole seconds as a duration, or fallback if
// the word is missing, malformed or negative. Values above a day are cut to it:
// they cannot be meant, and would overflow later arithmetic.
func (l Line) Seconds(key string, fallback time.Duration) time.Duration {
	text, ok := l.Get(key)
	if !ok {
		return fallback
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return fallback
	}
	return time.Duration(min(n, 24*60*60)) * time.Second
}

// Words returns all words in order.
func (l Line) Words() []Word { return append([]Word(nil), l.words...) }

// Consoles returns the device names of the console= words, without their
// options, each once, in order.
func (l Line) Consoles() []string {
	var names []string
	seen := map[string]bool{}
	for _, value := range l.All("console") {
		name, _, _ := strings.Cut(value, ",")
		if name != "" && name != "null" && !strings.Contains(name, "/") && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}
