package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/config"
	"github.com/micavm/mica/internal/fail"
)

// repoSource are the flags that say which repository, and where from.
type repoSource struct {
	name, cache, tag, rootHash, proxy string
	date, config                      string
	keys, servers, external           []string
	quota                             int64
	timeout                           time.Duration

	given    func(flag string) bool // on the command line
	mounting bool
	conf     config.Repository // what the configuration says of a repository given by its name
	values   []config.Value    // the same, parameter by parameter
}

func (s *repoSource) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	s.given = f.Changed
	configFlag(cmd, &s.config)
	f.StringVar(&s.name, "name", "", "name of the repository (default: last part of its URL)")
	f.StringSliceVar(&s.keys, "key", nil, "file with the repository's public master key (default: NAME.pub in the folder keys below MICA_HOME, then what 'mica repo config' shows)")
	f.StringSliceVar(&s.servers, "server", nil, "further base URLs to fall back to")
	f.StringSliceVar(&s.external, "external-server", nil, "base URLs of the files whose content is not in the repository (CVMFS_EXTERNAL_URL)")
	f.StringVar(&s.proxy, "proxy", "DIRECT", "proxies, as in CVMFS_HTTP_PROXY; auto runs the proxy script of the network")
	f.StringVar(&s.cache, "cache", "", "cache directory (default: one for the repository below the user's cache directory)")
	f.Int64Var(&s.quota, "quota", 4000, "megabytes the cache may take, 0 for no limit")
	f.StringVar(&s.tag, "tag", "", "show the revision of this tag")
	f.StringVar(&s.date, "date", "", "show the newest tagged revision that is not younger, such as 2026-01-31T12:00:00Z")
	f.StringVar(&s.rootHash, "root-hash", "", "show the revision with this root catalogue")
	f.DurationVar(&s.timeout, "timeout", 0, "for connecting, and for a stalled transfer (default: 5s through a proxy, 10s direct)")
	cmd.MarkFlagsMutuallyExclusive("tag", "date", "root-hash")
}

// options makes client options for the repository at a URL, in a directory, or
// of a name that the configuration knows.
func (s *repoSource) options(a *app, source string) (client.Options, error) {
	opt := client.Options{Name: s.name, Proxies: s.proxy, Quota: s.quota << 20, Timeout: s.timeout, CacheDir: s.cache, Log: a.log}
	sources := append([]string{source}, s.servers...)
	if isRepositoryName(source) {
		if err := s.configured(a, source, &opt); err != nil {
			return opt, err
		}
		sources = s.servers
	}
	if err := s.discovery(a, &opt.Network); err != nil {
		return opt, err
	}
	more, err := baseURLs(sources)
	if err != nil {
		return opt, err
	}
	opt.Servers = append(opt.Servers, more...)
	if len(s.external) > 0 {
		if opt.External.Servers, err = baseURLs(s.external); err != nil {
			return opt, err
		}
	}
	if opt.Name == "" {
		opt.Name = path.Base(opt.Servers[0])
	}
	if err := cvmfs.CheckName(opt.Name); err != nil {
		return opt, fail.New(fail.Usage, "%w", err).Hint("give the name of the repository with --name")
	}
	if err := s.blacklist(a, &opt); err != nil {
		return opt, err
	}
	if s.date != "" {
		at, err := time.Parse(time.RFC3339, s.date)
		if err != nil {
			return opt, fail.New(fail.Usage, "--date %q is no date", s.date).Hint("write it as 2026-01-31T12:00:00Z")
		}
		opt.Pin = client.Pin{Date: at}
	}
	if s.rootHash != "" {
		h, err := cvmfs.ParseHash(s.rootHash)
		if err != nil {
			return opt, fail.New(fail.Usage, "--root-hash: %w", err)
		}
		opt.Pin = client.Pin{RootHash: h}
	}
	if s.tag != "" {
		opt.Pin = client.Pin{Tag: s.tag}
	}
	if len(s.keys) > 0 {
		opt.MasterKeys = nil
	}
	for _, file := range s.keys {
		pem, err := os.ReadFile(file)
		if err != nil {
			return opt, fail.New(fail.Usage, "reading the public key: %w", err)
		}
		keys, err := cvmfs.ParsePublicKeys(pem)
		if err != nil {
			return opt, fail.New(fail.Usage, "public key %s: %w", file, err)
		}
		opt.MasterKeys = append(opt.MasterKeys, keys...)
	}
	if len(s.keys) == 0 && s.rootHash == "" {
		own, err := a.publicKeys("", "", opt.Name)
		if err != nil {
			return opt, err
		}
		if len(own) > 0 {
			opt.MasterKeys = own
		} else if len(opt.MasterKeys) == 0 {
			opt.MasterKeys = configuredKeys(a, s.config, opt.Name)
		}
	}
	if len(opt.MasterKeys) == 0 && opt.Pin.RootHash.IsZero() {
		return opt, fail.New(fail.Usage, "no key to verify repository %q with", opt.Name).
			Hint("give the file of its public master key with --key").
			Hint("or the hash of a root catalogue you trust with --root-hash")
	}
	if opt.CacheDir == "" {
		dir, err := a.repositoryCache(opt.Name)
		if err != nil {
			return opt, err
		}
		opt.CacheDir = dir
	}
	return opt, nil
}

// repositoryCache is where the cache of a repository is if nobody says.
func (a *app) repositoryCache(name string) (string, error) {
	base := a.Env("XDG_CACHE_HOME")
	if base == "" {
		home := a.Env("HOME")
		if home == "" {
			return "", fail.New(fail.Usage, "no place for the cache: HOME is not set").Hint("give a directory with --cache")
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "mica", "cvmfs", name), nil
}

// baseURLs makes URLs of directories.
func baseURLs(list []string) ([]string, error) {
	out := make([]string, 0, len(list))
	for _, from := range list {
		if !strings.Contains(from, "://") {
			abs, err := filepath.Abs(from)
			if err != nil {
				return nil, err
			}
			from = "file://" + abs
		}
		out = append(out, strings.TrimRight(from, "/"))
	}
	return out, nil
}

func (s *repoSource) open(ctx context.Context, a *app, source string) (*client.Repository, error) {
	opt, err := s.options(a, source)
	if err != nil {
		return nil, err
	}
	return a.openRepository(ctx, opt)
}

func (a *app) openRepository(ctx context.Context, opt client.Options) (*client.Repository, error) {
	r, err := client.Open(ctx, opt)
	if err != nil {
		return nil, repoError(err)
	}
	if why := r.News(); why != nil {
		_, _ = fmt.Fprintf(a.Err, "mica: showing revision %d of %s from the cache, nothing newer is to be had: %v\n", r.Revision(), opt.Name, why)
		for _, hint := range fail.Hints(repoError(why)) {
			_, _ = fmt.Fprintf(a.Err, "hint: %s\n", hint)
		}
	}
	return r, nil
}

// repoError gives an error of the client its class and a hint.
func repoError(err error) error {
	var known *fail.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, client.ErrCache) && errors.Is(err, syscall.EAGAIN):
		return fail.New(fail.Conflict, "%w", err).Hint("wait for the other client to end, or name another cache with --cache")
	case errors.Is(err, client.ErrCache):
		return fail.New(fail.HostLacks, "%w", err).Hint("name a directory that you may write to with --cache")
	case errors.Is(err, cvmfs.ErrExpired):
		return fail.New(fail.Unverified, "%w", err).Hint("the publisher has to sign the whitelist again; or check this computer's clock")
	case errors.Is(err, cvmfs.ErrUntrusted):
		return fail.New(fail.Unverified, "%w", err).Hint("the repository's owner does not vouch for what this server offers: try another one with --server, and tell the owner")
	case errors.Is(err, cvmfs.ErrSignature):
		return fail.New(fail.Unverified, "%w", err).Hint("check that the key is this repository's; if it is, somebody else has signed: try another server with --server")
	case errors.Is(err, cvmfs.ErrWrongName):
		return fail.New(fail.Unverified, "%w", err).Hint("give the name of the repository with --name")
	case errors.Is(err, client.ErrOutdated):
		return fail.New(fail.Unverified, "%w", err).Hint("the server has not been brought up to date: try another one with --server").
			Hint("if the repository was made anew, remove its cache directory")
	case errors.Is(err, client.ErrNoTag):
		return fail.New(fail.NotFound, "%w", err).Hint("see what there is with 'mica repo tags'")
	case errors.Is(err, client.ErrCacheFull):
		return fail.New(fail.HostLacks, "%w", err).Hint("make room on the disk of the cache, or name another place for it with --cache")
	case client.IsTransfer(err) && errors.Is(err, cvmfs.ErrCorrupt):
		return fail.New(fail.Unverified, "%w", err).Hint("the server, or something between it and here, gives wrong bytes: try another one with --server or --proxy")
	case errors.Is(err, client.ErrExternal):
		return fail.New(fail.Refused, "%w", err).Hint("name a server that has the files with --external-server, or in CVMFS_EXTERNAL_URL")
	case client.IsMissing(err):
		return fail.New(fail.Refused, "%w", err).Hint("check the URL and the name").
			Hint("a server that is being brought up to date may lack what another has: try one with --server")
	case client.IsTransfer(err):
		return fail.New(fail.Refused, "%w", err).Hint("check the URL, the network and the proxy")
	case errors.Is(err, cvmfs.ErrCorrupt), errors.Is(err, cvmfs.ErrMalformed):
		return fail.New(fail.Unverified, "%w", err).Hint("what is published is damaged, as 'mica repo check' will show its publisher; an older revision can be read with --tag")
	case errors.Is(err, fs.ErrNotExist):
		return fail.New(fail.NotFound, "%w", err).Hint("see what there is with 'mica repo ls' or 'mica repo find'")
	}
	return err
}

// repoEntry is one line of a listing.
type repoEntry struct {
	Path    string    `json:"path"`
	Type    string    `json:"type"`
	Mode    string    `json:"mode"` // octal, with setuid, setgid and sticky bits
	Links   uint32    `json:"links"`
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	Size    int64     `json:"size"`
	MTime   time.Time `json:"mtime"`
	Target  string    `json:"target,omitempty"` // as it is stored, with variables
	Hash    string    `json:"hash,omitempty"`
	Chunks  int       `json:"chunks,omitempty"`
	Catalog string    `json:"catalog,omitempty"` // mountpoint of the catalogue that has it

	PathBase64 []byte            `json:"path_base64,omitempty"` // where the path is not UTF-8, which JSON has no form for
	Expanded   string            `json:"expanded,omitempty"`    // the target with variables replaced, where there are some
	Device     string            `json:"device,omitempty"`      // major:minor
	Xattrs     map[string][]byte `json:"xattrs,omitempty"`      // values in base64

	mode fs.FileMode
}

func describeEntry(ctx context.Context, r *client.Repository, p string, e catalog.Entry) (repoEntry, error) {
	mode := client.FileMode(e)
	kinds := map[fs.FileMode]string{
		0: "file", fs.ModeDir: "dir", fs.ModeSymlink: "symlink", fs.ModeNamedPipe: "fifo", fs.ModeSocket: "socket",
		fs.ModeDevice: "block", fs.ModeDevice | fs.ModeCharDevice: "char",
	}
	item := repoEntry{
		Path: p, Type: kinds[mode.Type()], Mode: fmt.Sprintf("%04o", e.Mode&0o7777), Links: e.Nlink, UID: e.UID, GID: e.GID,
		Size: e.Size, MTime: client.MTime(e).UTC(), Target: e.Symlink, Hash: e.Hash.String(), mode: mode,
	}
	if !utf8.ValidString(p) {
		item.PathBase64 = []byte(p)
	}
	if mode&fs.ModeDevice != 0 {
		item.Device = fmt.Sprintf("%d:%d", unix.Major(e.Rdev), unix.Minor(e.Rdev))
	}
	var err error
	if e.IsSymlink() {
		if item.Expanded, err = r.Readlink(ctx, p); err != nil {
			return item, err
		}
		if item.Expanded == item.Target {
			item.Expanded = ""
		}
	}
	if e.HasXattrs {
		item.Xattrs, err = r.Xattrs(ctx, p)
	}
	return item, err
}

func repoListing() listing[repoEntry] {
	return listing[repoEntry]{
		Schema: 1,
		name:   func(e repoEntry) string { return e.Path },
		columns: []column[repoEntry]{
			{head: "MODE", cell: func(e repoEntry) string { return e.mode.String() }},
			{head: "OWNER", cell: func(e repoEntry) string { return fmt.Sprintf("%d:%d", e.UID, e.GID) }},
			{head: "SIZE", cell: func(e repoEntry) string { return fmt.Sprint(e.Size) }},
			{head: "MODIFIED", cell: func(e repoEntry) string { return e.MTime.Format("2006-01-02 15:04:05") }},
			{head: "LINKS", wide: true, cell: func(e repoEntry) string { return fmt.Sprint(e.Links) }},
			{head: "HASH", wide: true, cell: func(e repoEntry) string { return e.Hash }},
			{head: "PATH", cell: func(e repoEntry) string {
				text := printable(e.Path)
				if e.Target != "" {
					text += " -> " + printable(e.Target)
				}
				return text
			}},
		},
	}
}

// printable keeps foreign names from writing on the terminal.
func printable(name string) string {
	quoted := fmt.Sprintf("%q", name)
	if quoted == `"`+name+`"` {
		return name
	}
	return quoted
}

func newRepoLs(a *app) *cobra.Command {
	var s repoSource
	var output string
	cmd := &cobra.Command{
		Use:   "ls URL|DIR|NAME [PATH]",
		Short: "List a directory of a repository without mounting it",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.open(cmd.Context(), a, args[0])
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // nothing was written but a cache
			at := repoPath(args)
			e, err := r.Lookup(cmd.Context(), at)
			if err != nil {
				return repoError(err)
			}
			l := repoListing()
			if !e.IsDir() {
				item, err := describeEntry(cmd.Context(), r, at, e)
				if err != nil {
					return repoError(err)
				}
				l.Items = append(l.Items, item)
				return l.print(a.Out, output)
			}
			entries, err := r.ReadDir(cmd.Context(), at)
			if err != nil {
				return repoError(err)
			}
			for _, e := range entries {
				item, err := describeEntry(cmd.Context(), r, strings.TrimSuffix(at, "/")+"/"+e.Name, e)
				if err != nil {
					return repoError(err)
				}
				l.Items = append(l.Items, item)
			}
			return l.print(a.Out, output)
		},
	}
	s.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}

// repoPath is the optional path argument behind the repository.
func repoPath(args []string) string {
	if len(args) < 2 {
		return "/"
	}
	return path.Clean("/" + args[1])
}

func newRepoStat(a *app) *cobra.Command {
	var s repoSource
	var output string
	cmd := &cobra.Command{
		Use:   "stat URL|DIR|NAME PATH...",
		Short: "Show what a repository says about paths",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.open(cmd.Context(), a, args[0])
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // as above
			l := repoListing()
			for _, p := range args[1:] {
				p = path.Clean("/" + p)
				e, err := r.Lookup(cmd.Context(), p)
				if err != nil {
					return repoError(err)
				}
				chunks, err := r.Chunks(cmd.Context(), p)
				if err != nil {
					return repoError(err)
				}
				item, err := describeEntry(cmd.Context(), r, p, e)
				if err != nil {
					return repoError(err)
				}
				item.Chunks = len(chunks)
				if item.Catalog, _, _, err = r.CatalogOf(cmd.Context(), p); err != nil {
					return repoError(err)
				}
				if item.Catalog == "" {
					item.Catalog = "/"
				}
				l.Items = append(l.Items, item)
			}
			return l.print(a.Out, output)
		},
	}
	s.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func newRepoCat(a *app) *cobra.Command {
	var s repoSource
	cmd := &cobra.Command{
		Use:   "cat URL|DIR|NAME PATH...",
		Short: "Write files of a repository to standard output",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.open(cmd.Context(), a, args[0])
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // as above
			for _, p := range args[1:] {
				at, _, err := r.Resolve(cmd.Context(), p)
				if err != nil {
					return repoError(err)
				}
				f, err := r.Open(cmd.Context(), at)
				if err != nil {
					return repoError(err)
				}
				_, err = io.Copy(a.Out, io.NewSectionReader(f, 0, f.Size()))
				_ = f.Close()
				if err != nil {
					return repoError(err)
				}
			}
			return nil
		},
	}
	s.flags(cmd)
	return cmd
}

func newRepoFind(a *app) *cobra.Command {
	var s repoSource
	var output, pattern, kind string
	cmd := &cobra.Command{
		Use:   "find URL|DIR|NAME [PATH]",
		Short: "List everything below a directory of a repository",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := path.Match(pattern, ""); err != nil {
				return fail.New(fail.Usage, "--match %q: %w", pattern, err)
			}
			r, err := s.open(cmd.Context(), a, args[0])
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // as above
			l := repoListing()
			err = walkRepo(cmd.Context(), r, repoPath(args), func(p string, e catalog.Entry) error {
				item, err := describeEntry(cmd.Context(), r, p, e)
				if ok, _ := path.Match(pattern, path.Base(p)); (ok || pattern == "") && (kind == "" || kind == item.Type) {
					l.Items = append(l.Items, item)
				}
				return err
			})
			if err != nil {
				return repoError(err)
			}
			return l.print(a.Out, output)
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&pattern, "match", "", "only names that match this pattern (*, ?, [a-z])")
	cmd.Flags().StringVar(&kind, "type", "", "only this type: file, dir, symlink, fifo, socket, char or block")
	outputFlag(cmd, &output)
	return cmd
}

// walkRepo calls f for a path and everything below it, parents first.
func walkRepo(ctx context.Context, r *client.Repository, p string, f func(string, catalog.Entry) error) error {
	e, err := r.Lookup(ctx, p)
	if err != nil {
		return err
	}
	var walk func(p string, e catalog.Entry) error
	walk = func(p string, e catalog.Entry) error {
		if err := f(p, e); err != nil || !e.IsDir() {
			return err
		}
		entries, err := r.ReadDir(ctx, p)
		if err != nil {
			return err
		}
		for _, e := range entries {
			// Not path.Join, which would take a name for something else than a name.
			if err := walk(strings.TrimSuffix(p, "/")+"/"+e.Name, e); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(p, e)
}
