package qemuimg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/run"
)

const (
	program  = "qemu-img"
	glance   = 10 * time.Second // to look at a header
	patience = time.Hour        // to read all of an image
	maxSize  = 64 << 40         // as a disk of a machine may have
)

// Tool is qemu-img on this computer.
type Tool struct{ Run run.Runner }

// Image is a file and its format, by qemu-img's name for it.
type Image struct {
	Path   string
	Format string
	Name   string // where the user knows it from, for errors
}

// Usable says whether the program is there.
func (t Tool) Usable(ctx context.Context) error {
	_, err := t.Run.Run(ctx, run.Command{Name: program, Args: []string{"--version"}, Timeout: glance})
	return missing(err)
}

// Size is how many bytes the image's disk has.
func (t Tool) Size(ctx context.Context, i Image) (int64, error) {
	out, err := t.Run.Run(ctx, run.Command{
		Name: program, Args: []string{"info", "--output=json", "-f", i.Format, i.Path}, Timeout: glance,
	})
	if err != nil {
		return 0, i.explain(err)
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(out.Stdout, &info); err != nil {
		return 0, fmt.Errorf("reading what %s says of %s: %w", program, i.Name, err)
	}
	if info.Size <= 0 || info.Size > maxSize {
		return 0, fail.New(fail.Unverified, "disk image %s is of a disk of %d bytes", i.Name, info.Size)
	}
	return info.Size, nil
}

// Create makes the file at path, which may be there, an empty qcow2 disk.
func (t Tool) Create(ctx context.Context, path string, mib int64) error {
	_, err := t.Run.Run(ctx, run.Command{
		Name: program, Args: []string{"create", "-q", "-f", "qcow2", path, strconv.FormatInt(mib, 10) + "M"}, Timeout: glance,
	})
	if err != nil {
		return missing(fmt.Errorf("making a disk of %d MiB: %w", mib, err))
	}
	return nil
}

// Whole refuses an image that lacks a part, as far as its format can tell: what
// is beyond the end of a file reads as zeros, so that half a download would
// pass for a disk.
func (t Tool) Whole(ctx context.Context, i Image) error {
	const leaks, unknown = 3, 63 // space that nobody uses; a format without marks to check
	_, err := t.Run.Run(ctx, run.Command{Name: program, Args: []string{"check", "-q", "-f", i.Format, i.Path}, Timeout: patience})
	var bad *run.Error
	if errors.As(err, &bad) && (bad.Result.Code == leaks || bad.Result.Code == unknown) {
		return nil
	}
	return i.explain(err)
}

// Fill writes the image's content to the image to, which is there, empty and at
// least as large.
func (t Tool) Fill(ctx context.Context, to, from Image) error {
	_, err := t.Run.Run(ctx, run.Command{
		Name: program, Timeout: patience,
		Args: []string{"convert", "-n", "--target-is-zero", "-f", from.Format, "-O", to.Format, from.Path, to.Path},
	})
	return from.explain(err)
}

// explain says why an image was not read.
func (i Image) explain(err error) error {
	var bad *run.Error
	if !errors.As(err, &bad) {
		return missing(err)
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(bad.Result.Stderr)), "\n") // a check may say a lot
	if text == "" {
		text = "it is damaged"
	}
	if strings.Contains(text, "No space left on device") {
		return fail.New(fail.Failed, "copying disk image %s: %s", i.Name, text)
	}
	return fail.New(fail.Unverified, "disk image %s: %s", i.Name, text).Hint("fetch it again")
}

// missing gives the error of a missing program its remedy.
func missing(err error) error {
	if err == nil || !fail.Is(err, fail.HostLacks) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fail.New(fail.HostLacks, "disk images cannot be read: %w", err).
		Hint("install qemu-img: package qemu-utils on Debian and Ubuntu, qemu-img on Fedora and RHEL")
}
