package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/cmdline"
	"github.com/micavm/mica/internal/boot/console"
	"github.com/micavm/mica/internal/boot/reap"
	"github.com/micavm/mica/internal/boot/shutdown"
	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/version"
)

// Main is PID 1 of the boot image. It becomes the operating system's init, or
// restarts the machine; it returns only where it is not PID 1.
func Main(args []string) int {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "mica-guest: init runs as the first process of a machine, not from here")
		return 2
	}
	withoutPreemption()
	s := start()
	for {
		err := s.boot(args)
		if errors.Is(err, ErrRestart) {
			s.restart(shutdown.Reboot)
		}
		// Only a bug or a refusal of the kernel leads here. PID 1 must not end.
		s.con.Error("%v", err)
		if s.rescue(context.Background(), stage.HandOver, stage.Event{Stage: stage.HandOver, State: stage.Failed, Detail: err.Error()}) == Restart {
			s.restart(shutdown.Reboot)
		}
	}
}

// withoutPreemption starts this program over with asynchronous preemption off.
//
// The operating system's init is executed from a file system that is a process.
// The runtime sees execve(2) wait for it as a goroutine that does not yield, and
// sends itself a signal every 10 ms, which interrupts the wait: on a slow machine
// execve never gets through. The setting is read at the start of a program only.
func withoutPreemption() {
	const setting = "asyncpreemptoff=1"
	if strings.Contains(os.Getenv("GODEBUG"), setting) {
		return
	}
	env := append(os.Environ(), "GODEBUG="+setting)
	// The kernel started us by a name in the initramfs, which still stands.
	_ = syscall.Exec(os.Args[0], os.Args, env)
	// Not that important: again() gets through on a fast machine.
}

// start brings up what even the first message needs.
func start() *state {
	unix.Umask(0o022)
	_ = os.Setenv("PATH", searchPath)
	mountErr := mountAPI()
	consoleErr := takeConsole("/dev")
	// Signals meant for ordinary processes have no meaning here; Ctrl-Alt-Del
	// restarts at once, as the kernel does by default.
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE, unix.SIGTTOU, unix.SIGTSTP)
	text, cmdErr := os.ReadFile("/proc/cmdline")
	cmd := cmdline.Parse(string(text))
	self, err := os.Executable()
	if err != nil {
		self = "/init"
	}
	release, _ := kernelRelease()
	s := &state{
		cmd:  cmd,
		con:  console.Open("/dev", cmd.Consoles()),
		rec:  &Record{Version: version.Number, Kernel: release, Command: cmd.String()},
		self: self,
	}
	s.log = slog.New(slog.NewTextHandler(noteWriter{s.rec}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	s.con.Text("\n")
	s.con.Info("* Welcome to Mica")
	s.con.Info("* Release %s, kernel %s", version.Number, release)
	if err := errors.Join(mountErr, consoleErr, cmdErr); err != nil {
		s.con.Warn("%v", err)
		s.rec.note("%v", err)
	}
	return s
}

// boot runs the stages and leaves for the operating system.
func (s *state) boot(args []string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bug in the boot code: %v\n%s", p, firstFrames(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go reap.New().Run(ctx)
	brk, _ := s.cmd.Get("cvm_break")
	r := &runner{
		stages: stages(),
		state:  s,
		uptime: uptime,
		serial: brk != "" || s.cmd.Flag("cvmdebug"),
		emit: func(e stage.Event) {
			if e.State != stage.Started {
				s.rec.add(e)
				if e.Stage == stage.HandOver && e.State == stage.Done {
					s.rec.OK = true
					s.saveRecord()
				}
			}
			s.con.Event(e)
		},
		show: func(st Stage, e ending) { s.show(st, e) },
		rescue: func(ctx context.Context, st Stage, e stage.Event) Decision {
			return s.rescue(ctx, st.Name, e)
		},
		before: func(ctx context.Context, st Stage) {
			if st.Name == brk {
				s.con.Info("Stopped before %q; exit goes on with the boot.", st.Name)
				if err := s.debugShell(ctx); err != nil {
					s.con.Error("%v", err)
				}
			}
		},
	}
	if err := r.run(ctx); err != nil {
		return err
	}
	return s.leave(args)
}

// show writes what a person reads of a stage.
func (s *state) show(st Stage, e ending) {
	switch e.state {
	case stage.Done:
		s.con.Step(st.Text, "check "+console.Printable(e.detail), true)
	case stage.Skipped:
		s.con.Step(st.Text, console.Printable(e.detail), true)
	case stage.Warned:
		if st.Policy == Ignore {
			s.con.Step(st.Text, "failed", false)
			return
		}
		s.con.Step(st.Text, "failed", false)
		s.con.Warn("%s", e.detail)
		if e.remedy != "" {
			s.con.Warn("What can be done: %s", e.remedy)
		}
	default:
		s.con.Step(st.Text, "failed", false) // the menu says the rest
	}
}

// noteWriter puts log lines into the record.
type noteWriter struct{ rec *Record }

func (w noteWriter) Write(p []byte) (int, error) {
	w.rec.note("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Shutdown is PID 1 of the shutdown: systemd-shutdown runs it in /run/initramfs.
func Shutdown(args []string) int {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "mica-guest: shutdown is for systemd-shutdown to run; use poweroff or reboot")
		return 2
	}
	defer func() {
		if p := recover(); p != nil {
			shutdown.Emergency("/proc")
			_ = shutdown.End(shutdown.ParseVerb(args))
		}
	}()
	for _, m := range []struct{ point, fstype string }{{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}} {
		if !isMountPoint(m.point) {
			_ = os.MkdirAll(m.point, 0o755)
			_ = unix.Mount(m.fstype, m.point, m.fstype, 0, "")
		}
	}
	_ = takeConsole("/dev")
	sequence := shutdown.Default(os.Stdout)
	sequence.TearDown = tearDown
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	go reap.New().Run(ctx)
	if err := sequence.Run(ctx); err != nil {
		_, _ = fmt.Fprintf(os.Stdout, "\r[WRN] %v\r\n", err)
		shutdown.Emergency("/proc")
	}
	err := shutdown.End(shutdown.ParseVerb(args))
	_, _ = fmt.Fprintf(os.Stdout, "\r[ERR] %v\r\n", err)
	for { // halted, or refused: PID 1 must not end
		time.Sleep(time.Hour)
	}
}
