package guest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Kind says what sort of thing an Action did.
type Kind string

// The kinds.
const (
	KindFile      Kind = "file"      // Target was written
	KindDirectory Kind = "directory" // Target was made
	KindLink      Kind = "link"      // Target now points to Detail
	KindAttr      Kind = "attributes"
	KindRemove    Kind = "remove"
	KindUser      Kind = "user"     // account Target was made
	KindAccount   Kind = "account"  // account Target was changed, Detail says how
	KindGroup     Kind = "group"    // group Target was made
	KindPassword  Kind = "password" // account Target got a password; Detail says of what kind, never which
	KindService   Kind = "service"  // Detail (enable, start, restart, reload) was asked for Target
	KindCommand   Kind = "command"  // the command line Target ran
	KindMount     Kind = "mount"    // Detail was mounted on Target
	KindSysctl    Kind = "sysctl"   // kernel parameter Target was set to Detail
	KindHostname  Kind = "hostname" // the machine is now called Target
	KindNetwork   Kind = "network"  // Target was asked for over the network
)

// Action is one thing that was done.
type Action struct {
	Kind   Kind   `json:"kind"`
	Target string `json:"target"`
	Detail string `json:"detail,omitempty"`
	Mode   string `json:"mode,omitempty"`  // files and directories, octal
	Owner  string `json:"owner,omitempty"` // files and directories, "uid:gid"
	Secret bool   `json:"secret,omitempty"`
}

// Doer sends one HTTP request; *http.Client is one.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Options says which Root to open and what stands behind it. The zero value is
// a Root over "/" that records commands without running any.
type Options struct {
	Dir     string // "" is "/"
	Live    bool   // Dir is the root of this very system: kernel state may be set
	Pretend bool   // run nothing and take every program as present
	Runner  Runner // what runs programs; nil is like Pretend for programs alone
	HTTP    Doer   // nil: requests are recorded, not sent
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	Console io.Writer // where a person at the machine reads notices; nil discards
	Log     *slog.Logger
	Now     func() time.Time
	Rand    io.Reader // salts, generated passwords, names of temporary files
	// Owners says to hand files to their owners, which needs root; without it
	// owners are recorded only.
	Owners bool
	// Volatile says that files need not survive a loss of power: for trees that
	// are thrown away.
	Volatile bool
}

// Root is the operating system below one directory. Make it with Open.
type Root struct {
	dir     *os.Root
	options Options
	actions []Action
	owners  map[string][2]int // what files should belong to, where Options.Owners is off
}

// Open opens the Root that o describes. Close it.
func Open(o Options) (*Root, error) {
	if o.Dir == "" {
		o.Dir = "/"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Console == nil {
		o.Console = io.Discard
	}
	if o.Pretend {
		o.Runner, o.HTTP, o.Dial, o.Live = nil, nil, nil, false
	}
	dir, err := os.OpenRoot(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the system at %q: %w", o.Dir, err)
	}
	return &Root{dir: dir, options: o, owners: map[string][2]int{}}, nil
}

// Close releases the directory.
func (r *Root) Close() error { return r.dir.Close() }

// Live reports whether the Root is the running system itself.
func (r *Root) Live() bool { return r.options.Live }

// Pretend reports whether nothing is run.
func (r *Root) Pretend() bool { return r.options.Pretend }

// Now returns the time.
func (r *Root) Now() time.Time { return r.options.Now() }

// Log returns the logger, never nil.
func (r *Root) Log() *slog.Logger { return r.options.Log }

// Actions returns what was done since the Root was opened, oldest first.
func (r *Root) Actions() []Action { return r.actions }

// Note records an action. Plugins call it for things that no other method does.
func (r *Root) Note(a Action) {
	r.actions = append(r.actions, a)
	r.options.Log.Debug("did", "kind", a.Kind, "target", a.Target, "detail", a.Detail)
}

// Notice tells a person at the machine's console one thing, once.
func (r *Root) Notice(format string, args ...any) {
	_, _ = fmt.Fprintf(r.options.Console, "\r\n"+format+"\r\n", args...)
}

// HostPath returns name as a path of the system the agent runs on, for handing
// to a program. Symbolic links in it are not resolved.
func (r *Root) HostPath(name string) string {
	return filepath.Join(r.options.Dir, path.Clean("/"+name))
}

// Random returns n characters of [a-z0-9], for names and passwords.
func (r *Root) Random(n int) (string, error) {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	var b strings.Builder
	var one [1]byte
	for b.Len() < n {
		if _, err := io.ReadFull(r.options.Rand, one[:]); err != nil {
			return "", fmt.Errorf("reading random bytes: %w", err)
		}
		if int(one[0]) < 256/len(alphabet)*len(alphabet) { // no bias towards the first letters
			b.WriteByte(alphabet[int(one[0])%len(alphabet)])
		}
	}
	return b.String(), nil
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// IsUUID reports whether text has the form of UUID's result.
func IsUUID(text string) bool { return uuidForm.MatchString(text) }

// UUID returns a random identifier (RFC 9562, version 4).
func (r *Root) UUID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(r.options.Rand, b[:]); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}
