package config

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/micavm/mica/cvmfs"
)

var (
	// ErrSyntax says that a file has something that is not read here; the text of
	// the error says where.
	ErrSyntax = errors.New("not a part of the configuration language that is read")
	// ErrUnknown says that neither files nor table name a server of a repository.
	ErrUnknown = errors.New("no server known")
	// ErrValue says that a parameter has a value that cannot be meant.
	ErrValue = errors.New("bad value")
)

// DefaultDir is where the original client's packages put their configuration.
const DefaultDir = "/etc/cvmfs"

const (
	maxFile  = 64 << 10 // bytes of one file
	maxValue = 64 << 10 // bytes of one variable
	maxDepth = 8        // files reading files
	maxFiles = 200      // read in all

	knownPrefix = "known:" // of names in the table
)

//go:embed known
var known embed.FS

// Options say where to look.
type Options struct {
	Dir string                   // of the installed files; empty means DefaultDir
	Env func(name string) string // variables that files may refer to; nil means none
	PID int                      // what $$ stands for, by which some files choose at random
}

// Value is one parameter.
type Value struct {
	Name   string
	Value  string // as assigned
	Origin string // FILE:LINE, or the word default
}

// Config is what the files say of one repository.
type Config struct {
	Name     string
	Known    bool     // the table was needed
	Warnings []string // what was passed over

	values map[string]Value
}

// Lookup returns a parameter.
func (c *Config) Lookup(name string) (Value, bool) {
	v, ok := c.values[name]
	return v, ok
}

// Values returns all parameters, by name.
func (c *Config) Values() []Value {
	return slices.SortedFunc(maps.Values(c.values), func(a, b Value) int { return cmp.Compare(a.Name, b.Name) })
}

// Expand replaces the templates @fqrn@ and @org@.
func (c *Config) Expand(text string) string {
	org, _, _ := strings.Cut(c.Name, ".")
	return strings.NewReplacer("@fqrn@", c.Name, "@org@", org).Replace(text)
}

// defaults are the values of parameters that no file has to name.
var defaults = map[string]string{
	"CVMFS_MOUNT_DIR": "/cvmfs", "CVMFS_QUOTA_LIMIT": "4000",
	"CVMFS_TIMEOUT": "5", "CVMFS_TIMEOUT_DIRECT": "10", "CVMFS_LOW_SPEED_LIMIT": "1024",
	"CVMFS_MAX_RETRIES": "1", "CVMFS_BACKOFF_INIT": "2", "CVMFS_BACKOFF_MAX": "10",
	"CVMFS_PROXY_RESET_AFTER": "300", "CVMFS_HOST_RESET_AFTER": "1800",
	"CVMFS_DNS_TIMEOUT": "3", "CVMFS_DNS_RETRIES": "1",
	"CVMFS_USE_GEOAPI": "no", "CVMFS_FOLLOW_REDIRECTS": "no",
}

// Read reads the files that concern a repository, in the original's order. A
// file that is not there is passed over.
func Read(name string, opt Options) (*Config, error) {
	if err := cvmfs.CheckName(name); err != nil {
		return nil, err
	}
	if !strings.Contains(name, ".") {
		return nil, fmt.Errorf("repository %q: the name has no domain: %w", name, cvmfs.ErrWrongName)
	}
	if opt.Dir == "" {
		opt.Dir = DefaultDir
	}
	if opt.Env == nil {
		opt.Env = func(string) string { return "" }
	}
	c, err := read(name, opt, false)
	if err != nil {
		return nil, err
	}
	if v := c.values["CVMFS_SERVER_URL"]; strings.TrimSpace(v.Value) != "" {
		return c, nil
	}
	return read(name, opt, true)
}

// reader reads files one after the other; each sees what the ones before said.
type reader struct {
	*Config
	opt    Options
	frozen bool // the configuration repository may not change any more
	files  int
}

func read(name string, opt Options, table bool) (*Config, error) {
	r := &reader{opt: opt, Config: &Config{Name: name, Known: table, values: map[string]Value{}}}
	for k, v := range defaults {
		r.values[k] = Value{Name: k, Value: v, Origin: "default"}
	}
	var err error
	file := func(name string) {
		if err == nil {
			err = r.file(name)
		}
	}
	shipped := func(name string) {
		if table {
			file(knownPrefix + name)
		}
	}
	shared := func(name string) {
		if dir := r.repository(); dir != "" {
			file(filepath.Join(dir, name))
		}
	}
	local := func(name string) { file(filepath.Join(opt.Dir, name)) }
	_, domain, _ := strings.Cut(name, ".")

	shipped("default.conf")
	local("default.conf")
	for _, f := range dropIns(filepath.Join(opt.Dir, "default.d")) {
		file(f)
	}
	r.frozen = true
	if err == nil {
		err = r.checkRepository()
	}
	shared("default.conf")
	local("default.local")
	shipped("domain.d/" + domain + ".conf")
	shared("domain.d/" + domain + ".conf")
	local("domain.d/" + domain + ".conf")
	local("domain.d/" + domain + ".local")
	shipped("config.d/" + name + ".conf")
	shared("config.d/" + name + ".conf")
	local("config.d/" + name + ".conf")
	local("config.d/" + name + ".local")
	if err != nil {
		return nil, err
	}
	return r.Config, nil
}

// dropIns lists the files *.conf of a directory in alphabetical order.
func dropIns(dir string) []string {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".conf") {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// repository is where the configuration repository has its files, if one is set
// and it is not the repository in question.
func (r *reader) repository() string {
	name := r.values["CVMFS_CONFIG_REPOSITORY"].Value
	if name == "" || name == r.Name || cvmfs.CheckName(name) != nil {
		return ""
	}
	return filepath.Join(r.values["CVMFS_MOUNT_DIR"].Value, name, "etc", "cvmfs")
}

func (r *reader) checkRepository() error {
	v := r.values["CVMFS_CONFIG_REPOSITORY"]
	if v.Value != "" && cvmfs.CheckName(v.Value) != nil {
		r.warn("%s: %q is no name of a repository", v.Origin, v.Value)
		return nil
	}
	dir := r.repository()
	if dir == "" {
		return nil
	}
	if _, err := os.Stat(dir); err != nil {
		if on, err := boolean(r.values["CVMFS_CONFIG_REPO_REQUIRED"]); on && err == nil {
			return fmt.Errorf("the configuration repository is required (%s): %w", r.values["CVMFS_CONFIG_REPO_REQUIRED"].Origin, fs.ErrNotExist)
		}
		r.warn("%s: the configuration repository is not there: %s", v.Origin, dir)
	}
	return nil
}

func (r *reader) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// load returns the content of a file, nil if it is not there.
func (r *reader) load(name string) ([]byte, error) {
	if r.files++; r.files > maxFiles {
		return nil, fmt.Errorf("%s: more than %d files: %w", name, maxFiles, ErrSyntax)
	}
	var f io.ReadCloser
	var err error
	if inside, ok := strings.CutPrefix(name, knownPrefix); ok {
		f, err = known.Open(path.Join("known", inside))
	} else {
		f, err = openRegular(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: longer than %d bytes: %w", name, maxFile, ErrSyntax)
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}

// openRegular opens a file, and nothing that reading from would wait on.
func openRegular(name string) (*os.File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	return os.Open(name)
}

// file reads one file and takes over what it assigns.
func (r *reader) file(name string) error {
	data, err := r.load(name)
	if data == nil || err != nil {
		return err
	}
	s := newScope(r)
	if _, err := s.source(name, data, 0); err != nil {
		return err
	}
	for _, n := range s.noticed {
		v, assigned := s.values[n]
		if !assigned {
			continue
		}
		if old := r.values[n]; r.frozen && n == "CVMFS_CONFIG_REPOSITORY" && old.Value != v.Value {
			r.warn("%s: %s is fixed by now and stays %q", v.Origin, n, old.Value)
			continue
		}
		r.values[n] = v
	}
	return nil
}
