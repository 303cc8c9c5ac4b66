package repository

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/cvmfs/slice"
	"github.com/micavm/mica/cvmfs/talk"
	"github.com/micavm/mica/internal/fail"
)

const (
	wantedFiles   = 65536            // Compat: CVMFS_NFILES of cernvm-micro
	firstPause    = time.Second      // between attempts to reach a server
	longestPause  = 12 * time.Second // Compat: CVMFS_BACKOFF_MAX of cernvm-micro
	serverTimeout = 5 * time.Second  // Compat: CVMFS_TIMEOUT of cernvm-micro
	recordLimit   = 8192             // objects remembered for a profile; a boot reads some hundreds
	prefetchWidth = 6                // objects of a profile fetched at a time
	garbagePace   = 50               // GOGC: the process lives in the memory of a small machine
	memoryLimit   = 40 << 20         // above it the garbage collector works harder
)

// Serve is the main function of the child. It returns the exit code.
func Serve() int {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level(), ReplaceAttr: withoutTime}))
	log = log.With("process", strings.TrimPrefix(Argv0, "@"))
	reports := os.NewFile(reportFD, "reports")
	syscall.CloseOnExec(configFD)
	syscall.CloseOnExec(reportFD)
	tell := func(r report) {
		if err := json.NewEncoder(reports).Encode(r); err != nil {
			log.Warn("the parent does not listen", "err", err)
		}
	}
	if err := serve(log, os.NewFile(configFD, "config"), tell, reports.Close); err != nil {
		log.Error("repository process ends", "err", err)
		f := explain(err)
		tell(report{Failed: &f})
		return int(f.Class)
	}
	return 0
}

func level() slog.Level {
	if os.Getenv("MICA_DEBUG") != "" {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// withoutTime leaves the time to the kernel's log.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func serve(log *slog.Logger, config io.ReadCloser, tell func(report), listening func() error) error {
	var c Config
	if err := json.NewDecoder(config).Decode(&c); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	_ = config.Close()
	ctx, quit := protect(log)
	defer quit(nil)

	lines := &mount.LogBuffer{}
	log = slog.New(lines.Handler(log.Handler()))
	p := &process{config: c, log: log, lines: lines, tell: tell, quit: quit}
	if err := p.prepare(); err != nil {
		return err
	}
	if err := p.open(ctx); err != nil {
		return err
	}
	defer func() {
		if err := p.repo.Close(); err != nil {
			log.Warn("closing the repository", "err", err)
		}
	}()
	if err := p.mount(ctx); err != nil {
		return err
	}
	control, err := talk.Listen(".", c.Name)
	if err != nil {
		return errors.Join(err, p.fuse.Unmount())
	}
	// From here on the cache directory is all there is. A name of the old root
	// would lead nowhere after the switch of root, and SQLite opens files by name.
	if err := enter(); err != nil {
		return errors.Join(err, p.fuse.Unmount())
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { control.Serve(ctx, log, p.command) })
	if c.Prefetch {
		tasks.Go(func() { p.prefetch(ctx) })
	}
	tell(report{Ready: p.ready()})
	if err := listening(); err != nil {
		log.Warn("closing the report pipe", "err", err)
	}
	select {
	case <-p.fuse.Done():
		log.Info("unmounted", "repository", c.Name)
	case <-ctx.Done():
		log.Info("asked to end", "repository", c.Name)
	}
	_ = control.Close()
	quit(nil)
	tasks.Wait()
	return nil
}

// ready is the report that the mount stands.
func (p *process) ready() *Ready {
	r := &Ready{
		PID: os.Getpid(), RootHash: p.repo.RootHash().String(), Tag: p.repo.Tag(), Revision: p.repo.Revision(), Notes: p.notes,
	}
	if p.repo.Stats().Sliced > 0 {
		for _, s := range p.slices {
			r.Slices = append(r.Slices, s.device)
		}
	}
	return r
}

// prefetch fetches what other machines read when they booted.
func (p *process) prefetch(ctx context.Context) {
	began := time.Now()
	list, err := p.repo.Profile(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		p.log.Warn("nothing is fetched ahead", "err", err)
		p.prefetched.Store(&Prefetch{Done: true, Problem: err.Error()})
		return
	}
	p.prefetched.Store(&Prefetch{Objects: len(list.Objects)})
	n, err := p.repo.Prefetch(ctx, list, prefetchWidth)
	done := &Prefetch{Objects: len(list.Objects), Fetched: n, Done: true, Seconds: time.Since(began).Seconds()}
	if err != nil {
		done.Problem = err.Error()
	}
	p.prefetched.Store(done)
	p.log.Info("fetched ahead along the profile", "objects", n, "of", done.Objects, "seconds", int(done.Seconds), "err", err)
}

// protect keeps the process alive through a shutdown, and tames its memory. The
// context ends when somebody really means it.
func protect(log *slog.Logger) (context.Context, context.CancelCauseFunc) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPWR, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGUSR2)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGUSR1)
	ctx, quit := context.WithCancelCause(ctx)
	context.AfterFunc(ctx, stop)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePace)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		log.Warn("the kernel may end this process when memory is short", "err", err)
	}
	if limit, err := mount.RaiseFileLimit(wantedFiles); err != nil {
		log.Debug("fewer open files than wanted", "limit", limit, "err", err)
	}
	unix.Umask(0o077)
	return ctx, quit
}

// process is the child's state.
type process struct {
	config Config
	log    *slog.Logger
	lines  *mount.LogBuffer // the last ones of log
	tell   func(report)
	quit   context.CancelCauseFunc

	keys   []*rsa.PublicKey
	pin    client.Pin
	names  []string // name servers
	slices []sliceOn
	notes  []string // for Ready
	status *os.File // /proc/self/status, for the peak of memory
	repo   *client.Repository
	fuse   *mount.Server

	prefetched atomic.Pointer[Prefetch] // nil until there is a profile
}

// prepare takes from the old root what is needed later.
func (p *process) prepare() error {
	c := p.config
	for _, text := range c.Keys {
		keys, err := cvmfs.ParsePublicKeys([]byte(text))
		if err != nil {
			return fail.New(fail.Usage, "master key of repository %q: %w", c.Name, err).Hint("give the repository's public key in PEM form")
		}
		p.keys = append(p.keys, keys...)
	}
	p.pin.Tag = c.Tag
	if c.RootHash != "" {
		h, err := cvmfs.ParseHash(c.RootHash)
		if err != nil {
			return fail.New(fail.Usage, "root hash: %w", err).Hint("give the hash of a root catalogue, or a tag")
		}
		p.pin.RootHash = h
	}
	if text, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		p.names = nameservers(string(text))
	}
	if status, err := os.Open("/proc/self/status"); err == nil {
		p.status = status
	}
	for _, device := range c.Slices {
		if err := p.openSlice(device); err != nil {
			p.note(fmt.Sprintf("the slice on %s is left alone: %v", device, err))
		}
	}
	if err := os.MkdirAll(c.CacheDir, 0o700); err != nil {
		return fmt.Errorf("making the cache directory: %w", err)
	}
	if err := os.Chdir(c.CacheDir); err != nil {
		return fmt.Errorf("entering the cache directory: %w", err)
	}
	if now := time.Now(); now.Before(c.ClockFloor) {
		p.say(fmt.Sprintf("the clock says %s, which is before %s; the latter is taken to check signatures",
			now.UTC().Format(time.RFC3339), c.ClockFloor.UTC().Format(time.RFC3339)))
	}
	return nil
}

// sliceOn is an open slice and where it is.
type sliceOn struct {
	*slice.Slice
	device string
}

// openSlice opens a slice for the life of the process, if it is of this
// repository.
func (p *process) openSlice(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	var s *slice.Slice
	size, err := f.Seek(0, io.SeekEnd) // a device tells its size in no other way
	if err == nil {
		s, err = slice.Open(f, size)
	}
	if err == nil && s.Profile.Repository != p.config.Name {
		err = fmt.Errorf("it is a slice of repository %q", s.Profile.Repository)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	p.slices = append(p.slices, sliceOn{s, device})
	return nil
}

func nameservers(resolvConf string) []string {
	var list []string
	for line := range strings.Lines(resolvConf) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			list = append(list, f[1])
		}
	}
	return list
}

// say tells the parent, and the log.
func (p *process) say(line string) {
	p.log.Warn(line)
	p.tell(report{Progress: line})
}

// note is say for what the parent wants to know in the end, too.
func (p *process) note(line string) {
	p.say(line)
	p.notes = append(p.notes, line)
}

// now never lies before the floor.
func (p *process) now() time.Time {
	if now := time.Now(); now.After(p.config.ClockFloor) {
		return now
	}
	return p.config.ClockFloor
}

// network is how servers and proxies are chosen.
//
// Compat: cernvm-micro: scripts.d/14cvmfs. Differs: a transfer that failed is
// tried once more, since the machine's root depends on it.
func network() client.Network {
	return client.Network{
		GeoOrder: true, AddressesPerProxy: 2, ProxyResetAfter: 24 * time.Hour, BackoffMax: longestPause,
	}
}

// open reaches the repository, again and again while only the network is at
// fault. The parent ends the process when it has waited long enough.
func (p *process) open(ctx context.Context) error {
	c := p.config
	var cut []*slice.Slice
	for _, s := range p.slices {
		cut = append(cut, s.Slice)
	}
	for attempt, pause := 1, firstPause; ; attempt, pause = attempt+1, min(2*pause, longestPause) {
		r, err := client.Open(ctx, client.Options{
			Name: c.Name, Servers: c.Servers, Proxies: c.Proxies, MasterKeys: p.keys, CacheDir: ".", Quota: c.Quota,
			Pin: p.pin, Timeout: serverTimeout, Nameservers: p.names, Now: p.now, Log: p.log,
			Slices: cut, Record: recordLimit, Network: network(),
		})
		if err == nil {
			p.repo = r
			return nil
		}
		if ctx.Err() != nil || !client.IsTransfer(err) || explain(err).Class == fail.Unverified {
			return err
		}
		p.say(fmt.Sprintf("attempt %d: %v", attempt, err))
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		// The network may have come up with another name service meanwhile.
		if text, err := os.ReadFile("/etc/resolv.conf"); err == nil {
			p.names = nameservers(string(text))
		}
	}
}

func (p *process) mount(ctx context.Context) error {
	s, err := mount.Mount(ctx, p.repo, p.config.Mountpoint, mount.Options{AllowOther: true, Suid: true, LogBuffer: p.lines, Log: p.log})
	switch {
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENOENT):
		return fail.New(fail.HostLacks, "%w", err).Hint("load the module fuse, and check that %s exists", p.config.Mountpoint)
	case err != nil:
		return err
	}
	p.fuse = s
	return nil
}

// enter makes the working directory the root of this process.
func enter() error {
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("making the cache directory the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("entering the new root: %w", err)
	}
	return nil
}

// explain finds the class of an error and what can be done about it.
func explain(err error) failure {
	f := failure{Class: fail.ClassOf(err), Cause: err.Error()}
	if hints := fail.Hints(err); len(hints) > 0 {
		f.Remedy = strings.Join(hints, "; ")
		return f
	}
	switch {
	case errors.Is(err, cvmfs.ErrExpired):
		f.Class, f.Remedy = fail.Unverified, "set the clock, or have the publisher sign the whitelist again"
	case errors.Is(err, cvmfs.ErrSignature), errors.Is(err, cvmfs.ErrUntrusted), errors.Is(err, cvmfs.ErrWrongName):
		f.Class, f.Remedy = fail.Unverified, "check the name of the repository, its servers, and its public key"
	case errors.Is(err, client.ErrOutdated):
		f.Class, f.Remedy = fail.Unverified, "use another server, or empty the cache if the repository was made anew"
	case errors.Is(err, client.ErrNoTag):
		f.Class, f.Remedy = fail.NotFound, "choose a tag that the repository has, or none"
	case client.IsTransfer(err):
		f.Class, f.Remedy = fail.Refused, "check the network, the proxy and the servers of the repository"
	case errors.Is(err, client.ErrCacheFull), errors.Is(err, syscall.ENOSPC):
		f.Class, f.Remedy = fail.HostLacks, "make room on the disk of the cache"
	}
	return f
}
