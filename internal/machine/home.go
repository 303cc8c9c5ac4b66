package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/micavm/mica/internal/fail"
)

// Home is the folder that holds everything mica keeps for one user.
type Home string

// HomeOf returns MICA_HOME, or .mica in the user's home folder.
func HomeOf(getenv func(string) string) (Home, error) {
	if dir := getenv("MICA_HOME"); dir != "" {
		abs, err := filepath.Abs(dir)
		return Home(abs), err
	}
	dir := getenv("HOME")
	if dir == "" {
		return "", fail.New(fail.Usage, "neither MICA_HOME nor HOME is set").Hint("set MICA_HOME to a folder for machines and images")
	}
	abs, err := filepath.Abs(filepath.Join(dir, ".mica"))
	return Home(abs), err
}

func (h Home) machines() string           { return filepath.Join(string(h), "machines") }
func (h Home) machine(name string) string { return filepath.Join(h.machines(), name) }
func (h Home) bootCache() string          { return filepath.Join(string(h), "cache", "boot") }
func (h Home) downloads() string          { return filepath.Join(string(h), "cache", "downloads") }
func (h Home) portsLock() string          { return filepath.Join(string(h), "ports.lock") }

// Images is the folder of boot images to choose from.
func (h Home) Images() string { return filepath.Join(string(h), "images") }

// Names beginning with a dot cannot be machines; these are half made and half
// removed ones.
const (
	newPrefix   = ".new-"
	trashPrefix = ".gone-"
)

// make creates the folders. They are the user's alone: contexts hold secrets.
func (h Home) make() error {
	for _, dir := range []string{h.machines(), h.bootCache()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fail.New(fail.Failed, "making mica's folder: %w", err).Hint("set MICA_HOME to a folder you may write to")
		}
	}
	return nil
}

// names lists the machines' folders, sorted.
func (h Home) names() ([]string, error) {
	entries, err := os.ReadDir(h.machines())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing machines: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// unknown is the error for a machine that is not there.
func (h Home) unknown(name string) error {
	e := fail.New(fail.NotFound, "no machine named %q", name)
	names, err := h.names()
	if err != nil || len(names) == 0 {
		return e.Hint("there are no machines yet; 'mica create' makes one")
	}
	if near := Nearest(name, names); near != "" {
		return e.Hint("did you mean %q?", near)
	}
	return e.Hint("'mica list' shows what there is")
}

// Nearest returns the name most like word, or nothing if none is much like it.
func Nearest(word string, names []string) string {
	best, score := "", 1+len(word)/3
	for _, name := range names {
		d := distance(strings.ToLower(word), strings.ToLower(name))
		if strings.HasPrefix(name, word) {
			d = min(d, 1)
		}
		if d <= score && (best == "" || d < score) {
			best, score = name, d
		}
	}
	return best
}

// distance is how many letters must be added, removed or changed (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
