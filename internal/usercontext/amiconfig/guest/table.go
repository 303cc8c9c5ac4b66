package guest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// table is one of the account files: lines of fields between colons, the first
// being a name. Lines that are none (comments, blanks, references to NIS) are
// kept as they are.
type table struct {
	lines   []string
	width   int  // how many fields an entry has
	changed bool // something was set
	noEnd   bool // the last line has no end
}

func parseTable(data []byte, width int) *table {
	t := &table{width: width}
	if len(data) == 0 {
		return t
	}
	t.noEnd = !bytes.HasSuffix(data, []byte("\n"))
	t.lines = strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	return t
}

func (t *table) bytes() []byte {
	if len(t.lines) == 0 {
		return nil
	}
	text := strings.Join(t.lines, "\n")
	if !t.noEnd || t.changed {
		text += "\n"
	}
	return []byte(text)
}

// fields splits an entry; nil for a line that is none.
func (t *table) fields(line string) []string {
	if line == "" || line[0] == '#' || line[0] == '+' || line[0] == '-' || line[0] == ' ' {
		return nil
	}
	f := strings.Split(line, ":")
	if len(f) < t.width {
		return nil
	}
	return f
}

// find returns the fields of the first entry of that name, or nil.
func (t *table) find(name string) []string {
	for _, line := range t.lines {
		if rest, ok := strings.CutPrefix(line, name); ok && strings.HasPrefix(rest, ":") {
			if f := t.fields(line); f != nil {
				return f
			}
		}
	}
	return nil
}

// set replaces the first entry of that name, or adds it above the references to
// NIS, which must stay last.
func (t *table) set(fields []string) {
	line := strings.Join(fields, ":")
	for i, old := range t.lines {
		if rest, ok := strings.CutPrefix(old, fields[0]); ok && strings.HasPrefix(rest, ":") && t.fields(old) != nil {
			if old != line {
				t.lines[i], t.changed = line, true
			}
			return
		}
	}
	at := slices.IndexFunc(t.lines, func(l string) bool { return strings.HasPrefix(l, "+") || strings.HasPrefix(l, "-") })
	if at < 0 {
		at = len(t.lines)
	}
	t.lines = slices.Insert(t.lines, at, line)
	t.changed = true
}

// entries calls f for every entry.
func (t *table) entries(f func(fields []string)) {
	for _, line := range t.lines {
		if fields := t.fields(line); fields != nil {
			f(fields)
		}
	}
}

// ids returns the numbers in column n.
func (t *table) ids(n int) map[int]bool {
	used := map[int]bool{}
	t.entries(func(f []string) {
		if id, err := strconv.Atoi(f[n]); err == nil {
			used[id] = true
		}
	})
	return used
}

// The ranges of login.defs(5) that the agent gives out.
const (
	firstID, lastID             = 1000, 59999
	firstSystemID, lastSystemID = 100, 999
)

// freeID returns an id for a person: one above the highest in use, as useradd
// does, or the lowest free one when that is beyond the range.
func freeID(used map[int]bool) (int, bool) {
	top := firstID - 1
	for id := range used {
		if id <= lastID && id > top {
			top = id
		}
	}
	if top < lastID {
		return top + 1, true
	}
	for id := firstID; id <= lastID; id++ {
		if !used[id] {
			return id, true
		}
	}
	return 0, false
}

// freeSystemID returns an id for a system group: the highest free one.
func freeSystemID(used map[int]bool) (int, bool) {
	for id := lastSystemID; id >= firstSystemID; id-- {
		if !used[id] {
			return id, true
		}
	}
	return 0, false
}
