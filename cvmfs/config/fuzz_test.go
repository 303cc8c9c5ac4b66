package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A table of user numbers is read whole, or refused with the line.
func FuzzIDMap(f *testing.F) {
	f.Add("1 2 # x\n* 99\n")
	f.Add("1 2 3\n")
	f.Add("-1 4294967296\n")
	f.Add("* *\n")
	file := filepath.Join(f.TempDir(), "map")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := ReadIDMap(file)
		if err != nil {
			if !errors.Is(err, ErrValue) || !strings.Contains(err.Error(), file+":") {
				t.Errorf("ReadIDMap = %v, want ErrValue and a line", err)
			}
			return
		}
		known := len(m.IDs)
		if m.Rest != nil {
			known++
		}
		if lines := strings.Count(text, "\n") + 1; known > lines {
			t.Errorf("ReadIDMap has %d rules of %d lines", known, lines)
		}
	})
}
