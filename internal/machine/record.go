package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
)

const (
	recordSchema = 1
	recordFile   = "record.json"
)

// Phase says how far a machine's making or unmaking got.
type Phase string

// The phases.
const (
	PhaseCreating   Phase = "creating"
	PhaseCreated    Phase = "created"
	PhaseDestroying Phase = "destroying"
)

// Record is what is remembered of a machine.
type Record struct {
	Schema    int                `json:"schema"`
	Phase     Phase              `json:"phase"`
	Created   time.Time          `json:"created"`
	Started   time.Time          `json:"started,omitzero"` // last switched on
	Instance  Instance           `json:"instance"`
	User      string             `json:"user"`                // who mica ssh logs in as
	Context   string             `json:"context,omitempty"`   // where the context came from
	Journal   []Step             `json:"journal"`             // what was begun, oldest first, each before it was done
	Facts     map[string]string  `json:"facts,omitempty"`     // what the guest said of itself
	Pending   *Spec              `json:"pending,omitempty"`   // what the machine is being changed to
	Durations map[string]float64 `json:"durations,omitempty"` // seconds from start to handover, apply and ssh
}

// Step is one entry of the journal.
type Step struct {
	Time   time.Time `json:"time"`
	Step   string    `json:"step"`
	Object string    `json:"object,omitempty"`
}

func (r *Record) spec() Spec { return r.Instance.Spec }

// load reads the record in a machine's folder.
func load(dir string) (*Record, error) {
	path := filepath.Join(dir, recordFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fail.New(fail.Failed, "reading %s: %w", path, err)
	}
	name := filepath.Base(dir)
	if r.Pending != nil && r.Pending.Name == name { // moved, and not changed yet
		r.Instance.Spec.Name = name
	}
	switch {
	case r.Schema > recordSchema:
		return nil, fail.New(fail.Failed, "%s was written by a newer mica (schema %d)", path, r.Schema).Hint("use that version")
	case r.Schema < 1 || r.Instance.Spec.Name != name:
		return nil, fail.New(fail.Failed, "%s is not the record of machine %q", path, name)
	}
	r.Instance.Spec.Dir = dir
	return r, nil
}

// save replaces the record on disk.
func (r *Record) save(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding record of %q: %w", r.spec().Name, err)
	}
	return atomicfile.Write(filepath.Join(dir, recordFile), append(data, '\n'), 0o600)
}

// notThere reports whether err says that a machine or its record is missing.
func notThere(err error) bool { return errors.Is(err, fs.ErrNotExist) }
