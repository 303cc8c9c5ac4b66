package iso9660

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
)

// Limits of what is written.
const (
	maxDepth = 8 // ECMA-119 6.8.2.1, the root being level 1
	maxName  = 255
	maxFile  = math.MaxUint32 - SectorSize
)

// node is one object of the tree that both hierarchies show.
type node struct {
	file     File
	name     string
	children []*node // sorted by name
	parent   *node   // itself for the root
	extent   uint32  // of a regular file's content
	patch    []byte  // replaces the content's bytes from infoOffset on
	hidden   bool    // a boot image that is in no directory
	holder   *node   // the boot image that has the content, nil for none
	within   uint32  // where in holder, in sectors
}

func (n *node) isDir() bool     { return n.file.Mode.IsDir() }
func (n *node) isSymlink() bool { return n.file.Mode&fs.ModeSymlink != 0 }

// sectorsOf returns how many sectors n bytes take.
func sectorsOf(n int64) uint32 { return uint32((n + SectorSize - 1) / SectorSize) }

// newTree makes the tree of the files and of the directories above them.
func newTree(files []File) (*node, map[string]*node, error) {
	root := &node{file: File{Mode: fs.ModeDir | 0o755}}
	root.parent = root
	all := map[string]*node{".": root}
	implied := map[string]bool{".": true}
	sorted := slices.Clone(files)
	slices.SortStableFunc(sorted, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range sorted {
		if err := checkFile(f); err != nil {
			return nil, nil, fmt.Errorf("file %q: %w", f.Path, err)
		}
		if old, ok := all[f.Path]; ok {
			if !implied[f.Path] || !f.Mode.IsDir() {
				return nil, nil, fmt.Errorf("file %q: %w", f.Path, fs.ErrExist)
			}
			old.file.Mode = f.Mode
			delete(implied, f.Path)
			continue
		}
		parent, err := directory(path.Dir(f.Path), all, implied)
		if err != nil {
			return nil, nil, fmt.Errorf("file %q: %w", f.Path, err)
		}
		n := &node{file: f, name: path.Base(f.Path), parent: parent}
		parent.children = append(parent.children, n)
		all[f.Path] = n
	}
	for _, n := range all {
		slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	}
	return root, all, nil
}

// directory finds or makes the directory at p.
func directory(p string, all map[string]*node, implied map[string]bool) (*node, error) {
	if n, ok := all[p]; ok {
		if !n.isDir() {
			return nil, fmt.Errorf("%q is not a directory", p)
		}
		return n, nil
	}
	parent, err := directory(path.Dir(p), all, implied)
	if err != nil {
		return nil, err
	}
	n := &node{file: File{Path: p, Mode: fs.ModeDir | 0o755}, name: path.Base(p), parent: parent}
	parent.children = append(parent.children, n)
	all[p], implied[p] = n, true
	return n, nil
}

func checkFile(f File) error {
	if !fs.ValidPath(f.Path) || strings.ContainsRune(f.Path, 0) {
		return errors.New("not a clean relative path")
	}
	depth := strings.Count(f.Path, "/") + 2
	if f.Path == "." {
		depth = 1
	}
	if !f.Mode.IsDir() {
		depth--
	}
	if depth > maxDepth {
		return fmt.Errorf("more than %d directory levels", maxDepth)
	}
	for part := range strings.SplitSeq(f.Path, "/") {
		if len(part) > maxName {
			return fmt.Errorf("a name is longer than %d bytes", maxName)
		}
	}
	switch f.Mode.Type() {
	case 0:
		if f.Size < 0 || f.Size > maxFile {
			return fmt.Errorf("size %d is outside 0 to %d", f.Size, int64(maxFile))
		}
		if f.Size > 0 && f.Open == nil {
			return errors.New("no content to open")
		}
	case fs.ModeDir:
	case fs.ModeSymlink:
		if f.Link == "" || strings.ContainsRune(f.Link, 0) {
			return fmt.Errorf("unusable link target %q", f.Link)
		}
	default:
		return fmt.Errorf("type %v cannot be stored", f.Mode.Type())
	}
	return nil
}
