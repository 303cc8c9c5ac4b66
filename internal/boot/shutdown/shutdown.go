package shutdown

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Sequence is one shutdown. The fields that reach outside are there for tests;
// Default fills them for a machine.
type Sequence struct {
	OldRoot string    // where the operating system's root is, "/oldroot"
	Proc    string    // "/proc"
	Print   io.Writer // the console

	// TearDown asks the repository's process to stop writing, given its cache
	// directories. nil skips it.
	TearDown func(ctx context.Context, rw string) error

	Unmount func(point string, flags int) error
	Move    func(from, to string) error // makes the target folder
	Kill    func(pid int, sig unix.Signal) error
	Remount func(point string) error // read-only
	Sleep   func(time.Duration)
}

// Default is the sequence of a real machine.
func Default(console io.Writer) Sequence {
	return Sequence{
		OldRoot: "/oldroot",
		Proc:    "/proc",
		Print:   console,
		Unmount: unix.Unmount,
		Move: func(from, to string) error {
			if err := os.MkdirAll(to, 0o700); err != nil {
				return err
			}
			return unix.Mount(from, to, "", unix.MS_MOVE, "")
		},
		Kill: unix.Kill,
		Remount: func(point string) error {
			return unix.Mount("", point, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		},
		Sleep: time.Sleep,
	}
}

// Run takes everything down up to the point where only reboot(2) is left. It
// returns what did not work; the machine ends all the same.
func (s Sequence) Run(ctx context.Context) error {
	var errs []error
	s.killStrangers()
	rw, ro := filepath.Join(s.OldRoot, "mnt/.rw"), filepath.Join(s.OldRoot, "mnt/.ro")

	mounts := s.mounts()
	for _, m := range Below(mounts, s.OldRoot) {
		if m.Point == s.OldRoot || m.Point == rw || m.Point == ro {
			continue
		}
		if err := s.Unmount(m.Point, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			if err := s.Unmount(m.Point, unix.MNT_DETACH); err != nil {
				errs = append(errs, fmt.Errorf("unmounting %s: %w", m.Point, err))
			}
		}
	}
	if s.TearDown != nil {
		// Nothing there: the process is gone already, or systemd has unmounted its
		// cache. Neither stops us.
		if err := s.TearDown(ctx, rw); err != nil {
			s.say("repository: %v", err)
		}
	}
	// The two sides of the overlay are mounted inside it. They are moved out of
	// it, so that it can go before them.
	for _, side := range []struct{ from, to string }{{rw, "/rw"}, {ro, "/ro"}} {
		if !mounted(mounts, side.from) {
			continue
		}
		if err := s.Move(side.from, side.to); err != nil {
			errs = append(errs, fmt.Errorf("moving %s to %s: %w", side.from, side.to, err))
		}
	}
	if mounted(mounts, s.OldRoot) {
		if err := s.unmount(s.OldRoot); err != nil {
			errs = append(errs, err)
		}
	}
	s.endRepository()
	if mounted(s.mounts(), "/ro") {
		if err := s.Unmount("/ro", unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmounting the repository: %w", err))
		}
	}
	unix.Sync()
	if mounted(s.mounts(), "/rw") {
		if err := s.unmount("/rw"); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// unmount unmounts, trying again while something is still letting go, and makes
// the file system read-only if nothing helps.
func (s Sequence) unmount(point string) error {
	var err error
	for range 20 {
		if err = s.Unmount(point, 0); err == nil || errors.Is(err, unix.EINVAL) {
			return nil
		}
		s.Sleep(100 * time.Millisecond)
	}
	if rerr := s.Remount(point); rerr != nil {
		return fmt.Errorf("unmounting %s: %w; making it read-only: %w", point, err, rerr)
	}
	return fmt.Errorf("unmounting %s: %w; it was made read-only", point, err)
}

// killStrangers ends all that is left besides kernel threads, this process and
// those whose name begins with '@'.
func (s Sequence) killStrangers() {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		victims := 0
		for pid, name := range s.processes() {
			if pid != os.Getpid() && name != "" && !strings.HasPrefix(name, "@") {
				victims++
				_ = s.Kill(pid, sig)
			}
		}
		for i := 0; i < 20 && victims > 0; i++ {
			s.Sleep(50 * time.Millisecond)
			victims = 0
			for pid, name := range s.processes() {
				if pid != os.Getpid() && name != "" && !strings.HasPrefix(name, "@") {
					victims++
				}
			}
		}
		if victims == 0 {
			return
		}
	}
}

// endRepository ends the file system's process: nicely, then not.
func (s Sequence) endRepository() {
	for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGKILL} {
		for range 30 {
			alive := 0
			for pid, name := range s.processes() {
				if strings.HasPrefix(name, "@mica-") {
					alive++
					_ = s.Kill(pid, sig)
				}
			}
			if alive == 0 {
				return
			}
			s.Sleep(100 * time.Millisecond)
		}
	}
}

// processes returns the living processes with the first word of their command
// line, which is empty for kernel threads and zombies.
func (s Sequence) processes() map[int]string {
	list := map[int]string{}
	names, err := os.ReadDir(s.Proc)
	if err != nil {
		return list
	}
	for _, d := range names {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(s.Proc, d.Name(), "cmdline"))
		if err != nil || len(data) == 0 {
			continue
		}
		first, _, _ := bytes.Cut(data, []byte{0})
		list[pid] = string(first)
	}
	return list
}

func (s Sequence) mounts() []Mount {
	data, err := os.ReadFile(filepath.Join(s.Proc, "self/mountinfo"))
	if err != nil {
		return nil
	}
	return ParseMountinfo(data)
}

func mounted(mounts []Mount, point string) bool {
	for _, m := range mounts {
		if m.Point == point {
			return true
		}
	}
	return false
}

func (s Sequence) say(format string, args ...any) {
	if s.Print != nil {
		_, _ = fmt.Fprintf(s.Print, "\r[INF] "+format+"\r\n", args...)
	}
}

// End ends the machine. It returns only if the kernel refuses.
func End(v Verb) error {
	how := map[Verb]int{
		Reboot:   unix.LINUX_REBOOT_CMD_RESTART,
		PowerOff: unix.LINUX_REBOOT_CMD_POWER_OFF,
		Halt:     unix.LINUX_REBOOT_CMD_HALT,
		Kexec:    unix.LINUX_REBOOT_CMD_KEXEC,
	}
	unix.Sync()
	if err := unix.Reboot(how[v]); err != nil {
		if v == Kexec { // nothing is loaded: an ordinary restart does what was wanted
			if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err == nil {
				return nil
			}
		}
		return fmt.Errorf("ending the machine (%s): %w", v, err)
	}
	return nil
}

// Emergency asks the kernel to write everything back and make every file system
// read-only, whatever holds it (SysRq s and u).
func Emergency(proc string) {
	for _, key := range []string{"s", "u"} {
		_ = os.WriteFile(filepath.Join(proc, "sysrq-trigger"), []byte(key), 0o200)
	}
	time.Sleep(time.Second) // the kernel works on it in the background and does not say when it is done
}
