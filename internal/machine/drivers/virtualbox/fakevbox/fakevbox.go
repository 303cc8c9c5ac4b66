package fakevbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/machine/bootsector"
)

// Program and Process are the names by which a test binary knows what it is to
// be: VBoxManage, or the process of a machine that runs.
const (
	Program = "VBoxManage"
	Process = "VBoxHeadless"
)

// The styles of output.
const (
	Style52 = "5.2"
	Style61 = "6.1"
	Style72 = "7.2"
)

// Config is what the fake is to do; Configure writes it.
type Config struct {
	Style    string // empty is 7.2
	Version  string // empty is one of that style
	Preamble string // written to standard output before anything else

	Fail []Failure
	Hang []string       // commands that never end, by a part of their line
	Slow map[string]int // milliseconds a machine's process takes to: start, save

	Race      int   // how many commands still see the session of a machine that has ended
	Lie       bool  // startvm succeeds, and there is no machine
	Dialog    bool  // machines wait in a dialog before they start
	Deaf      bool  // machines do not hear poweroff
	LosePorts []int // forwarded ports that machines cannot get, though they are free
	FrozenNAT bool  // saved machines refuse changes of their rules

	Additions string // where the guest additions' ISO is
	Extension string // the extension pack for remote displays
}

// Failure makes commands fail whose line has Match in it.
type Failure struct {
	Match  string
	Stderr string
	Code   int
	Times  int  // zero is always
	After  bool // the command does its work first
}

// Install makes the fake in a folder and returns the path of its VBoxManage.
// The program is this test binary, whose TestMain calls Main.
func Install(dir string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, Program)
	return path, errors.Join(os.Symlink(self, path), os.Symlink(self, filepath.Join(dir, Process)))
}

// Configure changes what the fake in a folder does.
func Configure(dir string, c Config) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600)
}

// Commands returns the lines of all commands so far.
func Commands(dir string) []string {
	data, _ := os.ReadFile(filepath.Join(dir, "commands"))
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// Links reports whether the guest may make symbolic links in a share.
func Links(dir, id, name string) bool {
	s, err := (&fake{dir: dir}).load()
	if err != nil || s.machine(id) == nil {
		return false
	}
	return slices.ContainsFunc(s.machine(id).Shares, func(sh share) bool { return sh.Name == name && sh.Links })
}

// Known lists the machines and media that the fake knows.
func Known(dir string) []string {
	s, err := (&fake{dir: dir}).load()
	if err != nil {
		return []string{err.Error()}
	}
	var all []string
	for _, v := range s.Machines {
		all = append(all, "machine "+v.UUID+" "+v.Name)
	}
	for _, m := range s.Media {
		all = append(all, m.Kind+" "+m.UUID+" "+m.Path)
	}
	return all
}

// KillProcess kills the process of a machine that runs.
func KillProcess(dir, id string) error { return (&fake{dir: dir}).stop(id) }

// failure is what VBoxManage says when it fails.
type failure struct {
	text, code string
	exit       int
}

func (f *failure) Error() string { return f.text }

func refuse(code, format string, args ...any) error {
	return &failure{fmt.Sprintf(format, args...), code, 1}
}

// unknown is a mistake in the command line.
func unknown(format string, args ...any) error {
	return &failure{fmt.Sprintf(format, args...), "", 2}
}

// numbers are the values of the codes.
var numbers = map[string]string{
	"VBOX_E_OBJECT_NOT_FOUND": "0x80bb0001", "VBOX_E_INVALID_VM_STATE": "0x80bb0002", "VBOX_E_VM_ERROR": "0x80bb0003",
	"VBOX_E_FILE_ERROR": "0x80bb0004", "VBOX_E_INVALID_OBJECT_STATE": "0x80bb0007", "VBOX_E_OBJECT_IN_USE": "0x80bb000c",
	"E_ACCESSDENIED": "0x80070005", "E_FAIL": "0x80004005", "NS_ERROR_INVALID_ARG": "0x80070057", "NS_ERROR_FAILURE": "0x80004005",
}

// fake is one run of VBoxManage.
type fake struct {
	dir    string
	config Config
	line   string
	out    strings.Builder

	ctx            context.Context //nolint:containedctx // the life of this one command
	stdout, stderr io.Writer
	english        bool
}

func open(self string) *fake {
	f := &fake{dir: filepath.Dir(self), ctx: context.Background(), stdout: os.Stdout, stderr: os.Stderr, english: english()}
	if data, err := os.ReadFile(filepath.Join(f.dir, "config.json")); err == nil {
		_ = json.Unmarshal(data, &f.config)
	}
	if f.config.Style == "" {
		f.config.Style = Style72
	}
	if f.config.Version == "" {
		f.config.Version = map[string]string{Style52: "5.2.44r139111", Style61: "6.1.0r135406", Style72: "7.2.22_Debianr175245"}[f.config.Style]
	}
	return f
}

// Main is the program; args are without its name.
func Main(self string, args []string) int {
	f := open(self)
	if filepath.Base(self) == Process {
		return f.process(args)
	}
	return f.main(args)
}

func (f *fake) main(args []string) int {
	f.line = strings.Join(args, " ")
	f.note()
	_, _ = io.WriteString(f.stdout, f.config.Preamble)
	for _, part := range f.config.Hang {
		if strings.Contains(f.line, part) {
			f.wait(lifetime)
			return 1
		}
	}
	broken, err := f.broken()
	if err == nil || broken.After {
		if rerr := f.run(args); err == nil {
			err = rerr
		}
	}
	_, _ = io.WriteString(f.stdout, f.out.String())
	if err == nil {
		return 0
	}
	return f.complain(err)
}

func (f *fake) complain(err error) int {
	var bad *failure
	if !errors.As(err, &bad) {
		bad = &failure{text: err.Error(), exit: 1}
	}
	if !f.english {
		bad.text = "Das hat leider nicht geklappt" // whoever reads texts needs them in English
	}
	var b strings.Builder
	defer func() { _, _ = io.WriteString(f.stderr, b.String()) }()
	if strings.HasPrefix(bad.text, "raw:") {
		b.WriteString(strings.TrimPrefix(bad.text, "raw:"))
		return bad.exit
	}
	if bad.exit == 2 && f.config.Style != Style72 {
		fmt.Fprintf(&b, "Usage:\n\nVBoxManage %s\n\nSyntax error: %s\n", strings.Fields(f.line + " ?")[0], bad.text)
		return bad.exit
	}
	fmt.Fprintf(&b, "VBoxManage: error: %s\n", bad.text)
	if bad.code != "" {
		fmt.Fprintf(&b, "VBoxManage: error: Details: code %s (%s), component SessionMachine, interface IMachine, callee nsISupports\n", bad.code, numbers[bad.code])
		fmt.Fprintf(&b, "VBoxManage: error: Context: \"Something(raw())\" at line 1 of file VBoxManage.cpp\n")
	}
	return bad.exit
}

// wait sleeps, and reports whether the command lives on.
func (f *fake) wait(t time.Duration) bool {
	select {
	case <-f.ctx.Done():
		return false
	case <-time.After(t):
		return true
	}
}

func english() bool {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" {
			return strings.HasPrefix(v, "C") || strings.HasPrefix(v, "en") || v == "POSIX"
		}
	}
	return true
}

// note keeps the command's line.
func (f *fake) note() {
	log, err := os.OpenFile(filepath.Join(f.dir, "commands"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, _ = fmt.Fprintln(log, f.line)
		_ = log.Close()
	}
}

// broken looks whether the command is to fail.
func (f *fake) broken() (Failure, error) {
	for n, b := range f.config.Fail {
		if !strings.Contains(f.line, b.Match) {
			continue
		}
		if b.Times > 0 && f.count(n) > b.Times {
			continue
		}
		return b, &failure{text: "raw:" + b.Stderr, exit: b.Code}
	}
	return Failure{}, nil
}

// count tells how often a failure came up.
func (f *fake) count(n int) int {
	file, err := os.OpenFile(filepath.Join(f.dir, fmt.Sprintf("failed-%d", n)), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0
	}
	defer file.Close()
	_, _ = file.Write([]byte{'x'})
	info, err := file.Stat()
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// run does one command.
func (f *fake) run(args []string) error {
	if len(args) == 0 {
		return unknown("no command")
	}
	if args[0] == "--version" {
		f.printf("%s\n", f.config.Version)
		return nil
	}
	commands := map[string]func(*state, []string) error{
		"createvm": f.createvm, "storagectl": f.storagectl, "storageattach": f.storageattach, "modifyvm": f.modifyvm,
		"setextradata": f.setextradata, "sharedfolder": f.sharedfolder, "showvminfo": f.showvminfo, "list": f.list,
		"unregistervm": f.unregistervm, "createmedium": f.createmedium, "closemedium": f.closemedium, "clonemedium": f.clonemedium,
		"convertfromraw": f.convertfromraw, "showmediuminfo": f.showmediuminfo, "modifymedium": f.modifymedium,
		"internalcommands": f.internal, "discardstate": f.discardstate, "snapshot": f.snapshot,
		"registervm": f.registervm, "hostonlyif": f.hostonlyif, "dhcpserver": f.dhcpserver,
	}
	if do := commands[args[0]]; do != nil {
		return f.update(func(s *state) error { return do(s, args[1:]) })
	}
	switch args[0] { // these wait for a machine's process, and so hold no lock
	case "startvm":
		return f.startvm(args[1:])
	case "controlvm":
		return f.controlvm(args[1:])
	}
	return unknown("Invalid command '%s'", args[0])
}

func (f *fake) printf(format string, args ...any) { fmt.Fprintf(&f.out, format, args...) }

// flags reads options: takes says which there are and how many values each has.
// Releases with dashes take --name=value, too.
func flags(args []string, takes map[string]int) (map[string][]string, []string, error) {
	values := map[string][]string{}
	var rest []string
	for n := 0; n < len(args); n++ {
		name, value, joined := strings.Cut(args[n], "=")
		if !strings.HasPrefix(name, "--") {
			rest = append(rest, args[n])
			continue
		}
		count, ok := takes[name]
		switch {
		case !ok:
			return nil, nil, unknown("Unknown option: %s", name)
		case joined && count == 1:
			values[name] = append(values[name], value)
		case n+count >= len(args):
			return nil, nil, unknown("Missing argument for %s", name)
		default:
			values[name] = append(values[name], args[n+1:n+1+count]...)
			if count == 0 {
				values[name] = []string{""}
			}
			n += count
		}
	}
	return values, rest, nil
}

func first(values map[string][]string, name string) string {
	if len(values[name]) == 0 {
		return ""
	}
	return values[name][0]
}

// state is what VirtualBox's service keeps.
type state struct {
	Machines []*vm
	Media    []*medium
	Networks []network
}

type network struct{ Name, DHCP string }

type vm struct {
	UUID, Name, OSType, Folder string
	Props                      map[string]string
	Controllers                []controller
	Slots                      map[string]string
	Rules                      []string
	Shares                     []share
	Extra                      map[string]string
	State, Session             string
	Race                       int
	Snapshots                  []*snap
	Current                    string
	Memory                     *bootsector.Run // saved
}

type controller struct {
	Name, Kind string
	Ports      int
}

type share struct {
	Name, Path, Point string
	ReadOnly          bool
	Links             bool // symbolic links were allowed before it came
}

type snap struct {
	UUID, Name, Parent string
	Time               time.Time
	Memory             *bootsector.Run
	Slots              map[string]string
	Rules              []string
}

func (v *vm) file() string { return filepath.Join(v.Folder, v.Name+".vbox") }

func (v *vm) live() bool {
	return slices.Contains([]string{"starting", "restoring", "running", "paused", "saving", "gurumeditation", "stopping"}, v.State)
}

func (v *vm) inaccessible() bool {
	_, err := os.Stat(v.file())
	return err != nil
}

// update changes the state under its lock. A command that fails changes nothing
// but the races it has seen pass.
func (f *fake) update(do func(*state) error) error {
	lock, err := os.OpenFile(filepath.Join(f.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	for {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return err
	}
	s, err := f.load()
	if err != nil {
		return err
	}
	if err := do(s); err != nil {
		again, lerr := f.load()
		if lerr != nil {
			return lerr
		}
		for _, v := range again.Machines {
			if after := s.machine(v.UUID); after != nil {
				v.Race = after.Race
			}
		}
		return errors.Join(err, f.save(again))
	}
	return f.save(s)
}

func (f *fake) load() (*state, error) {
	s := &state{}
	data, err := os.ReadFile(filepath.Join(f.dir, "state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	if err != nil {
		return nil, err
	}
	for _, v := range s.Machines {
		if v.live() && !f.alive(v.UUID) { // its process was killed
			if v.State == "restoring" {
				v.State = "aborted-saved"
			} else {
				v.State = "aborted"
			}
			v.Session, v.Race = "", 0
		}
	}
	return s, nil
}

func (f *fake) save(s *state) error {
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	for _, v := range s.Machines {
		if v.inaccessible() {
			continue
		}
		if err := v.write(s); err != nil {
			return err
		}
	}
	path := filepath.Join(f.dir, "state.json")
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (s *state) machine(name string) *vm {
	for _, v := range s.Machines {
		if v.UUID == name || v.Name == name {
			return v
		}
	}
	return nil
}

// find returns a machine that is there.
func (s *state) find(name string) (*vm, error) {
	v := s.machine(name)
	if v == nil {
		return nil, refuse("VBOX_E_OBJECT_NOT_FOUND", "Could not find a registered machine with UUID {%s}", name)
	}
	return v, nil
}

// change returns a machine that may be changed now.
func (s *state) change(name string) (*vm, error) {
	v, err := s.find(name)
	switch {
	case err != nil:
		return nil, err
	case v.inaccessible():
		return nil, refuse("E_ACCESSDENIED", "The object functionality is limited")
	case v.Race > 0:
		v.Race--
		return nil, refuse("VBOX_E_INVALID_OBJECT_STATE", "The machine '%s' is already locked by a session (or being locked or unlocked)", v.Name)
	case v.live():
		return nil, refuse("VBOX_E_INVALID_OBJECT_STATE", "The machine '%s' is already locked for a session (or being unlocked)", v.Name)
	}
	return v, nil
}
