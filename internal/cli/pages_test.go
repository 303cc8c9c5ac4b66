package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/cli"
)

// TestPagesCommands has every mica command in the README and the how-tos
// understood: its words, its flags and their values. What the commands do is for
// other tests; here a page cannot go on naming a flag that was renamed.
func TestPagesCommands(t *testing.T) {
	pages, err := filepath.Glob("../../docs/howto/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../../README.md", "../../docs/tour.md", "../../docs/testing.md")
	fence := regexp.MustCompile("(?ms)^```(?:sh|console|console run)?\n(.*?)^```$")
	inline := regexp.MustCompile("`(mica [^`]+)`")
	total := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, m := range fence.FindAllSubmatch(text, -1) {
			lines = append(lines, strings.Split(strings.ReplaceAll(string(m[1]), "\\\n", " "), "\n")...)
		}
		for _, m := range inline.FindAllSubmatch(fence.ReplaceAll(text, nil), -1) {
			lines = append(lines, strings.Join(strings.Fields(string(m[1])), " "))
		}
		for _, line := range lines {
			args := micaArgs(line)
			if args == nil {
				continue
			}
			total++
			if at := indexOf(args, "--"); at >= 0 {
				args = args[:at]
			}
			var out, stderr bytes.Buffer
			args = append(args, "--help")
			stdio := cli.IO{In: strings.NewReader(""), Out: &out, Err: &stderr, Env: func(string) string { return "" }}
			if args[1] == "launch" { // takes its words as they are
				continue
			}
			if code := cli.Main(t.Context(), stdio, args); code != 0 {
				t.Errorf("%s: %q ended with %d: %s", filepath.Base(page), strings.TrimSpace(line), code, stderr.String())
				continue
			}
			// A word that is no command falls through to the help of its parent.
			if words := strings.Join(args[:2], " "); !strings.Contains(out.String(), "\n  "+words) && args[1][0] != '-' {
				t.Errorf("%s: %q: there is no command %q", filepath.Base(page), strings.TrimSpace(line), words)
			}
		}
	}
	if total < 60 {
		t.Errorf("the pages have %d commands, which is hard to believe", total)
	}
}

var quoted = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)

// micaArgs are the words of a line that runs mica, without prompts, variables and
// comments; nil where it runs something else.
func micaArgs(line string) []string {
	line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
	for regexp.MustCompile(`^[A-Z_]+=\S*\s`).MatchString(line) {
		_, line, _ = strings.Cut(line, " ")
	}
	line, _, _ = strings.Cut(line, " #")
	line, _, _ = strings.Cut(line, " > ")
	line = strings.TrimPrefix(line, "bin/")
	if !strings.HasPrefix(line, "mica ") || strings.Contains(line, "…") || strings.Contains(line, "...") {
		return nil
	}
	var args []string
	for _, word := range quoted.FindAllString(line, -1) {
		args = append(args, strings.Trim(word, `'"`))
	}
	if len(args) < 2 || strings.ContainsAny(args[1], "|") {
		return nil
	}
	return args
}

func indexOf(words []string, word string) int {
	for n, w := range words {
		if w == word {
			return n
		}
	}
	return -1
}
