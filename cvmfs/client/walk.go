package client

import (
	"sort"
	"strings"
)

// walker goes through the directories of a repository in the order of tar, cp
// and find: by name, and into each as soon as it comes. It is one goroutine's.
type walker struct {
	r     *Repository
	stack []frame // from the root down to where the walk is

	// Directories walked lately, and what had been found when each was left behind.
	places map[string]found
	order  []string
	total  found

	// The directory somebody read from last, and how many were read in order
	// before it.
	last string
	run  int
	near frame // the last listing looked at for that
}

// frame is a directory under way, or just its listing.
type frame struct {
	dir     string
	known   bool
	subdirs []string
	next    int // of subdirs
}

// found counts what a walk has come by.
type found struct {
	dirs, files int
	bytes       int64
}

const (
	keptPlaces = 4 * nextDirs
	beside     = 2 // directories from one to the next of those read in order
	firstDirs  = 3 // how many of these it takes: a chance reader must not set it off
)

// list reads a directory: its subdirectories, and what to fetch of its files, up
// to a window full.
func (w *walker) list(dir string) (frame, []want, error) {
	entries, err := w.r.ReadDir(w.r.life, dir)
	if err != nil {
		return frame{}, nil, err
	}
	f := frame{dir: dir, known: true}
	var files []want
	for _, e := range entries {
		if e.IsDir() {
			f.subdirs = append(f.subdirs, e.Name)
		} else if one := w.r.small(dir, e); !one.hash.IsZero() && len(files) < widestWindow {
			files = append(files, one)
		}
	}
	return f, files, nil
}

// seek makes dir the place from which the walk goes on.
func (w *walker) seek(dir string) error {
	w.stack, w.places, w.order = w.stack[:0], map[string]found{}, w.order[:0]
	for at := ""; ; {
		f, _, err := w.list(at)
		if err != nil {
			return err
		}
		if at == dir {
			w.stack = append(w.stack, f)
			w.mark(dir)
			return nil
		}
		name, _, _ := strings.Cut(dir[len(at)+1:], "/")
		f.next = sort.Search(len(f.subdirs), func(i int) bool { return f.subdirs[i] > name })
		w.stack = append(w.stack, f)
		at += "/" + name
	}
}

func (w *walker) mark(dir string) {
	if len(w.order) == keptPlaces {
		delete(w.places, w.order[0])
		w.order = append(w.order[:0], w.order[1:]...)
	}
	w.places[dir] = w.total
	w.order = append(w.order, dir)
}

// step goes to the next directory and returns its files; it is false at the end
// of the repository.
func (w *walker) step() ([]want, bool) {
	for len(w.stack) > 0 {
		top := &w.stack[len(w.stack)-1]
		if top.next == len(top.subdirs) {
			w.stack = w.stack[:len(w.stack)-1]
			continue
		}
		dir := top.dir + "/" + top.subdirs[top.next]
		top.next++
		f, files, err := w.list(dir)
		if err != nil {
			w.stack = w.stack[:0]
			return nil, false
		}
		w.stack = append(w.stack, f)
		w.total.dirs++
		w.total.files += len(files)
		for _, one := range files {
			w.total.bytes += one.size
		}
		w.mark(dir)
		return files, true
	}
	return nil, false
}

// read hears that a file in dir is read, and reports whether the next directories
// are likely to be read: the walk has been there, and the reader follows, or
// directories are read in order.
func (w *walker) read(dir string) bool {
	switch {
	case dir == w.last:
	case w.follows(w.last, dir):
		w.run++
	default:
		w.run = 0
	}
	w.last = dir
	_, ahead := w.places[dir]
	return ahead || w.inOrder()
}

// inOrder reports whether the last directories were read in order.
func (w *walker) inOrder() bool { return w.run >= firstDirs }

// follows reports whether a walk comes from one directory to the other soon.
func (w *walker) follows(last, dir string) bool {
	top, from, to, ok := fork(last, dir)
	if !ok || from >= to {
		return false
	}
	if !w.near.known || w.near.dir != top {
		f, _, err := w.list(top)
		if err != nil {
			return false
		}
		w.near = f
	}
	return sort.SearchStrings(w.near.subdirs, to)-sort.SearchStrings(w.near.subdirs, from) <= beside
}

// fork finds the directory that has both a and b below it, and the names there
// that lead to each. It is false if one is above the other, or both are not
// close below it.
func fork(a, b string) (top, from, to string, ok bool) {
	for {
		nameA, restA, _ := strings.Cut(strings.TrimPrefix(a, "/"), "/")
		nameB, restB, _ := strings.Cut(strings.TrimPrefix(b, "/"), "/")
		if nameA == "" || nameB == "" {
			return "", "", "", false
		}
		if nameA != nameB {
			return top, nameA, nameB, !strings.Contains(restA, "/") && !strings.Contains(restB, "/")
		}
		top, a, b = top+"/"+nameA, restA, restB
	}
}
