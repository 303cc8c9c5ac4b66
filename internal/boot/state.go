package boot

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/micavm/mica/internal/boot/cmdline"
	"github.com/micavm/mica/internal/boot/console"
	"github.com/micavm/mica/internal/boot/disk"
	"github.com/micavm/mica/internal/boot/modules"
	"github.com/micavm/mica/internal/boot/network"
	"github.com/micavm/mica/internal/boot/repository"
	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/source"
)

// Where things are while the initramfs is the root. Compat: the three roots are
// those of cernvm-micro, which its users know from the debug shell.
const (
	targetRoot = "/root"    // the union, the operating system's root to be
	readWrite  = "/root.rw" // UROOT, later mnt/.rw of the union
	readOnly   = "/root.ro" // the repository, later mnt/.ro of the union

	runDir    = "/run/initramfs" // moves along to the operating system
	guestFile = stage.Program

	buildTime = "/etc/mica/build-time"
	keysDir   = "/etc/cvmfs/keys"
	scanRoot  = "/run/mica/scan" // where media are mounted for a look
)

// state is what the stages hand on to each other. A field is written by the
// stage named in its group, and read only by stages that need that one.
type state struct {
	cmd  cmdline.Line
	con  *console.Console
	rec  *Record
	log  *slog.Logger
	self string // this program's file

	// modules
	loadMu sync.Mutex // guards loader: late devices load modules while stages run
	loader *modules.Loader

	// scan
	devices []disk.Device
	local   source.Found       // a context on media or in firmware
	extra   source.Extra       // a context on the boot medium itself
	static  []source.Interface // an OpenNebula context's network

	// network
	links   []network.Link
	configs []network.Config // those that work, the first carries the default route

	// disk, format
	uroot   disk.UROOT
	mounted bool   // UROOT is mounted
	rwDir   string // where; the union stage moves it
	fresh   bool   // UROOT was made on this boot

	// context
	found   source.Found // what the platform says now; kept on UROOT if new
	keep    bool         // found is new and is to be kept
	source  string       // of the context in force
	context *usercontext.Context
	keys    usercontext.BootKeys
	keyErr  []usercontext.Problem
	shares  []source.Share // folders of the host, as the platform said when the context was read
	newSelf bool           // this machine is a new one: first boot, or a copy of another's disk

	// repository
	set   Settings
	ready repository.Ready

	// handover
	init string
}

// rw returns a path on UROOT.
func (s *state) rw(elem ...string) string {
	dir := s.rwDir
	if dir == "" {
		dir = readWrite
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}

// online reports whether the network stage found a network.
func (s *state) online() bool { return len(s.configs) > 0 }

// load loads a kernel module that a stage needs; one that is built in or missing
// shows when it is used.
func (s *state) load(names ...string) {
	s.loadMu.Lock()
	defer s.loadMu.Unlock()
	if s.loader == nil {
		return
	}
	for _, name := range names {
		if err := s.loader.Load(name); err != nil && !errors.Is(err, modules.ErrUnknown) {
			s.rec.note("%v", err)
		}
	}
}

// run runs a program of the image to its end.
func (s *state) run(ctx context.Context, argv []string) ([]byte, int, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C"}
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, exit.ExitCode(), nil
	}
	return out, 0, err
}

// searchPath is PATH in the initramfs and of the debug shell.
const searchPath = "/run/initramfs/bin:/bin:/sbin:/usr/bin:/usr/sbin"

// uptime is the time since the kernel started, in seconds.
func uptime() float64 {
	data, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(data), " ")
	d, err := time.ParseDuration(first + "s")
	if err != nil {
		return 0
	}
	return milliseconds(d.Seconds())
}
