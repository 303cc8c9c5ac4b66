package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/boot/clock"
	"github.com/micavm/mica/internal/boot/disk"
	"github.com/micavm/mica/internal/boot/disk/probe"
	"github.com/micavm/mica/internal/boot/repository"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/version"
)

// How long a boot keeps trying to reach its repository, and waits for a proxy
// that the context tells it to wait for.
const (
	repositoryBudget = 300 * time.Second
	proxyBudget      = 300 * time.Second
)

// startRepository mounts the repository and pins its snapshot.
func startRepository(ctx context.Context, s *state, r *report) error {
	if isMountPoint(readOnly) {
		return nil // an earlier try of this stage got that far
	}
	pin, err := readPin(s.rw("aux"))
	if err != nil {
		return err
	}
	set, notes, err := resolve(s.cmd, s.keys, pin)
	if err != nil {
		return fail.New(fail.Usage, "%w", err).
			Hint("correct the context or the kernel command line (cvmfs_repos=, cernvm_path=)")
	}
	for _, n := range notes {
		s.rec.note("%s", n)
		s.con.Warn("%s", n)
	}
	s.set = set
	keys, err := masterKeys(keysDir, set.Repository)
	if err != nil {
		return err
	}
	s.load("fuse")
	config := repository.Config{
		Name: set.Repository, Servers: set.Servers, Proxies: set.Proxies, Keys: keys,
		CacheDir: s.rw("cache", set.Repository), Mountpoint: readOnly, Quota: quota(s.uroot.Size),
		RootHash: set.RootHash, Tag: set.Tag, ClockFloor: clock.Floor(buildTime),
		Slices: slicesOn(s.devices),
	}
	config.Prefetch = set.Fresh && len(config.Slices) == 0 // what a slice has is near enough
	if set.RootHash != "" {
		config.Tag = ""
	}
	ready, err := s.reachRepository(ctx, config)
	if err != nil {
		return err
	}
	s.ready = ready
	if ready.Tag == "" {
		s.ready.Tag = set.Tag
	}
	for _, n := range ready.Notes {
		s.rec.note("%s", n)
		s.con.Warn("%s", n)
	}
	if len(ready.Slices) > 0 {
		devices := strings.Join(ready.Slices, " ")
		r.say("%s, %s, from the slice on %s", set.Repository, snapshotName(s.ready), devices)
		r.fact("slices", devices)
	} else {
		r.say("connected to %s, %s", set.Repository, snapshotName(s.ready))
	}
	r.fact("repository", set.Repository)
	r.fact("root_hash", s.ready.RootHash)
	r.fact("tag", s.ready.Tag)
	r.fact("revision", fmt.Sprint(s.ready.Revision))
	return s.pinSnapshot(set, keys)
}

// slicesOn returns the devices that hold a slice of a repository.
func slicesOn(devices []disk.Device) []string {
	var found []string
	for _, d := range devices {
		if d.Path != "" && !d.InUse && d.Content.Type == probe.Slice {
			found = append(found, d.Path)
		}
	}
	return found
}

func snapshotName(r repository.Ready) string {
	if r.Tag != "" {
		return fmt.Sprintf("%s (revision %d)", r.Tag, r.Revision)
	}
	return fmt.Sprintf("revision %d", r.Revision)
}

// reachRepository starts the repository's process, which asks its servers again
// and again; every slice of time that passes in vain is told. What is wrong with a
// signature does not get better by waiting, and without a network there is only
// the cache to ask.
func (s *state) reachRepository(ctx context.Context, config repository.Config) (repository.Ready, error) {
	budget, slice := s.cmd.Seconds("cvm_cvmfs_timeout", repositoryBudget), 30*time.Second
	waiting := s.set.Wait > 0
	if waiting {
		budget = max(budget, proxyBudget)
		slice = max(s.set.Wait, 5*time.Second)
		s.con.Info("waiting on proxies [%s]", config.Proxies)
	}
	if !s.online() {
		budget = min(budget, 10*time.Second)
	}
	began := time.Now()
	for {
		left := budget - time.Since(began)
		try, cancel := context.WithTimeout(ctx, max(min(slice, left), time.Second))
		ready, err := repository.Start(try, s.self, config)
		cancel()
		if err == nil || ctx.Err() != nil {
			return ready, err
		}
		if !worthRetrying(err) {
			return ready, s.explainRepository(err)
		}
		if time.Since(began) < budget-time.Second {
			s.con.Warn("%v; trying again", err)
			s.rec.note("%v", err)
			continue
		}
		if !waiting || strings.Contains(config.Proxies, "DIRECT") {
			return ready, s.explainRepository(err)
		}
		// Differs: the original waited for its proxies for ever.
		s.con.Warn("no proxy of [%s] answered in %s; going on without", config.Proxies, budget)
		s.rec.note("no proxy of %q answered in %s", config.Proxies, budget)
		config.Proxies, waiting = "DIRECT", false
		began, budget = time.Now(), repositoryBudget
	}
}

// worthRetrying reports whether time may heal an error.
func worthRetrying(err error) bool {
	switch fail.ClassOf(err) {
	case fail.Unverified, fail.Usage, fail.NotFound, fail.Conflict:
		return false
	}
	return true
}

// explainRepository adds to an error what only this side knows.
func (s *state) explainRepository(err error) error {
	e := fail.New(fail.ClassOf(err), "%w", err)
	switch {
	case !s.online():
		return e.Hint("the machine has no network, and its cache does not hold what the boot needs; see what was said about the network")
	case worthRetrying(err) && len(fail.Hints(err)) == 0:
		return e.Hint("check that this machine reaches the server: name server, proxy (cvmfs_http_proxy), firewall; cvmfs_server and cvmfs_url name another one")
	}
	return e
}

// masterKeys reads the public keys of a repository in the image: its own folder,
// or that of the longest domain it belongs to, or the keys for all.
func masterKeys(dir, name string) ([]string, error) {
	for domain := name; ; {
		keys, err := keysIn(filepath.Join(dir, domain))
		if err != nil {
			return nil, err
		}
		if len(keys) > 0 {
			return keys, nil
		}
		if domain == "" {
			return nil, fail.New(fail.Unverified, "the image has no public key for repository %q", name).
				Hint("build the image with the repository's key, or boot a repository that it knows")
		}
		_, domain, _ = strings.Cut(domain, ".")
	}
}

func keysIn(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pub"))
	if err != nil {
		return nil, fmt.Errorf("reading the public keys in %s: %w", dir, err)
	}
	var keys []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading a public key: %w", err)
		}
		keys = append(keys, string(data))
	}
	return keys, nil
}

// pinSnapshot writes down what this machine boots from now on, and leaves for
// the running system what its tools look for on UROOT.
//
// Differs: aux/cvmfs_force_tag is consumed. In the original every boot was a
// fresh one as long as it was there.
func (s *state) pinSnapshot(set Settings, keys []string) error {
	var errs []error
	if set.Fresh {
		text := s.ready.RootHash + "\n" + s.ready.Tag + "\n"
		if err := atomicfile.Write(s.rw("aux/cvmfs_snapshot"), []byte(text), 0o644); err != nil {
			return fmt.Errorf("pinning the snapshot: %w", err)
		}
		if err := os.Remove(s.rw("aux/cvmfs_force_tag")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		if left, err := os.ReadDir(s.rw("persistent")); err == nil && len(left) > 0 {
			s.rec.note("the snapshot changed under a writable layer that has files; they stay as they are")
		}
	}
	dir := s.rw("aux/keys", set.Repository)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		errs = append(errs, err)
	}
	for i, key := range keys {
		if err := atomicfile.Write(filepath.Join(dir, fmt.Sprintf("%d.pub", i+1)), []byte(key), 0o644); err != nil {
			errs = append(errs, err)
		}
	}
	if err := atomicfile.Write(s.rw("aux/ucernvm-version"), []byte(version.Number+"\n"), 0o644); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return warned(err)
	}
	return nil
}
