package params

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// maxFile is far more than the parameters of a machine need.
const maxFile = 256 << 10

// File is a file of parameters.
type File struct {
	name    string
	dir     string
	entries map[string]entry
}

type entry struct {
	values []string
	line   int
}

// ReadFile reads and checks the file at path.
func ReadFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fail.New(fail.Usage, "reading the machine's file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the machine's file: %w", err)
	}
	if len(data) > maxFile {
		return nil, fail.New(fail.Usage, "%s is too long to be the file of a machine", path)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return Parse(path, dir, data)
}

// Parse reads parameters in YAML; name is for messages, paths are relative to dir.
func Parse(name, dir string, data []byte) (*File, error) {
	file := &File{name: name, dir: dir, entries: map[string]entry{}}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return file, nil
	}
	if err != nil {
		return nil, fail.New(fail.Usage, "%s: %w", name, err)
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fail.New(fail.Usage, "%s: only one document, please", name)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return file, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, file.bad(root, "it does not hold keys with values").Hint("write, for instance, memory: 4G")
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if err := file.add(root.Content[i], root.Content[i+1]); err != nil {
			return nil, err
		}
	}
	return file, nil
}

func (f *File) bad(n *yaml.Node, format string, args ...any) *fail.Error {
	return fail.New(fail.Usage, "%s:%d: %s", f.name, n.Line, fmt.Sprintf(format, args...))
}

func (f *File) add(key, value *yaml.Node) error {
	p, known := Named(key.Value)
	if !known || key.Kind != yaml.ScalarNode {
		return f.unknown(key)
	}
	if _, twice := f.entries[p.Name]; twice {
		return f.bad(key, "%q stands here for the second time", p.Name)
	}
	values, err := f.values(p, value)
	if err != nil || len(values) == 0 { // an empty list says as much as no list
		return err
	}
	f.entries[p.Name] = entry{values, key.Line}
	return nil
}

func (f *File) unknown(key *yaml.Node) error {
	err := f.bad(key, "unknown key %q", key.Value)
	var names []string
	for _, p := range All() {
		names = append(names, p.Name)
	}
	if near := machine.Nearest(key.Value, names); near != "" {
		return err.Hint("did you mean %q?", near)
	}
	return err.Hint("the keys are the long options of 'mica create', without the dashes")
}

// values returns the text of a scalar, of each of a sequence, or KEY=VALUE of
// each pair of a mapping.
func (f *File) values(p Param, n *yaml.Node) ([]string, error) {
	switch {
	case n.Kind == yaml.ScalarNode:
		text, err := f.scalar(p, n)
		return []string{text}, err
	case n.Kind == yaml.SequenceNode && p.List:
		var all []string
		for _, item := range n.Content {
			text, err := f.scalar(p, item)
			if err != nil {
				return nil, err
			}
			all = append(all, text)
		}
		return all, nil
	case n.Kind == yaml.MappingNode && p.Name == "option":
		var all []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, err := f.scalar(p, n.Content[i])
			if err != nil {
				return nil, err
			}
			value, err := f.scalar(p, n.Content[i+1])
			if err != nil {
				return nil, err
			}
			all = append(all, key+"="+value)
		}
		return all, nil
	case p.List:
		return nil, f.bad(n, "%s takes one value or a list of them", p.Name)
	}
	return nil, f.bad(n, "%s takes one value", p.Name)
}

func (f *File) scalar(p Param, n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
		return "", f.bad(n, "%s has no value", p.Name).Hint("leave it out for its default")
	}
	return n.Value, nil
}
