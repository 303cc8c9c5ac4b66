package image

import (
	"encoding/json"
	"fmt"
	"os"
)

// Manifest says what an image is and what it was made from. It lies beside the
// image as <image>.json; its fields are additive within a schema number.
type Manifest struct {
	Schema        int              `json:"schema"`
	Version       string           `json:"version"`
	Title         string           `json:"title"`
	Format        string           `json:"format"`
	Arch          Arch             `json:"arch"`
	Size          int64            `json:"size"`
	SHA256        string           `json:"sha256"`
	BuildTime     int64            `json:"build_time"` // unix seconds; a machine's clock never starts before it
	Repository    Repository       `json:"repository"`
	KernelRelease string           `json:"kernel_release"`
	CommandLine   map[Entry]string `json:"command_line"`
	Sizes         Sizes            `json:"sizes"`
	Compression   string           `json:"compression"`
	Modules       []string         `json:"modules"`
	Inputs        []Input          `json:"inputs"`
}

// Repository is where an image takes its operating system from.
type Repository struct {
	Name    string   `json:"name"`
	Servers []string `json:"servers,omitempty"`
	URLs    []string `json:"urls,omitempty"`
	Path    string   `json:"path,omitempty"`
	Tag     string   `json:"tag,omitempty"`
}

// Input is one thing an image was made from: a Debian package, the guest
// binary, a key.
type Input struct {
	Kind    string `json:"kind"` // package, guest, key
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	SHA256  string `json:"sha256"`
}

// Sizes are bytes. Plain is the initramfs before compression; Guest, Modules
// and Tools are parts of it.
type Sizes struct {
	Kernel    int64 `json:"kernel"`
	Initramfs int64 `json:"initramfs"`
	Plain     int64 `json:"initramfs_plain"`
	Guest     int64 `json:"guest"`
	Modules   int64 `json:"modules"`
	Tools     int64 `json:"tools"`
	Loader    int64 `json:"loader"`
}

// Encode returns the manifest as its file has it.
func (m Manifest) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding manifest: %w", err)
	}
	return append(b, '\n'), nil
}

// ReadManifest reads the manifest beside an image. The error wraps
// fs.ErrNotExist where there is none.
func ReadManifest(imagePath string) (Manifest, error) {
	var m Manifest
	data, err := os.ReadFile(imagePath + ".json")
	if err != nil {
		return m, fmt.Errorf("reading manifest: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("reading manifest %s.json: %w", imagePath, err)
	}
	return m, nil
}
