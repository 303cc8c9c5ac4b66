package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/download"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine/bootsector"
)

// Health is how a part of this computer looks to the doctor.
type Health string

// The healths.
const (
	Fine    Health = "ok"
	Warning Health = "warning" // machines run, but
	Problem Health = "problem" // machines do not run
)

// Finding is what the doctor says of one part.
type Finding struct {
	Part     string    `json:"part"` // home, disk, memory, image, ssh, machines, or driver and its name
	Health   Health    `json:"health"`
	Detail   string    `json:"detail"`
	Remedy   []string  `json:"remedy,omitempty"`
	Features []Feature `json:"features,omitempty"` // of a driver
	Options  []string  `json:"options,omitempty"`  // of a driver: NAME: what it does
	Seconds  float64   `json:"seconds,omitempty"`  // of a driver: how long its test machine took
}

// What the doctor calls little.
const (
	littleDisk   = 5 << 30
	noDisk       = 256 << 20
	littleMemory = 1 << 30
)

// Doctor looks at everything that machines need here, and with boot boots a
// tiny machine on every driver that is usable. Each finding is told as it is
// made. The test machines live in a home of their own and leave nothing.
func (f *Fleet) Doctor(ctx context.Context, boot bool, getenv func(string) string, tell func(Finding)) error {
	if err := f.Home.make(); err != nil {
		tell(problem("home", err))
		return nil
	}
	f.clearTests(ctx)
	tell(f.checkHome(ctx))
	tell(f.checkDisk())
	if free, ok := memoryFree(); ok {
		tell(checkMemory(free))
	}
	tell(f.checkImages(getenv))
	tell(checkSSH())
	machines, err := f.checkMachines(ctx)
	if err != nil {
		return err
	}
	tell(machines)
	usable := 0
	for _, name := range f.Drivers.Names() {
		finding := f.checkDriver(ctx, name, boot)
		if finding.Health != Problem {
			usable++
		}
		tell(finding)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("looking at driver %q: %w", name, err)
		}
	}
	if usable == 0 {
		tell(Finding{Part: "drivers", Health: Problem, Detail: "no driver can run machines here", Remedy: []string{"one is enough: QEMU is the easiest to install"}})
	}
	return nil
}

func problem(part string, err error) Finding {
	return Finding{Part: part, Health: Problem, Detail: err.Error(), Remedy: fail.Hints(err)}
}

// checkHome sees whether the home's file system can do what machines need:
// sockets, hard links, and nobody else's eyes.
func (f *Fleet) checkHome(ctx context.Context) Finding {
	home := string(f.Home)
	found := Finding{Part: "home", Health: Fine, Detail: home}
	info, err := os.Stat(home)
	if err != nil {
		return problem("home", err)
	}
	dir, err := os.MkdirTemp(f.Home.machines(), newPrefix)
	if err != nil {
		return problem("home", fail.New(fail.Failed, "cannot write there: %w", err).Hint("set MICA_HOME to a folder you may write to"))
	}
	defer os.RemoveAll(dir) //nolint:errcheck // gc finds it
	if err := trySocket(ctx, dir); err != nil {
		found.Health, found.Detail = Problem, home+" may not hold sockets: "+err.Error()
		found.Remedy = []string{"set MICA_HOME to a folder on a local disk"}
		return found
	}
	if info.Mode().Perm()&0o022 != 0 {
		found.Health, found.Detail = Warning, fmt.Sprintf("%s can be written to by others (%s)", home, info.Mode().Perm())
		found.Remedy = []string{"chmod go-w " + home}
	}
	return found
}

// trySocket listens on a socket in dir. A long path says nothing about the
// file system: there, the socket is made by a short one.
func trySocket(ctx context.Context, dir string) error {
	const longest = 90 // bytes that every system takes
	path := filepath.Join(dir, "s")
	if len(path) > longest {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return err
	}
	return l.Close()
}

func (f *Fleet) checkDisk() Finding {
	var st unix.Statfs_t
	if err := unix.Statfs(string(f.Home), &st); err != nil {
		return problem("disk", err)
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // their types differ between systems
	found := Finding{Part: "disk", Health: Fine, Detail: fmt.Sprintf("%.1f GiB free where machines are kept", float64(free)/(1<<30))}
	remedy := []string{"free some space, or set MICA_HOME to a folder on a larger disk", "'mica gc' removes what nobody uses"}
	switch {
	case free < noDisk:
		found.Health, found.Remedy = Problem, remedy
	case free < littleDisk:
		found.Health, found.Remedy = Warning, remedy
	}
	return found
}

func checkMemory(free int64) Finding {
	found := Finding{Part: "memory", Health: Fine, Detail: fmt.Sprintf("%.1f GiB free", float64(free)/(1<<30))}
	if free < littleMemory {
		found.Health, found.Remedy = Warning, []string{"end other programs, or make machines with less --memory"}
	}
	return found
}

func (f *Fleet) checkImages(getenv func(string) string) Finding {
	if named := getenv("MICA_IMAGE"); IsURL(named) {
		return Finding{Part: "image", Health: Fine, Detail: download.Shown(named) + " (fetched when a machine is made of it)"}
	}
	image, detail := Image{}, ""
	path, err := FindImage(f.Home, "", getenv)
	if err == nil {
		image.Path, detail = path, path
		image.Format, err = imageFormat(path, path, "")
	}
	if err == nil {
		err = checkImage(image)
	}
	if err != nil {
		found := problem("image", err)
		found.Health = Warning // one may be named at every create
		return found
	}
	if image.Format != "" {
		detail += " (a disk image, " + image.Format + ")"
	}
	return Finding{Part: "image", Health: Fine, Detail: detail}
}

func checkSSH() Finding {
	path, err := exec.LookPath("ssh")
	if err != nil {
		return Finding{
			Part: "ssh", Health: Warning, Detail: "there is no ssh program: 'mica ssh' does not work",
			Remedy: []string{"install OpenSSH's client: package openssh-client, or openssh-clients"},
		}
	}
	return Finding{Part: "ssh", Health: Fine, Detail: path}
}

func (f *Fleet) checkMachines(ctx context.Context) (Finding, error) {
	all, err := f.List(ctx)
	if err != nil {
		return Finding{}, err
	}
	found := Finding{Part: "machines", Health: Fine, Detail: fmt.Sprintf("%d", len(all))}
	var bad []string
	for _, m := range all {
		switch m.State {
		case Damaged, Unknown, Incomplete, Absent, Crashed:
			bad = append(bad, fmt.Sprintf("%s is %s", m.Name, m.State))
		}
	}
	if len(bad) > 0 {
		found.Health, found.Detail = Warning, fmt.Sprintf("%d, of which %s", len(all), strings.Join(bad, ", "))
		found.Remedy = []string{"'mica why NAME' says what is wrong with one"}
	}
	return found, nil
}

func (f *Fleet) checkDriver(ctx context.Context, name string, boot bool) Finding {
	part := "driver " + name
	d, err := f.Drivers.Get(name)
	if err != nil {
		return problem(part, err)
	}
	report, err := d.Probe(ctx)
	if err != nil {
		return problem(part, err)
	}
	found := Finding{Part: part, Health: Fine, Detail: strings.TrimSpace(report.Version + " " + strings.Join(report.Accel, " ")), Features: report.Features}
	for option, does := range report.Options {
		found.Options = append(found.Options, option+": "+does)
	}
	if len(report.Warnings) > 0 {
		found.Health, found.Remedy = Warning, report.Warnings
	}
	if !boot {
		return found
	}
	began := f.now()
	if err := f.bootTest(ctx, name); err != nil {
		bad := problem(part, err)
		bad.Features, bad.Options = found.Features, found.Options
		return bad
	}
	found.Seconds = f.now().Sub(began).Seconds()
	found.Detail += fmt.Sprintf(", a test machine ran after %.1f s", found.Seconds)
	return found
}

const (
	testPrefix   = ".doctor-"
	testSays     = "mica doctor: this machine runs"
	testPatience = 90 * time.Second
)

// bootTest makes a machine of one boot sector, sees that it speaks, and
// destroys it.
func (f *Fleet) bootTest(ctx context.Context, driver string) (err error) {
	home, err := os.MkdirTemp(string(f.Home), testPrefix)
	if err != nil {
		return err
	}
	lock, err := atomicfile.TryLock(filepath.Join(home, lockFile))
	if err != nil {
		return err
	}
	defer lock.Unlock() //nolint:errcheck // the folder goes
	test := &Fleet{Home: Home(home), Drivers: f.Drivers, Log: f.Log}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, test.remove(after))
	}()
	iso := filepath.Join(home, "test.iso")
	if err := os.WriteFile(iso, bootsector.ISO(bootsector.Guest{Says: testSays + "\r\n"}), 0o600); err != nil {
		return err
	}
	name := "mica-doctor-" + strings.TrimPrefix(filepath.Base(home), testPrefix)
	if _, err := test.Create(ctx, Order{Spec: Spec{
		Name: name, Driver: driver, MemoryMiB: minMemoryMiB, CPUs: 1, DiskMiB: minDiskMiB, Image: Image{Path: iso}, Context: []byte("#!/bin/sh\nexit\n"),
	}}); err != nil {
		return fmt.Errorf("booting a test machine: %w", err)
	}
	return test.speaks(ctx, name)
}

// speaks waits for the test machine's words, where the driver keeps a log.
func (f *Fleet) speaks(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, testPatience)
	defer cancel()
	for {
		m, err := f.Get(ctx, name)
		if err != nil {
			return err
		}
		if m.State != Running {
			return fail.New(fail.Failed, "the test machine is %s, not running", m.State)
		}
		var said strings.Builder
		err = f.readLog(ctx, m, 0, maxLine, func(data []byte) { said.Write(data) })
		if fail.Is(err, fail.Usage) || strings.Contains(said.String(), testSays) {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fail.New(fail.TimedOut, "the test machine said nothing for %s: %w", testPatience, context.Cause(ctx))
		case <-time.After(followEvery):
		}
	}
}

// remove destroys every machine of a test's home, and the home.
func (f *Fleet) remove(ctx context.Context) error {
	all, err := f.List(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := f.Destroy(ctx, m.Name, true); err != nil {
			return err
		}
	}
	return os.RemoveAll(string(f.Home))
}

// clearTests removes the tests of doctors that were killed.
func (f *Fleet) clearTests(ctx context.Context) {
	left, _ := listed(string(f.Home), func(name string) bool { return strings.HasPrefix(name, testPrefix) })
	for _, home := range left {
		lock, err := atomicfile.TryLock(filepath.Join(home, lockFile))
		if err != nil {
			continue // another doctor is at work
		}
		test := &Fleet{Home: Home(home), Drivers: f.Drivers, Log: f.Log}
		if err := test.remove(ctx); err != nil {
			f.log().Warn("could not remove a test machine", "folder", home, "error", err)
		}
		_ = lock.Unlock()
	}
}
