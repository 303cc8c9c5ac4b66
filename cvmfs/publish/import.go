package publish

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/publish/internal/storage"
	"github.com/micavm/mica/internal/atomicfile"
)

// ErrImport says that a repository cannot be taken over: it has something that
// would be lost.
var ErrImport = errors.New("cannot be taken over")

// ImportOptions say what Import does. All but Config are needed; Progress, Now
// and Log have defaults.
type ImportOptions struct {
	Source     string // the repository: a directory, or a URL
	SourceKeys string // directory of its key files, /etc/cvmfs/keys on the original's server
	Config     string // its server.conf; "" for none

	Storage, Name, Keys string // where it goes

	Workers  int
	Now      func() time.Time
	Progress func(Progress)
	Log      *slog.Logger
}

// Imported says what Import did.
type Imported struct {
	Revision         uint64
	InPlace          bool // the repository lay where it is wanted already
	Objects, Bytes   int64
	MasterKey        bool // it came along, so that whitelists can be signed
	WhitelistRenewed bool
	WhitelistExpires time.Time
	Warnings         []string
}

// Import takes over a repository of an original server, so that Publish makes the
// next revision of it: its files, all revisions that are there, its keys, and of
// its configuration what a publication goes by. The source is not changed. From
// then on only one of the two may publish. A repository that uses what Publish
// would drop without a word is refused with an error that wraps ErrImport.
func Import(ctx context.Context, o ImportOptions) (*Imported, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r, err := importRepository(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("importing %q: %w", o.Name, err)
	}
	return r, nil
}

func importRepository(ctx context.Context, o ImportOptions) (*Imported, error) {
	result := &Imported{}
	warn := func(format string, args ...any) {
		result.Warnings = append(result.Warnings, fmt.Sprintf(format, args...))
	}
	conf, err := readConfig(o.Config, warn)
	if err != nil {
		return nil, err
	}
	keys, err := LoadKeys(o.SourceKeys, o.Name)
	if err != nil {
		return nil, err
	}
	from, name, err := storage.OpenSource(o.Source)
	if err != nil {
		return nil, err
	}
	if server, ok := from.(*storage.Server); ok {
		defer server.Close()
	}
	if name != o.Name {
		return nil, fmt.Errorf("%w: %s is %q", ErrOther, from, name)
	}
	// Whoever has the master key can sign a new whitelist, so that an old one
	// does not matter.
	clock := o.Now
	if data, err := rootFile(ctx, from, cvmfs.WhitelistFile); err == nil && keys.Master != nil {
		if list, err := cvmfs.ParseWhitelist(data); err == nil && !clock().Before(list.Expires) {
			clock = func() time.Time { return list.Expires.Add(-time.Second) }
		}
	}
	head, err := readSigned(ctx, from, keys.trust(clock))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(head.certificate, keys.Certificate) && (&Keys{Certificate: head.certificate}).fingerprint() != keys.fingerprint() {
		if keys.Master == nil {
			return nil, fmt.Errorf("%w: the repository is signed with another certificate than %s", ErrKeys, keyFile(o.SourceKeys, o.Name, "crt"))
		}
		warn("the repository is signed with another certificate than the key's; sign its whitelist anew before publishing")
	}
	external, _ := conf.on("CVMFS_EXTERNAL_DATA", false) // it was read before
	if err := publishable(ctx, from, head.m.RootHash, external, warn); err != nil {
		return nil, err
	}
	result.Revision, result.MasterKey, result.WhitelistExpires = head.m.Revision, keys.Master != nil, head.expires
	if !result.MasterKey {
		warn("the master key is not in %s: readers refuse the repository after %s", o.SourceKeys, head.expires.Format(time.RFC3339))
	}
	s, err := openStorage(o.Storage, o.Name)
	if err != nil {
		return nil, err
	}
	if err := keys.copyTo(o.SourceKeys, o.Keys); err != nil { // first, as it may find others there
		return nil, err
	}
	if result.InPlace = samePlace(from, s.store); !result.InPlace {
		copied, err := replicate(ctx, importedBy(o, keys.Public, clock))
		if err != nil {
			return nil, err
		}
		result.Objects, result.Bytes = copied.Objects, copied.Bytes
		result.Warnings = append(result.Warnings, copied.Warnings...)
	}
	if err := s.promote(ctx, !result.InPlace); err != nil {
		return nil, err
	}
	if conf != nil {
		if err := conf.write(keyFile(o.Keys, o.Name, "conf")); err != nil {
			return nil, err
		}
	}
	if keys.Master != nil && !o.Now().Before(head.expires) {
		list, err := resign(ctx, ResignOptions{Storage: o.Storage, Name: o.Name, Keys: o.Keys, Now: o.Now})
		if err != nil {
			return nil, err
		}
		result.WhitelistRenewed, result.WhitelistExpires = true, list.Expires
	}
	return result, nil
}

func importedBy(o ImportOptions, public *rsa.PublicKey, clock func() time.Time) ReplicateOptions {
	r := ReplicateOptions{
		Source: o.Source, Storage: o.Storage, Name: o.Name, MasterKeys: []*rsa.PublicKey{public}, History: math.MaxInt, Unmarked: true,
		Workers: o.Workers, Now: o.Now, Progress: o.Progress, Log: o.Log, trustAt: clock,
	}
	r.complete()
	return r
}

// readConfig reads a server.conf and refuses what Publish has no answer to.
func readConfig(file string, warn func(string, ...any)) (serverConf, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	conf, err := parseServerConf(file, data)
	if err != nil {
		return nil, err
	}
	if _, err := conf.settings(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if kind := conf["CVMFS_REPOSITORY_TYPE"]; kind != "" && kind != "stratum0" {
		return nil, fmt.Errorf("it is a %s, which copies what another server publishes: %w", kind, ErrImport)
	}
	if conf["CVMFS_VOMS_AUTHZ"] != "" {
		return nil, fmt.Errorf("CVMFS_VOMS_AUTHZ: only some may read it: %w", ErrImport)
	}
	if on, err := conf.on("CVMFS_CATALOG_ALT_PATHS", false); err != nil || on {
		return nil, errors.Join(err, fmt.Errorf("CVMFS_CATALOG_ALT_PATHS: other names for catalogues: %w", ErrImport))
	}
	for _, key := range []string{"CVMFS_VIRTUAL_DIR", "CVMFS_IGNORE_SPECIAL_FILES", "CVMFS_GENERATE_LEGACY_BULK_CHUNKS"} {
		if on, err := conf.on(key, false); err != nil || on {
			warn("%s is not supported and has no effect any more", key)
		}
	}
	return conf, nil
}

// publishable looks in the root catalogue for what Publish would drop.
func publishable(ctx context.Context, from storage.Source, root cvmfs.Hash, external bool, warn func(string, ...any)) error {
	temp, err := os.MkdirTemp("", "mica-import-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // temporary
	file, err := unpackFrom(ctx, from, temp, root, cvmfs.SuffixCatalog)
	if err != nil {
		return fmt.Errorf("reading root catalogue: %w", err)
	}
	c, err := catalog.Open(file)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // read only
	if text, _, err := c.Property("voms_authz"); err != nil || text != "" {
		return errors.Join(err, fmt.Errorf("only some may read it (%.100q): %w", text, ErrImport))
	}
	if text, _, err := c.Property("volatile"); err == nil && text == "1" {
		warn("the mark that its content changes often is lost with the next publication")
	}
	counters, err := c.Counters()
	if err != nil {
		return err
	}
	if n := counters["self_external"] + counters["subtree_external"]; n > 0 && !external {
		return fmt.Errorf("the data of %d files lies elsewhere, and no configuration says CVMFS_EXTERNAL_DATA=true: %w", n, ErrImport)
	}
	return nil
}

// samePlace reports whether two are one directory.
func samePlace(from storage.Source, to storage.Store) bool {
	a, ok1 := from.(*storage.Directory)
	b, ok2 := to.(*storage.Directory)
	if !ok1 || !ok2 {
		return from.String() == to.String()
	}
	ai, aerr := os.Stat(a.Dir())
	bi, berr := os.Stat(b.Dir())
	return aerr == nil && berr == nil && os.SameFile(ai, bi)
}

// promote makes a copy of a repository one that is published to.
func (s *repository) promote(ctx context.Context, copied bool) error {
	if copied {
		if err := s.store.Remove(ctx, []string{lastSnapshot, statusFile}, func(int) {}); err != nil {
			return err
		}
	}
	if _, err := s.store.Stat(ctx, masterReplica); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.markReplicable(ctx)
}

// copyTo copies the key files. Files that are there already must be the same.
func (k *Keys) copyTo(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, f := range []struct {
		kind string
		perm fs.FileMode
	}{{"masterkey", 0o400}, {"key", 0o400}, {"pub", 0o444}, {"crt", 0o444}} {
		data, err := os.ReadFile(keyFile(from, k.Name, f.kind))
		if errors.Is(err, fs.ErrNotExist) && f.kind == "masterkey" {
			continue
		}
		if err != nil {
			return err
		}
		file := keyFile(to, k.Name, f.kind)
		there, err := os.ReadFile(file)
		if err == nil && !bytes.Equal(there, data) {
			return fmt.Errorf("%w: %s is another one than %s", ErrKeys, file, filepath.Join(from, filepath.Base(file)))
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := atomicfile.Write(file, data, f.perm); err != nil {
			return err
		}
	}
	return nil
}
