package mica_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// compatPage lists by hand what users notice, and below the mark every comment
// of the code that begins with "Compat:" or "Differs:".
const (
	compatPage = "docs/compat.md"
	compatMark = "<!-- Below this line the page is made from the code: go test . -run Compat -update -->\n"
)

func TestCompatPageIsCurrent(t *testing.T) {
	page, err := os.ReadFile(compatPage)
	if err != nil {
		t.Fatal(err)
	}
	byHand, _, found := strings.Cut(string(page), compatMark)
	if !found {
		t.Fatalf("%s lacks the mark %q", compatPage, compatMark)
	}
	reviewed(t, compatPage, byHand+compatMark+compatNotes(t))
}

// compatNotes renders the comments, by package and in order of file and line.
func compatNotes(t *testing.T) string {
	t.Helper()
	notes := map[string][]string{} // by folder
	walk := func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "build" || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, group := range file.Comments {
			for _, note := range notesOf(group) {
				notes[filepath.Dir(path)] = append(notes[filepath.Dir(path)], note)
			}
		}
		return nil
	}
	if err := filepath.WalkDir(".", walk); err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for dir := range notes {
		dirs = append(dirs, dir)
	}
	sort.Strings(dirs)
	var out strings.Builder
	for _, dir := range dirs {
		fmt.Fprintf(&out, "\n### %s\n\n", dir)
		for _, note := range notes[dir] {
			fmt.Fprintf(&out, "- %s\n", note)
		}
	}
	return out.String()
}

// notesOf returns the paragraphs of a comment that begin with one of the words.
func notesOf(group *ast.CommentGroup) []string {
	var notes []string
	for paragraph := range strings.SplitSeq(group.Text(), "\n\n") {
		text := strings.Join(strings.Fields(paragraph), " ")
		for _, word := range []string{"Compat:", "Differs:"} {
			if at := strings.Index(text, word); at == 0 || at > 0 && strings.HasSuffix(text[:at], ". ") {
				rest := strings.TrimSpace(text[at+len(word):])
				notes = append(notes, fmt.Sprintf("**%s** %s", strings.TrimSuffix(word, ":"), rest))
				break
			}
		}
	}
	return notes
}
