package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/client"
)

const kernelTimeout = 60 * time.Second

// forever is a timeout that the kernel can still add to its clock.
const forever = time.Duration(math.MaxInt32) * time.Second

// Options of a mount.
type Options struct {
	AllowOther bool // other users than the mounting one may use it
	Suid       bool // honour setuid bits and file capabilities
	Unchecked  bool // everyone may read everything, whatever its mode (CVMFS_CHECK_PERMISSIONS=no)

	// KernelTimeout is how long the kernel may believe what it was told of a
	// repository that follows its newest revision; 0 means 60 s, as the original's
	// CVMFS_KCACHE_TIMEOUT. A pinned revision it believes for ever.
	KernelTimeout time.Duration

	// CountOpens has the kernel ask whenever a file or a directory is opened, so that
	// Counters knows. Kernels since 5.1 open by themselves otherwise, and what they
	// have read once costs as much as on a disk.
	CountOpens bool

	Timed     bool       // take the time of requests, for Latencies; of opening only with CountOpens
	Visible   Visibility // where magic attributes are listed
	LogBuffer *LogBuffer // read by the magic attribute user.logbuffer; nil for none
	Log       *slog.Logger
}

// Server is a mounted repository.
type Server struct {
	fuse   *fuse.Server
	fs     *fileSystem
	timed  *timed // nil unless Options.Timed
	dir    string
	device string
	done   chan struct{}
}

// Mount mounts a repository at dir, which must be an existing directory, and
// returns when it can be used. The repository must stay open until Wait returns.
// It takes the capability to mount.
func Mount(ctx context.Context, r *client.Repository, dir string, opt Options) (*Server, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.KernelTimeout <= 0 {
		opt.KernelTimeout = kernelTimeout
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("mounting repository %q: %w", r.Name(), err)
	}
	flags := uintptr(syscall.MS_RDONLY | syscall.MS_NODEV)
	if !opt.Suid {
		flags |= syscall.MS_NOSUID
	}
	var kernel []string
	if !opt.Unchecked {
		kernel = append(kernel, "default_permissions")
	}
	files := newFileSystem(r, opt)
	files.magicOptions = magicOptions{visible: opt.Visible, logBuffer: opt.LogBuffer}
	var raw fuse.RawFileSystem = files
	var watched *timed
	if opt.Timed {
		watched = newTimed(files)
		raw = watched
	}
	server, err := fuse.NewServer(raw, dir, &fuse.MountOptions{
		AllowOther: opt.AllowOther,
		Options:    kernel,
		FsName:     r.Name(),
		Name:       "cvmfs",
		// The library mounts with nosuid and nodev unless it is given flags.
		DirectMountStrict: true,
		DirectMountFlags:  flags,
		MaxBackground:     64,
		// A larger size would cost its double in buffers and gain nothing: the
		// kernel reads ahead 128 KiB.
		MaxWrite:             128 << 10,
		MaxReadAhead:         128 << 10,
		EnableSymlinkCaching: r.Pinned(),
		// The library opens /dev/null in the middle of a splice, and panics where it
		// is not there: in a process that left its root behind. A copy costs little.
		DisableSplice: true,
		Logger:        slog.NewLogLogger(opt.Log.Handler(), slog.LevelError),
	})
	if err != nil {
		return nil, fmt.Errorf("mounting repository %q at %s: %w", r.Name(), dir, err)
	}
	s := &Server{fuse: server, fs: files, timed: watched, dir: dir, done: make(chan struct{})}
	end := r.OnChange(func() { s.revised() })
	go func() {
		defer close(s.done)
		server.Serve()
		end()
		files.callers.close()
		files.recent.close()
	}()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting repository %q at %s: %w", r.Name(), dir, err), s.Unmount())
	}
	if ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), s.Unmount())
	}
	if s.device, err = DeviceOf(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting repository %q: %w", r.Name(), err), s.Unmount())
	}
	return s, nil
}

// DeviceOf returns the number of the device that a file lies on, as MAJOR:MINOR.
func DeviceOf(file string) (string, error) {
	var info unix.Stat_t
	if err := unix.Stat(file, &info); err != nil {
		return "", &fs.PathError{Op: "stat", Path: file, Err: err}
	}
	return fmt.Sprintf("%d:%d", unix.Major(info.Dev), unix.Minor(info.Dev)), nil
}

// RaiseFileLimit lets this process have that many files open, or else as many as it
// may, and returns how many those are. A higher limit stays.
func RaiseFileLimit(wanted uint64) (limit uint64, err error) {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return 0, fmt.Errorf("reading the limit on open files: %w", err)
	}
	if now.Cur >= wanted {
		return now.Cur, nil
	}
	raised := unix.Rlimit{Cur: wanted, Max: max(wanted, now.Max)}
	if err = unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err == nil {
		return wanted, nil
	}
	err = fmt.Errorf("raising the limit on open files to %d: %w", wanted, err)
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: now.Max, Max: now.Max}) == nil {
		return now.Max, err
	}
	return now.Cur, err
}

// Wait returns when the file system is unmounted, by whomever.
func (s *Server) Wait() { <-s.done }

// Done is closed when the file system is unmounted.
func (s *Server) Done() <-chan struct{} { return s.done }

// Device returns the mount's device number as MAJOR:MINOR, the form of
// /proc/self/mountinfo; stat(2) has it for everything in the mount.
func (s *Server) Device() string { return s.device }

// ResetFailures begins to count failures anew.
func (s *Server) ResetFailures() {
	s.fs.failures.Store(0)
	s.fs.lastFailure.Store(0)
}

// Counters is what a mount has counted.
type Counters struct {
	Failures    int64     // requests answered with an error of input or output
	LastFailure time.Time // zero before the first

	// Counted is false where the kernel opens and closes without asking. What follows
	// is not known then.
	Counted             bool
	Opens, DirOpens     int64
	OpenFiles, OpenDirs int // now
}

// Counters returns the counters.
func (s *Server) Counters() Counters { return s.fs.counters() }

// Latencies returns how long the requests of each kind took since the mount; without
// Options.Timed their counts are zero.
func (s *Server) Latencies() []Latency { return s.timed.latencies() }

// Unmount ends the mount and waits for the last request. It fails while files in
// it are open.
func (s *Server) Unmount() error {
	select {
	case <-s.done: // somebody else did it
		return nil
	default:
	}
	if err := s.fuse.Unmount(); err != nil {
		return fmt.Errorf("unmounting %s: %w", s.dir, err)
	}
	<-s.done
	return nil
}

// limiter lets one message through each second, so that a dead network does not
// flood the log.
type limiter struct {
	mu   sync.Mutex
	last time.Time
	lost int
}

func (l *limiter) allow() (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last) < time.Second {
		l.lost++
		return 0, false
	}
	suppressed, l.lost, l.last = l.lost, 0, now
	return suppressed, true
}
