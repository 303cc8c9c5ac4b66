package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/image/format"
	"github.com/micavm/mica/internal/progress"
)

// shownImage is what 'image show' prints.
type shownImage struct {
	Schema   int             `json:"schema"`
	Path     string          `json:"path"`
	Format   string          `json:"format"`
	Label    string          `json:"label"`
	Boots    []string        `json:"boots"`
	Size     int64           `json:"size"`
	SHA256   string          `json:"sha256"`
	Verified bool            `json:"verified"` // against the digest beside the image
	Manifest *image.Manifest `json:"manifest,omitempty"`
	image.Description
}

func newImageShow(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Describe a boot image and verify its digest",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := showImage(args[0])
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return printJSON(a.Out, s)
			case "table":
				return s.print(a.Out)
			}
			return fail.New(fail.Usage, "unknown --output %q", output).Hint("use table or json")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "how to print: table or json")
	return cmd
}

func showImage(name string) (shownImage, error) {
	s := shownImage{Schema: 1, Path: name}
	v, err := image.Check(name)
	if err != nil {
		return s, err
	}
	s.Size, s.SHA256, s.Verified = v.Size, v.SHA256, v.Verified
	f, err := os.Open(name)
	if err != nil {
		return s, fmt.Errorf("opening image: %w", err)
	}
	defer f.Close()
	kind, err := format.Detect(f)
	if err != nil {
		return s, err
	}
	c, err := kind.Open(f, v.Size)
	if err != nil {
		return s, fmt.Errorf("reading image %s: %w", name, err)
	}
	s.Format, s.Label, s.Boots = kind.Name, c.Label, c.Firmware
	if s.Description, err = image.Describe(c.Files); err != nil {
		return s, err
	}
	m, err := image.ReadManifest(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return s, err
	default:
		s.Manifest = &m
	}
	return s, nil
}

func (s shownImage) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		_, _ = fmt.Fprintf(tw, "%s\t"+format+"\n", append([]any{key}, args...)...)
	}
	row("image", "%s", s.Path)
	row("version", "%s", s.Version)
	row("format", "%s, label %s, starts by %s", s.Format, s.Label, strings.Join(s.Boots, ", "))
	row("size", "%s", progress.Size(s.Size))
	verified := "not verified: no digest beside the image"
	if s.Verified {
		verified = "verified"
	}
	row("sha256", "%s (%s)", s.SHA256, verified)
	for _, e := range []image.Entry{image.Normal, image.Debug} {
		row(string(e), "%s", s.CommandLine[e])
	}
	for _, p := range s.Parts {
		row("part", "%s, %s", p.Path, progress.Size(p.Size))
	}
	if m := s.Manifest; m != nil {
		row("kernel", "%s", m.KernelRelease)
		row("initramfs", "%s as %s, %s plain", progress.Size(m.Sizes.Initramfs), m.Compression, progress.Size(m.Sizes.Plain))
		row("of that", "guest %s, %d modules %s, tools %s", progress.Size(m.Sizes.Guest), len(m.Modules), progress.Size(m.Sizes.Modules), progress.Size(m.Sizes.Tools))
		row("clock floor", "%s", time.Unix(m.BuildTime, 0).UTC().Format(time.RFC3339))
		for _, in := range m.Inputs {
			row("input", "%s %s %s, sha256 %s", in.Kind, in.Name, in.Version, in.SHA256)
		}
	}
	return tw.Flush()
}
