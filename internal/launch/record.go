package launch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
)

const (
	recordPrefix = "vbsess-"
	recordSuffix = ".conf"
	origSuffix   = ".conf.orig"
	lockSuffix   = ".lock"
	createLock   = "create.lock"

	// maxRecord bounds a record: the context is in it twice, and each line break
	// of a context takes two bytes.
	maxRecord = 32 << 20

	lockPatience = 10 * time.Second
)

// Values of micaPhase; a record without one is complete.
const (
	phaseCreating   = "creating"
	phaseDestroying = "destroying"
)

// record is one machine's file.
type record struct {
	id      string // its uuid, from the file's name
	run     string // the folder it is in
	values  settings
	foreign bool // as the original wrote it
}

func (r *record) path() string   { return filepath.Join(r.run, recordPrefix+r.id+recordSuffix) }
func (r *record) folder() string { return filepath.Join(r.run, r.id) }
func (r *record) name() string   { return r.values[keyName] }

// parseRecord reads a record: split at the first '=', empty values dropped,
// values unescaped from left to right.
//
// Compat: libcernvm: src/ParameterMap.cpp and src/LocalConfig.cpp.
func parseRecord(data []byte) settings {
	values := settings{}
	for line := range strings.SplitSeq(string(data), "\n") {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), "=")
		if ok && value != "" {
			values[key] = unescape(value)
		}
	}
	return values
}

func unescape(value string) string {
	if !strings.Contains(value, `\`) {
		return value
	}
	var out strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) {
			if at := strings.IndexByte(`\nr`, value[i+1]); at >= 0 {
				out.WriteByte("\\\n\r"[at])
				i++
				continue
			}
		}
		out.WriteByte(value[i])
	}
	return out.String()
}

// formatRecord writes a record, sorted by the bytes of its keys.
func formatRecord(values settings) []byte {
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`)
	var out bytes.Buffer
	for _, key := range values.keys() {
		if strings.ContainsAny(key, "=\r\n") { // could not be read back
			continue
		}
		fmt.Fprintf(&out, "%s=%s\n", key, escape.Replace(values[key]))
	}
	return out.Bytes()
}

func readRecord(run, id string) (*record, error) {
	r := &record{id: id, run: run}
	data, err := readFile(r.path(), maxRecord)
	if err != nil {
		return nil, err
	}
	r.values = parseRecord(data)
	r.foreign = r.values[micaDriver] == ""
	return r, nil
}

// save replaces the record's file.
//
// Differs: the original truncates the file and writes it anew for each value, for
// everybody to read; this is atomic and private, since a record holds the context
// and its passwords. What the original wrote is kept beside it the first time.
func (r *record) save() error {
	if r.foreign {
		if err := r.keepOriginal(); err != nil {
			return err
		}
		r.foreign, r.values[micaDriver] = false, r.driver()
	}
	return atomicfile.Write(r.path(), formatRecord(r.values), 0o600)
}

func (r *record) keepOriginal() error {
	kept := filepath.Join(r.run, recordPrefix+r.id+origSuffix)
	if _, err := os.Stat(kept); err == nil {
		return nil
	}
	data, err := readFile(r.path(), maxRecord)
	if errors.Is(err, fs.ErrNotExist) { // a new record
		return nil
	}
	if err != nil {
		return err
	}
	return atomicfile.Write(kept, data, 0o600)
}

// records returns every machine's record by name. A file that cannot be read as
// one is left alone and spoken of.
func (s *session) records() ([]*record, error) {
	entries, err := os.ReadDir(s.runDir())
	if err != nil {
		return nil, fmt.Errorf("Unable to read the machines: %w", err) //nolint:staticcheck // begins as the original's line does
	}
	var all []*record
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name(), recordPrefix)
		id, conf := strings.CutSuffix(id, recordSuffix)
		if !ok || !conf || !e.Type().IsRegular() {
			continue
		}
		r, err := readRecord(s.runDir(), id)
		switch {
		case errors.Is(err, fs.ErrNotExist): // destroyed while we looked
			continue
		case err != nil:
			s.tell("note: skipping %s: %v", e.Name(), err)
			continue
		case r.name() == "" || r.values[keyUUID] == "":
			s.Log.Debug("a record without name or uuid", "file", e.Name())
			continue
		case !strings.EqualFold(r.values[keyUUID], id) || uuid.Validate(id) != nil:
			s.tell("note: skipping %s: it names the uuid %q", e.Name(), r.values[keyUUID])
			continue
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b *record) int { return cmp.Compare(a.name(), b.name()) })
	return all, nil
}

// find returns the record of that name, or nil.
func (s *session) find(name string) (*record, error) {
	all, err := s.records()
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.name() == name {
			return r, nil
		}
	}
	return nil, nil
}

// get returns the record of that name, or the original's complaint.
func (s *session) get(name string) (*record, error) {
	r, err := s.find(name)
	if err == nil && r == nil {
		return nil, unknown(name)
	}
	return r, err
}

func unknown(name string) error {
	return fail.New(fail.NotFound, "Unable to find the machine: %s", name)
}

// hold locks a machine and reads its record under the lock. The caller calls
// free.
//
// Differs: the original has no lock between processes.
func (s *session) hold(ctx context.Context, name string) (r *record, free func(), err error) {
	r, err = s.get(name)
	if err != nil {
		return nil, nil, err
	}
	if free, err = s.lock(ctx, recordPrefix+r.id+lockSuffix, "machine "+name); err != nil {
		return nil, nil, err
	}
	r, err = readRecord(s.runDir(), r.id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && r.name() != name {
		err = unknown(name)
	}
	if err != nil {
		free()
		return nil, nil, err
	}
	return r, free, nil
}

func (s *session) lock(ctx context.Context, file, what string) (free func(), err error) {
	within, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	l, err := atomicfile.Acquire(within, filepath.Join(s.runDir(), file))
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
		if errors.Is(err, atomicfile.ErrLocked) {
			return nil, fail.New(fail.Conflict, "%s is busy: %w", what, err).Hint("wait for the other command, or end it")
		}
		return nil, err
	}
	return func() { _ = l.Unlock() }, nil
}

// tryLock takes a lock that is free, or fails at once.
func (s *session) tryLock(file string) (free func(), err error) {
	l, err := atomicfile.TryLock(filepath.Join(s.runDir(), file))
	if err != nil {
		return nil, err
	}
	return func() { _ = l.Unlock() }, nil
}

// forget removes a machine's folder and record, whatever is left of them. The
// caller holds the record's lock.
//
// Differs: the original removes files by their bare names from the current
// folder, and leaves the machine's folder behind.
func (s *session) forget(r *record) error {
	if uuid.Validate(r.id) != nil || r.id == "" {
		return fmt.Errorf("%q is no uuid", r.id)
	}
	if info, err := os.Lstat(r.folder()); err == nil && info.IsDir() {
		if err := os.RemoveAll(r.folder()); err != nil {
			return fmt.Errorf("removing the folder of %q: %w", r.name(), err)
		}
	}
	for _, suffix := range []string{recordSuffix, origSuffix, lockSuffix} {
		if err := os.Remove(filepath.Join(r.run, recordPrefix+r.id+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the record of %q: %w", r.name(), err)
		}
	}
	return nil
}
