package boot

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/stage"
)

// keptRecords is how many boots UROOT remembers.
const keptRecords = 20

// mostNotes bounds the notes of one boot.
const mostNotes = 500

// Record is what is kept of one boot, in UROOT/ulogs/boot-<n>.json.
type Record struct {
	Schema  int           `json:"schema"`
	Boot    int           `json:"boot"` // counted on this UROOT, from 1
	Version string        `json:"version"`
	Kernel  string        `json:"kernel"`
	Time    time.Time     `json:"time"` // when it was written, by the machine's clock
	OK      bool          `json:"ok"`   // it came to the hand-over
	Uptime  float64       `json:"uptime"`
	Memory  int64         `json:"peak_memory"` // of PID 1, in bytes
	Command string        `json:"command_line"`
	Stages  []stage.Event `json:"stages"` // how each ended, in order
	Notes   []string      `json:"notes,omitempty"`

	mu sync.Mutex // guards Stages and Notes while stages run
}

// add remembers how a stage ended.
func (r *Record) add(e stage.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Stages = append(r.Stages, e)
}

// note remembers something worth telling that is no stage's result.
func (r *Record) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.Notes) < mostNotes {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}

// write puts the record into the folder ulogs and drops the oldest ones. The
// first call of a boot decides the number; later ones replace the file.
func (r *Record) write(ulogs string, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := recordFiles(ulogs)
	if r.Boot == 0 {
		r.Boot = 1
		if len(old) > 0 {
			r.Boot = recordNumber(old[len(old)-1]) + 1
		}
		for i := 0; i < len(old)-keptRecords+1; i++ {
			_ = os.Remove(filepath.Join(ulogs, old[i]))
		}
	}
	r.Schema, r.Time = 1, now.UTC()
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the record of this boot: %w", err)
	}
	return atomicfile.Write(filepath.Join(ulogs, fmt.Sprintf("boot-%d.json", r.Boot)), append(data, '\n'), 0o644)
}

// ReadRecord reads the newest record in a folder.
func ReadRecord(ulogs string) (*Record, error) {
	files := recordFiles(ulogs)
	if len(files) == 0 {
		return nil, fmt.Errorf("reading the record of the last boot: none in %s", ulogs)
	}
	data, err := os.ReadFile(filepath.Join(ulogs, files[len(files)-1]))
	if err != nil {
		return nil, fmt.Errorf("reading the record of the last boot: %w", err)
	}
	r := &Record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("reading the record of the last boot: %w", err)
	}
	return r, nil
}

// recordFiles returns the names of the records in a folder, oldest first.
func recordFiles(ulogs string) []string {
	entries, err := os.ReadDir(ulogs)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if recordNumber(e.Name()) > 0 {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return recordNumber(a) - recordNumber(b) })
	return names
}

func recordNumber(name string) int {
	text, ok := strings.CutPrefix(name, "boot-")
	text, ok2 := strings.CutSuffix(text, ".json")
	n, err := strconv.Atoi(text)
	if !ok || !ok2 || err != nil || n < 1 || n > 1<<30 {
		return 0
	}
	return n
}
