package boot

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/micavm/mica/internal/boot/password"
	"github.com/micavm/mica/internal/boot/repository"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/version"
)

// Command is something the guest binary does under a name: that under which it
// was called, or its first argument.
type Command struct {
	Name string
	Help string
	Run  func(args []string) int // without the name
}

// Commands lists what this package brings.
func Commands() []Command {
	return []Command{
		{"init", "the first process of a machine", Main},
		{"shutdown", "the last one, run by systemd-shutdown", Shutdown},
		{"status", "what the boot did and what the repository does, as JSON", Status},
		{"profile", "what was read of the repository so far, as a profile for other machines", Profile},
		{"hostkeys", "make an SSH host key if there is none", HostKeys},
		{"reset_root_password", "set root's password, in the debug shell or in the running system", ResetRootPassword},
		{"version", "print the version", Version},
	}
}

// Version prints the version.
func Version([]string) int {
	_, _ = fmt.Fprintln(os.Stdout, "mica-guest "+version.Number)
	return 0
}

// running is where UROOT is in the running system.
const running = "/mnt/.rw"

// Status prints the state of the machine's boot and of its repository.
func Status(args []string) int {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	rw := flags.String("rw", running, "where the machine's disk is mounted")
	if flags.Parse(args) != nil {
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var out struct {
		Schema     int                `json:"schema"`
		Version    string             `json:"version"`
		Repository *repository.Status `json:"repository,omitempty"`
		Boot       *Record            `json:"boot,omitempty"`
		Problems   []string           `json:"problems,omitempty"`
	}
	out.Schema, out.Version = 1, version.Number
	record, err := ReadRecord(filepath.Join(*rw, "ulogs"))
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
	}
	out.Boot = record
	for _, dir := range cacheDirs(*rw) {
		status, err := repository.ReadStatus(ctx, dir)
		if err != nil {
			out.Problems = append(out.Problems, err.Error())
			continue
		}
		out.Repository = &status
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(out); err != nil {
		return complain(err)
	}
	if len(out.Problems) > 0 {
		return 1
	}
	return 0
}

// Profile prints what the repository process has read.
func Profile(args []string) int {
	flags := flag.NewFlagSet("profile", flag.ContinueOnError)
	rw := flags.String("rw", running, "where the machine's disk is mounted")
	if flags.Parse(args) != nil {
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dirs := cacheDirs(*rw)
	if len(dirs) == 0 {
		return complain(fail.New(fail.NotFound, "no repository process has its cache below %s", *rw))
	}
	text, err := repository.Talk(ctx, dirs[0], "profile")
	if err != nil {
		return complain(err)
	}
	_, _ = fmt.Fprintln(os.Stdout, text)
	return 0
}

// cacheDirs returns the cache directories on UROOT that have a control socket.
func cacheDirs(rw string) []string {
	sockets, err := filepath.Glob(filepath.Join(rw, "cache/*/cvmfs_io.*"))
	if err != nil {
		return nil
	}
	var dirs []string
	for _, s := range sockets {
		dirs = append(dirs, filepath.Dir(s))
	}
	return dirs
}

// tearDown asks every repository process with its cache on rw to stop writing.
func tearDown(ctx context.Context, rw string) error {
	var errs []error
	for _, dir := range cacheDirs(rw) {
		errs = append(errs, repository.TearDown(ctx, dir))
	}
	return errors.Join(errs...)
}

// HostKeys makes an ed25519 host key if the machine has no host key at all. Other
// types of key would take a small machine a minute, and nothing asks for them.
func HostKeys(args []string) int {
	flags := flag.NewFlagSet("hostkeys", flag.ContinueOnError)
	root := flags.String("root", "/", "the tree to work in")
	if flags.Parse(args) != nil {
		return 2
	}
	dir := filepath.Join(*root, "etc/ssh")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "mica-guest: hostkeys: there is no /etc/ssh, so no SSH server")
		return 0
	}
	if keys, err := filepath.Glob(filepath.Join(dir, "ssh_host_*_key")); err == nil && len(keys) > 0 {
		return 0
	}
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		return complain(fail.New(fail.HostLacks, "making a host key: %w", err).Hint("install the SSH server's tools into the operating system's tree"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(dir, "ssh_host_ed25519_key"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return complain(fmt.Errorf("making a host key: %w: %s", err, strings.TrimSpace(string(out))))
	}
	return 0
}

// ResetRootPassword sets root's password: the one given as argument or typed, or
// a made-up one if neither, which it prints.
func ResetRootPassword(args []string) int {
	flags := flag.NewFlagSet("reset_root_password", flag.ContinueOnError)
	tree := flags.String("root", "", "the tree to work in (default: the operating system's)")
	if flags.Parse(args) != nil {
		return 2
	}
	if *tree == "" {
		*tree = "/"
		if isMountPoint(targetRoot) { // in the debug shell
			*tree = targetRoot
		}
	}
	secret := strings.Join(flags.Args(), " ")
	shown := false
	if secret == "" {
		secret = typed()
	}
	if secret == "" {
		made, err := password.Generate(nil)
		if err != nil {
			return complain(err)
		}
		secret, shown = made, true
	}
	hash, err := password.Hash(secret)
	if err == nil {
		err = password.SetRoot(*tree, hash, time.Now())
	}
	if err != nil {
		return complain(err)
	}
	if shown {
		_, _ = fmt.Fprintf(os.Stdout, "The password of root is now: %s\n", secret)
	} else {
		_, _ = fmt.Fprintln(os.Stdout, "The password of root was set.")
	}
	return 0
}

// typed asks for a password on a terminal, without showing it. An empty answer,
// or no terminal, is "".
func typed() string {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		return strings.TrimRight(line, "\r\n")
	}
	fmt.Fprint(os.Stderr, "New password for root (empty: make one up): ")
	data, err := term.ReadPassword(fd)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return ""
	}
	return string(data)
}

// complain prints an error with what can be done about it.
func complain(err error) int {
	fmt.Fprintf(os.Stderr, "mica-guest: %v\n", err)
	for _, h := range fail.Hints(err) {
		fmt.Fprintf(os.Stderr, "hint: %s\n", h)
	}
	return int(fail.ClassOf(err))
}
