package packages

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image/build/deb"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/run"
)

// Package is one package in the cache.
type Package struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	SHA256       string `json:"sha256"`
	File         string `json:"file"` // base name in the cache
}

// Cache is a folder of packages. It may be used by several processes at once.
type Cache struct {
	Dir          string
	Architecture string // of the packages, as Debian calls it; empty is that of this computer
	Run          run.Runner
	Log          *slog.Logger  // nil discards
	Progress     progress.Sink // nil discards
}

// Path is where a package of the cache lies.
func (c Cache) Path(p Package) string { return filepath.Join(c.Dir, p.File) }

// lock is what a request was answered with.
type lock struct {
	Schema   int       `json:"schema"`
	Request  []string  `json:"request"`
	Packages []Package `json:"packages"`
}

func (c Cache) lockFile(request []string) string {
	key := strings.Join(request, "\n")
	if c.foreign() {
		key += "\n" + c.Architecture
	}
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(c.Dir, "lock-"+hex.EncodeToString(sum[:8])+".json")
}

// Locked returns the packages a request was answered with before, each verified
// against its digest. The error wraps fs.ErrNotExist when there is no lock, or
// a file of it is gone.
func (c Cache) Locked(request []string) ([]Package, error) {
	name := c.lockFile(request)
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading package lock: %w", err)
	}
	var l lock
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("reading package lock %s: %w", name, err)
	}
	for _, p := range l.Packages {
		if filepath.Base(p.File) != p.File {
			return nil, fmt.Errorf("reading package lock %s: file %q is not in the cache", name, p.File)
		}
		sum, err := digest(c.Path(p))
		if err != nil {
			return nil, fmt.Errorf("reading package %s: %w", p.Name, err)
		}
		if sum != p.SHA256 {
			return nil, fail.New(fail.Unverified, "package %s in the cache has digest %s instead of %s", c.Path(p), sum, p.SHA256).
				Hint("remove the file and build again")
		}
	}
	return l.Packages, nil
}

// Lock writes down what a request was answered with.
func (c Cache) Lock(request []string, answer []Package) error {
	answer = slices.Clone(answer)
	slices.SortFunc(answer, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	data, err := json.MarshalIndent(lock{Schema: 1, Request: request, Packages: answer}, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(c.lockFile(request), append(data, '\n'), 0o644)
}

// Depends returns the packages that a package depends on, those that are named
// plainly: no alternatives and no virtual ones.
func (c Cache) Depends(ctx context.Context, name string) ([]string, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	r, err := c.Run.Run(ctx, c.apt("apt-cache", "", "depends", "--important", name))
	if err != nil {
		return nil, c.explain(fmt.Errorf("looking up what package %s needs: %w", name, err))
	}
	var names []string
	for line := range strings.Lines(string(r.Stdout)) {
		kind, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && (kind == "Depends" || kind == "PreDepends") && checkName(value) == nil && !slices.Contains(names, value) {
			names = append(names, value)
		}
	}
	return names, nil
}

// Kernel returns the package with the kernel that name stands for: a metapackage
// such as linux-image-amd64 depends on the one with the current release, any
// other is the kernel itself.
func (c Cache) Kernel(ctx context.Context, name string) (string, error) {
	names, err := c.Depends(ctx, name)
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if strings.HasPrefix(n, "linux-image-") {
			return n, nil
		}
	}
	return name, nil
}

// Fetch has apt download what is not in the cache yet.
func (c Cache) Fetch(ctx context.Context, names []string) ([]Package, error) {
	for _, n := range names {
		if err := checkName(n); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making package cache: %w", err)
	}
	l, err := atomicfile.Acquire(ctx, filepath.Join(c.Dir, ".lock"))
	if err != nil {
		return nil, fmt.Errorf("locking package cache: %w", err)
	}
	defer l.Unlock() //nolint:errcheck // nothing depends on it
	// apt says nothing of a file that lies in the folder already, so it looks at
	// an empty one.
	dir, err := os.MkdirTemp(c.Dir, ".download-")
	if err != nil {
		return nil, fmt.Errorf("making package cache: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // best effort
	r, err := c.Run.Run(ctx, c.apt("apt-get", dir, append([]string{"download", "--print-uris"}, names...)...))
	if err != nil {
		return nil, c.explain(fmt.Errorf("looking up packages: %w", err))
	}
	files, err := parseURIs(string(r.Stdout))
	if err != nil {
		return nil, err
	}
	if len(files) != len(names) {
		return nil, fail.New(fail.Failed, "apt-get offers %d packages for %d names", len(files), len(names)).Hint("run 'apt-get update'")
	}
	var missing []remote
	var total int64
	for _, f := range files {
		if sum, err := digest(filepath.Join(c.Dir, f.file)); err != nil || sum != f.sha256 {
			missing = append(missing, f)
			total += f.size
		}
	}
	if len(missing) > 0 {
		if err := c.download(ctx, dir, missing, total); err != nil {
			return nil, err
		}
	}
	packages := make([]Package, len(files))
	for i, f := range files {
		if packages[i], err = c.describe(f); err != nil {
			return nil, err
		}
	}
	return packages, nil
}

// download gets the files into a folder of their own first, so that the cache
// never has a part of one.
func (c Cache) download(ctx context.Context, dir string, files []remote, total int64) error {
	sink := progress.Or(c.Progress)
	sink.Emit(progress.Event{ID: "packages", Phase: "downloading", Total: total, Unit: progress.Bytes})
	args := []string{"download", "-q", "-o", "APT::Sandbox::User=root"}
	for _, f := range files {
		args = append(args, f.name+"="+f.version)
	}
	if _, err := c.Run.Run(ctx, c.apt("apt-get", dir, args...)); err != nil {
		return c.explain(fmt.Errorf("downloading packages: %w", err))
	}
	for _, f := range files {
		from := filepath.Join(dir, f.file)
		sum, err := digest(from)
		if err != nil {
			return fmt.Errorf("downloading package %s: %w", f.name, err)
		}
		if sum != f.sha256 {
			return fail.New(fail.Unverified, "package %s has digest %s instead of %s", f.name, sum, f.sha256).Hint("run 'apt-get update' and try again")
		}
		if err := os.Rename(from, filepath.Join(c.Dir, f.file)); err != nil {
			return fmt.Errorf("filing package %s: %w", f.name, err)
		}
	}
	sink.Emit(progress.Event{ID: "packages", Phase: "downloaded", Done: total, Total: total, Unit: progress.Bytes, Finished: true})
	return nil
}

// describe reads a package's own name and version.
func (c Cache) describe(r remote) (Package, error) {
	f, err := os.Open(filepath.Join(c.Dir, r.file))
	if err != nil {
		return Package{}, err
	}
	defer f.Close()
	fields, err := deb.Control(f)
	if err != nil {
		return Package{}, fmt.Errorf("package %s: %w", r.file, err)
	}
	return Package{Name: fields["Package"], Version: fields["Version"], Architecture: fields["Architecture"], SHA256: r.sha256, File: r.file}, nil
}

// remote is a package as apt offers it.
type remote struct {
	name, version, file, sha256 string
	size                        int64
}

// uriLine is 'URI' file size digest.
var uriLine = regexp.MustCompile(`^'[^']*' (([a-z0-9][a-z0-9+.-]+)_([^_/ ]+)_[^_/ ]+\.deb) (\d+) SHA256:([0-9a-f]{64})$`)

func parseURIs(text string) ([]remote, error) {
	var files []remote
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "'") {
			continue
		}
		m := uriLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("looking up packages: unexpected line %q of apt-get", line)
		}
		size, err := strconv.ParseInt(m[4], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("looking up packages: %w", err)
		}
		files = append(files, remote{file: m[1], name: m[2], version: strings.ReplaceAll(m[3], "%3a", ":"), sha256: m[5], size: size})
	}
	return files, nil
}

var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

func checkName(name string) error {
	if !packageName.MatchString(name) {
		return fail.New(fail.Usage, "%q is not the name of a Debian package", name)
	}
	return nil
}

// explain adds what usually helps.
func (c Cache) explain(err error) error {
	var failed *run.Error
	switch {
	case fail.Is(err, fail.HostLacks):
		return fail.New(fail.HostLacks, "%w", err).Hint("build on Debian or a derivative, or copy a filled package cache here and name it with --cache")
	case errors.As(err, &failed):
		update := "run 'apt-get update' so that apt knows the current packages"
		if c.foreign() {
			update = "use --refresh, with which apt gets the lists of " + c.Architecture + " anew"
		}
		return fail.New(fail.Refused, "%w", err).Hint("%s", update).Hint("or build from a filled package cache with --cache")
	}
	return err
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, fs.ErrInvalid)
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
