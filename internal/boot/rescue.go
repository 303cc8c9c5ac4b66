package boot

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/console"
	"github.com/micavm/mica/internal/boot/shutdown"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/stage"
)

// panicIdle is how long the menu waits on a machine whose kernel is told to
// restart after a panic: nobody is expected at its console.
const panicIdle = 300 * time.Second

// rescue is what happens after a fatal failure: everything is said, the record
// is saved as far as it can be, and somebody decides.
func (s *state) rescue(ctx context.Context, name string, e stage.Event) Decision {
	s.con.Error("%s: %s", name, e.Detail)
	if e.Remedy != "" {
		s.con.Error("What can be done: %s", e.Remedy)
	}
	s.saveRecord()
	for {
		switch s.menu(ctx, "The boot stopped at \""+name+"\".", []console.Choice{
			{Key: 'r', Text: "try this step again"},
			{Key: 'c', Text: "continue without it"},
			{Key: 's', Text: "a shell to look around in; exit comes back here"},
			{Key: 'b', Text: "restart the machine"},
		}, 'b', s.patience()) {
		case 'r':
			return Retry
		case 'c':
			return GoOn
		case 's':
			if err := s.debugShell(ctx); err != nil {
				s.con.Error("%v", err)
			}
		default:
			return Restart
		}
	}
}

// patience is how long the menu waits for a person; 0 is for ever.
//
// Compat: "for ever" on a console. Differs: cvm_panic= sets a limit, and the
// kernel's panic= implies one.
func (s *state) patience() time.Duration {
	if s.cmd.Has("cvm_panic") {
		return s.cmd.Seconds("cvm_panic", panicIdle)
	}
	if s.cmd.Has("panic") {
		return panicIdle
	}
	return 0
}

// menu asks on the console.
func (s *state) menu(ctx context.Context, title string, choices []console.Choice, fallback byte, idle time.Duration) byte {
	// Non-blocking, so that closing it ends a read that is under way: otherwise
	// that read would steal a line from the shell that follows.
	tty, err := os.OpenFile(console.Terminal("/sys", "/dev"), os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	var in io.Reader = strings.NewReader("")
	if err == nil {
		defer tty.Close()
		in = tty
	}
	return console.Ask(ctx, in, s.con.Text, title, choices, fallback, idle)
}

// debugShell runs busybox's shell on the console until it is left.
func (s *state) debugShell(ctx context.Context) error {
	busybox := tool("busybox")
	if _, err := os.Stat(busybox); err != nil {
		return fail.New(fail.HostLacks, "the image has no busybox, so there is no shell")
	}
	// Names for its tools; those that are there stay.
	applets := "/run/mica/applets"
	if err := os.MkdirAll(applets, 0o755); err == nil {
		_, _, _ = s.run(ctx, []string{busybox, "--install", "-s", applets})
	}
	flush, cancel := context.WithTimeout(ctx, time.Second)
	s.con.Flush(flush)
	cancel()
	return console.Shell(ctx, []string{busybox, "sh"}, console.Terminal("/sys", "/dev"), []string{
		"PATH=" + searchPath + ":" + applets, "HOME=/", "TERM=linux", "PS1=(initrd) # ", "ROOT=" + targetRoot,
	})
}

// saveRecord writes the record to UROOT, if it is mounted.
func (s *state) saveRecord() {
	if !s.mounted {
		return
	}
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) == nil {
		s.rec.Memory = usage.Maxrss * 1024
	}
	s.rec.Uptime = uptime()
	ulogs := s.rw("ulogs")
	if _, err := os.Stat(ulogs); err != nil {
		return
	}
	if err := s.rec.write(ulogs, time.Now()); err != nil {
		s.con.Warn("%v", err)
	}
}

// restart ends a boot that does not come to its end: UROOT is left clean.
func (s *state) restart(v shutdown.Verb) {
	s.saveRecord()
	s.con.Info("Restarting")
	s.con.Close()
	if s.ready.PID > 0 {
		_ = unix.Kill(s.ready.PID, unix.SIGUSR1)
	}
	for _, point := range []string{
		filepath.Join(targetRoot, "mnt/.ro"), filepath.Join(targetRoot, "cvmfs"), filepath.Join(targetRoot, "mnt/.rw"),
		targetRoot, readOnly, readWrite,
	} {
		if err := unix.Unmount(point, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			_ = unix.Unmount(point, unix.MNT_DETACH)
		}
	}
	unix.Sync()
	shutdown.Emergency("/proc")
	_ = shutdown.End(v)
}
