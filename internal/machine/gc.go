package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Leftover is something that a killed command left, or that nobody uses.
type Leftover struct {
	Kind string `json:"kind"` // machine, folder, image, file; change is one of a machine, which is finished
	Name string `json:"name"`
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes on disk
}

// young is the age below which a file may belong to a command that goes on.
const young = 10 * time.Minute

// Sweep finds all leftovers and, unless dry, removes them. Nothing that a
// running command uses is among them. The error joins what could not be removed.
func (f *Fleet) Sweep(ctx context.Context, dry bool) ([]Leftover, error) {
	var swept []Leftover
	var errs []error
	remove := func(l Leftover, how func() error) {
		if l.Kind != "change" {
			l.Size = used(l.Path)
		}
		if !dry {
			if err := how(); err != nil {
				errs = append(errs, fmt.Errorf("clearing %s: %w", l.Path, err))
				return
			}
		}
		swept = append(swept, l)
	}
	entries, err := readDir(f.Home.machines())
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return swept, errors.Join(append(errs, err)...)
		}
		path := filepath.Join(f.Home.machines(), e.Name())
		l := Leftover{Kind: "folder", Name: e.Name(), Path: path}
		if strings.HasPrefix(e.Name(), trashPrefix) || strings.HasPrefix(e.Name(), newPrefix) {
			if abandoned(path, e) {
				remove(l, func() error { return os.RemoveAll(path) })
			}
			continue
		}
		if CheckName(e.Name()) != nil {
			continue
		}
		switch m := f.read(e.Name()); {
		case m.State == Incomplete:
			l.Kind = "machine"
			remove(l, func() error { return f.clearIncomplete(ctx, e.Name()) })
		case f.changing(m):
			l.Kind = "change"
			remove(l, func() error { return f.settle(ctx, e.Name()) })
		}
	}
	for _, dir := range []string{f.Home.bootCache(), f.Home.downloads()} {
		images, err := readDir(dir)
		if err != nil {
			errs = append(errs, err)
		}
		for _, e := range images {
			info, err := e.Info()
			// The lock of a download belongs to whoever waits for it.
			if err != nil || time.Since(info.ModTime()) < young || links(info) > 1 || strings.HasSuffix(e.Name(), ".lock") {
				continue
			}
			path := filepath.Join(dir, e.Name())
			l := Leftover{Kind: "image", Name: e.Name(), Path: path}
			if strings.HasPrefix(e.Name(), ".") {
				l.Kind = "file"
			}
			remove(l, func() error { return os.Remove(path) })
		}
	}
	return swept, errors.Join(errs...)
}

func readDir(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking for leftovers: %w", err)
	}
	return entries, nil
}

// abandoned reports whether no command works on a folder that is being made or
// removed: its lock is free, or it has none and is old.
func abandoned(path string, e fs.DirEntry) bool {
	if _, err := os.Stat(filepath.Join(path, lockFile)); err == nil {
		l, err := tryLock(path)
		if err == nil {
			l.unlock()
		}
		return err == nil
	}
	info, err := e.Info()
	return err == nil && time.Since(info.ModTime()) > young
}

func (f *Fleet) clearIncomplete(ctx context.Context, name string) error {
	dir := f.Home.machine(name)
	l, err := tryLock(dir)
	if err != nil {
		return err
	}
	h := &held{lock: l}
	defer h.release()
	if h.Record, err = load(dir); err != nil {
		return err
	}
	if h.Phase == PhaseCreated { // somebody was faster
		return nil
	}
	return f.clear(ctx, h, dir)
}

// changing reports whether a killed command left a change of the machine.
func (f *Fleet) changing(m Machine) bool {
	return m.Record != nil && m.Record.Pending != nil && f.unfinished(m.Name) == Incomplete
}

// settle finishes it, or takes it back.
func (f *Fleet) settle(ctx context.Context, name string) error {
	h, err := f.hold(ctx, name)
	if err != nil {
		return err
	}
	defer h.release()
	return f.finishChange(ctx, h)
}

func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) //nolint:unconvert // its type differs between systems
	}
	return 1
}

// used is the space a file or folder takes; what cannot be read counts nothing.
func used(path string) int64 {
	var total int64
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // an estimate
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok && links(info) < 2 {
				total += st.Blocks * 512
			}
		}
		return nil
	})
	return total
}
