package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
)

// publishGarbage is how much garbage is let grow beside what is in use, in percent
// of it, once more than publishSmall bytes are: nearly all of that is the entries of
// the new revision, which stay, and half a gigabyte more for a million of them buys
// nothing. Before, a tenth of the processor time would go to looking for garbage.
const (
	publishGarbage = 40
	publishSmall   = 64 << 20
)

// thrifty passes on progress, and now and then looks at what is in use.
func thrifty(report func(publish.Progress)) func(publish.Progress) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	calls, large := 0, false
	return func(p publish.Progress) {
		if calls++; calls%256 == 0 && !large {
			metrics.Read(live)
			if large = live[0].Value.Uint64() > publishSmall; large {
				debug.SetGCPercent(publishGarbage)
			}
		}
		report(p)
	}
}

type publishFlags struct {
	storage, name, keys, tag, description string
	algorithm, compression, owner, output string
	tagAge                                string
	ttl                                   time.Duration
	entries                               int
	checksum, crossMounts, noGeneric      bool
	allow, deny, external                 []string
}

// published is what 'repo publish' prints.
type published struct {
	Schema      int      `json:"schema"`
	Name        string   `json:"name"`
	Revision    uint64   `json:"revision"`
	RootHash    string   `json:"root_hash"`
	Tags        []string `json:"tags"`
	Expired     []string `json:"expired_tags"`
	Unchanged   bool     `json:"unchanged"`
	Entries     int64    `json:"entries"`
	Added       int64    `json:"added"`
	Changed     int64    `json:"changed"`
	Removed     int64    `json:"removed"`
	FilesRead   int64    `json:"files_read"`
	BytesRead   int64    `json:"bytes_read"`
	Objects     int64    `json:"objects"`
	BytesStored int64    `json:"bytes_stored"`
	Catalogs    int64    `json:"catalogs"`
	NewCatalogs int64    `json:"new_catalogs"`
	Warnings    []string `json:"warnings"`
}

func newRepoPublish(a *app) *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use:   "publish DIR|ARCHIVE --repo STORAGE --name NAME",
		Short: "Publish a directory or a tar archive as the next revision of a repository",
		Long: `Publish a directory tree as the next revision of the repository STORAGE/NAME; or
the tree in a tar archive, which may be packed by gzip, bzip2, xz or zstd, with -
for one from standard input.
The repository and its keys are made if there are none. Files that look as they
did in the revision before are not read again.

STORAGE is a directory or a bucket, s3://BUCKET/PREFIX?endpoint=URL. The keys to a
bucket are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from a file
nobody else may read: ~/.aws/credentials or that of ?credentials=FILE.

A directory with a file .cvmfscatalog gets a catalogue of its own; rules in
.cvmfsdirtab at the root name more of them; and where a catalogue would become
large it is split. The tree itself is not changed.

With --external the content of files stays out of the repository. Readers fetch it,
and verify it, from a web server of yours that has the files under the same paths;
they name it with --external-server or CVMFS_EXTERNAL_URL.`,
		Example: `  mica repo publish ./tree --repo /srv/cvmfs --name sw.example.org --tag v1
  sudo mica repo publish ./debian --repo /srv/cvmfs --name os.example.org`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.publish(cmd.Context(), f, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.storage, "repo", "", "directory or s3://BUCKET/PREFIX that has, or will have, the repository in it")
	flags.StringVar(&f.name, "name", "", "full name of the repository, such as sw.example.org")
	keysFlag(cmd, &f.keys)
	flags.StringVar(&f.tag, "tag", "", "name for the new revision")
	flags.StringVar(&f.description, "description", "", "description of --tag")
	flags.BoolVar(&f.noGeneric, "no-generic-tag", false, "do not tag the revision with its date")
	flags.StringVar(&f.tagAge, "tag-age", "", "remove the tags that publications made longer ago, such as '4 weeks'")
	flags.DurationVar(&f.ttl, "ttl", 0, "how long readers wait before they look for news (default: as before)")
	flags.StringVar(&f.algorithm, "hash", "", "hash algorithm of new objects: sha1, rmd160 or shake128 (default: as before)")
	flags.StringVar(&f.compression, "compression", "", "of new files: zlib or none (default: zlib, or what an imported repository had)")
	flags.IntVar(&f.entries, "catalog-entries", 0, "entries of a catalogue before it is split, -1 for never (default: 5000)")
	flags.StringSliceVar(&f.external, "external", nil, "path of the repository: of the files there and below only names and hashes are published, / for all")
	flags.StringVar(&f.owner, "owner", "", "UID:GID that owns everything, instead of those of the tree")
	flags.BoolVar(&f.checksum, "checksum", false, "read every file, however unchanged it looks")
	flags.BoolVar(&f.crossMounts, "cross-mounts", false, "publish what is mounted inside the tree too")
	flags.StringSliceVar(&f.allow, "allow-xattr", nil, "extended attributes to publish all the same, such as system.*")
	flags.StringSliceVar(&f.deny, "deny-xattr", nil, "extended attributes to leave out, instead of the usual ones")
	flags.StringVarP(&f.output, "output", "o", "table", "how to print the result: table or json")
	_ = cmd.MarkFlagRequired("repo")
	_ = cmd.MarkFlagRequired("name")
	return cmd
}

func (a *app) publish(ctx context.Context, f publishFlags, dir string) error {
	if f.output != "table" && f.output != "json" {
		return fail.New(fail.Usage, "unknown --output %q", f.output).Hint("use table or json")
	}
	o, err := a.publishOptions(f, dir)
	if err != nil {
		return err
	}
	end, err := a.archive(&o)
	if err != nil {
		return err
	}
	defer end()
	sink, done, err := a.sink()
	if err != nil {
		return err
	}
	o.Progress = thrifty(repoProgress(sink, f.name))
	result, err := publish.Publish(ctx, o) // reads nothing of the source if there is no repository
	if errors.Is(err, publish.ErrNoRepository) {
		err = publish.Create(ctx, publish.CreateOptions{Storage: o.Storage, Name: o.Name, Keys: o.Keys, TTL: o.TTL, Algorithm: o.Algorithm, Now: o.Now, Stamp: o.Stamp})
		if err == nil {
			result, err = publish.Publish(ctx, o)
		}
	}
	done()
	if err != nil {
		return publisherError(err)
	}
	const enough = 10
	for i, warning := range result.Warnings {
		if i == enough && !a.verbose {
			_, _ = fmt.Fprintf(a.Err, "mica: and %s\n", count(int64(len(result.Warnings)-enough), "warning more", "warnings more"))
			break
		}
		_, _ = fmt.Fprintf(a.Err, "mica: %s\n", warning)
	}
	return a.printPublished(f, result)
}

// archive opens the source if it is not a directory.
func (a *app) archive(o *publish.Options) (end func(), err error) {
	if o.Source == "-" {
		o.Source, o.Tar = "", a.In
		return func() {}, nil
	}
	fi, err := os.Stat(o.Source)
	if err != nil || fi.IsDir() {
		return func() {}, nil // what is wrong with it is found where it is read
	}
	f, err := os.Open(o.Source)
	if err != nil {
		return nil, fail.New(fail.NotFound, "opening the archive: %w", err)
	}
	o.Source, o.Tar = "", f
	return func() { _ = f.Close() }, nil
}

func (a *app) publishOptions(f publishFlags, dir string) (publish.Options, error) {
	o := publish.Options{
		Source: dir, Storage: f.storage, Name: f.name, Tag: f.tag, Description: f.description, NoGenericTag: f.noGeneric,
		TTL: f.ttl, MaxEntries: f.entries, Checksum: f.checksum, CrossMounts: f.crossMounts,
		Xattrs: publish.XattrRules{Allow: f.allow, Deny: f.deny}, External: absolute(f.external), Now: time.Now, Log: a.log,
	}
	if err := cvmfs.CheckName(f.name); err != nil {
		return o, fail.New(fail.Usage, "--name: %w", err).Hint("use letters, digits, dots, dashes and underscores, such as sw.example.org")
	}
	var err error
	if o.Keys, err = a.keysDir(f.keys); err != nil {
		return o, err
	}
	if o.Stamp, err = a.stamp(); err != nil {
		return o, err
	}
	if o.TagAge, err = parseTagAge("--tag-age", f.tagAge); err != nil {
		return o, err
	}
	settings, found, err := publish.LoadSettings(o.Keys, f.name)
	if err != nil {
		return o, fail.New(fail.Usage, "%w", err)
	}
	if found {
		settings.Apply(&o)
	}
	if f.algorithm != "" {
		if o.Algorithm, err = cvmfs.ParseAlgorithm(f.algorithm); err != nil {
			return o, fail.New(fail.Usage, "--hash: %w", err).Hint("use sha1, rmd160 or shake128")
		}
	}
	switch f.compression {
	case "":
	case "zlib", "default":
		o.Compression = cvmfs.Zlib
	case "none":
		o.Compression = cvmfs.Plain
	default:
		return o, fail.New(fail.Usage, "unknown --compression %q", f.compression).Hint("use zlib or none")
	}
	if f.owner != "" {
		if o.Owner, err = parseOwner(f.owner); err != nil {
			return o, err
		}
	}
	return o, nil
}

// parseTagAge reads the age from which the tags of publications are removed.
func parseTagAge(flag, text string) (publish.Age, error) {
	age, err := publish.ParseAge(text)
	if err != nil {
		return age, fail.New(fail.Usage, "%s %w", flag, err)
	}
	return age, nil
}

// absolute makes paths of a repository of what may lack the slash in front.
func absolute(list []string) []string {
	var out []string
	for _, p := range list {
		out = append(out, path.Clean("/"+p))
	}
	return out
}

func parseOwner(text string) (*publish.Owner, error) {
	u, g, ok := strings.Cut(text, ":")
	uid, err := strconv.ParseUint(u, 10, 32)
	if err == nil && ok {
		var gid uint64
		if gid, err = strconv.ParseUint(g, 10, 32); err == nil {
			return &publish.Owner{UID: uint32(uid), GID: uint32(gid)}, nil
		}
	}
	return nil, fail.New(fail.Usage, "--owner %q is not UID:GID in numbers", text).Hint("for example --owner 0:0")
}

func (a *app) printPublished(f publishFlags, r *publish.Result) error {
	if f.output == "json" {
		p := published{
			Schema: 1, Name: f.name, Revision: r.Revision, RootHash: r.RootHash.String(), Tags: r.Tags, Expired: r.Expired, Unchanged: r.Unchanged, Entries: r.Entries,
			Added: r.Added, Changed: r.Changed, Removed: r.Removed, FilesRead: r.Read, BytesRead: r.BytesRead,
			Objects: r.Objects, BytesStored: r.BytesStored, Catalogs: r.Catalogs, NewCatalogs: r.NewCatalogs, Warnings: r.Warnings,
		}
		if p.Tags == nil {
			p.Tags = []string{}
		}
		if p.Expired == nil {
			p.Expired = []string{}
		}
		if p.Warnings == nil {
			p.Warnings = []string{}
		}
		return printJSON(a.Out, p)
	}
	if r.WhitelistRenewed {
		_, _ = fmt.Fprintf(a.Err, "mica: signed a new whitelist, good until %s\n", r.WhitelistExpires.Format(time.RFC3339))
	} else {
		a.warnWhitelist(f.name, r.WhitelistExpires)
	}
	if n := len(r.Expired); n > 0 {
		_, _ = fmt.Fprintf(a.Err, "mica: removed %s: %s\n", count(int64(n), "old tag", "old tags"), strings.Join(r.Expired, ", "))
	}
	if r.Unchanged {
		_, err := fmt.Fprintf(a.Out, "%s: nothing changed since revision %d\n", f.name, r.Revision)
		if len(r.Tags) > 0 && err == nil {
			_, err = fmt.Fprintf(a.Out, "tags: %s\n", strings.Join(r.Tags, ", "))
		}
		return err
	}
	_, err := fmt.Fprintf(a.Out, `%s: published revision %d
root:    %s
tags:    %s
entries: %d (%d added, %d changed, %d removed)
content: %s read, %s in %s stored
catalogs: %d (%d new)
`, f.name, r.Revision, r.RootHash, strings.Join(r.Tags, ", "), r.Entries, r.Added, r.Changed, r.Removed,
		count(r.Read, "file", "files"), progress.Size(r.BytesStored), count(r.Objects, "object", "objects"), r.Catalogs, r.NewCatalogs)
	return err
}

// warnWhitelist says so when readers will soon refuse a repository.
func (a *app) warnWhitelist(name string, expires time.Time) {
	const soon = 7 * 24 * time.Hour
	left := time.Until(expires)
	switch {
	case expires.IsZero() || left >= soon:
		return
	case left <= 0:
		_, _ = fmt.Fprintf(a.Err, "mica: readers refuse %q: its whitelist ended on %s\n", name, expires.Format(time.RFC3339))
	default:
		_, _ = fmt.Fprintf(a.Err, "mica: the whitelist of %q ends in %s, on %s\n", name, left.Round(time.Hour), expires.Format(time.RFC3339))
	}
	_, _ = fmt.Fprintf(a.Err, "hint: sign a new one with mica repo resign\n")
}
