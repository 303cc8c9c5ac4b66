package image

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Part is one file of a boot tree.
type Part struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

// Description is what an image says of itself, without its manifest.
type Description struct {
	Version     string           `json:"version"` // content of the version file
	CommandLine map[Entry]string `json:"command_line"`
	Parts       []Part           `json:"parts"`
}

const maxConfig = 64 << 10

// Describe reads a boot tree.
func Describe(tree fs.FS) (Description, error) {
	var d Description
	err := fs.WalkDir(tree, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		d.Parts = append(d.Parts, Part{p, info.Size()})
		return nil
	})
	if err != nil {
		return d, fmt.Errorf("listing image: %w", err)
	}
	version, err := readSmall(tree, VersionPath)
	if err != nil {
		return d, err
	}
	d.Version, d.CommandLine = strings.TrimSpace(version), map[Entry]string{}
	config, err := readSmall(tree, LoaderConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return d, d.readEntries(tree)
	}
	if err != nil {
		return d, err
	}
	var entry Entry
	for line := range strings.Lines(config) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch strings.ToLower(key) {
		case "label":
			entry = Entry(strings.TrimSpace(value))
		case "append":
			if entry != "" {
				d.CommandLine[entry] = strings.TrimSpace(value)
			}
		}
	}
	return d, nil
}

// readEntries reads the menu of an image without isolinux.
func (d *Description) readEntries(tree fs.FS) error {
	for _, e := range []Entry{Normal, Debug} {
		text, err := readSmall(tree, EFIConfigDir+"/entries/"+string(e)+".conf")
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if words, ok := strings.CutPrefix(line, "options "); ok {
				d.CommandLine[e] = strings.TrimSpace(words)
			}
		}
	}
	return nil
}

func readSmall(tree fs.FS, name string) (string, error) {
	info, err := fs.Stat(tree, name)
	if err != nil {
		return "", fmt.Errorf("reading image: %w", err)
	}
	if info.Size() > maxConfig {
		return "", fmt.Errorf("reading image: %s has %d bytes: %w", name, info.Size(), ErrFormat)
	}
	b, err := fs.ReadFile(tree, name)
	if err != nil {
		return "", fmt.Errorf("reading image: %w", err)
	}
	return string(b), nil
}
