package amiconfig

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/multipart"
)

// Names are those under which Main answers as another program does.
func Names() []string {
	return []string{"amiconfig", "amiconfig.sh", "amiconfig-mime", "cernvm-online.sh"}
}

// Main is the program: args are its arguments, the name first. Under one of Names
// it answers as that program does.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := program{
		out: os.Stdout, err: os.Stderr, env: os.Getenv, dir: "/",
		open: guest.Open, consoles: func() []string { return consoles("/") },
	}
	return p.main(ctx, args)
}

// program is one invocation, with its world passed in.
type program struct {
	out, err io.Writer
	env      func(string) string
	dir      string // the system the old names work on
	open     func(guest.Options) (*guest.Root, error)
	consoles func() []string
}

func (p program) main(ctx context.Context, args []string) int {
	name, rest := "", args
	if len(args) > 0 {
		name, rest = path.Base(args[0]), args[1:]
	}
	switch name {
	case "amiconfig":
		return p.amiconfig(ctx, rest)
	case "amiconfig.sh":
		return p.amiconfigSh(ctx, rest)
	case "amiconfig-mime":
		return multipart.Main(p.out, p.err, args)
	case "cernvm-online.sh":
		return p.cernvmOnline(ctx, rest)
	case "apply":
		return p.apply(ctx, rest)
	}
	if len(rest) > 0 && rest[0] == "apply" {
		rest = rest[1:]
	}
	return p.apply(ctx, rest)
}

// contextDir is where the boot stages leave the context.
const contextDir = "/mnt/.rw/context"

// apply is `mica-guest apply`.
func (p program) apply(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("mica-guest apply", flag.ContinueOnError)
	flags.SetOutput(p.err)
	var o Options
	dir := flags.String("root", "/", "apply to the system in this `directory`; commands are then not run")
	file := flags.String("context", "", "read the context from this `file` instead of the data disk")
	dry := flags.Bool("dry-run", false, "show what would be done, as JSON, and do nothing")
	asJSON := flags.Bool("json", false, "print the report as JSON")
	flags.BoolVar(&o.Force, "force", false, "apply again what was applied at the first boot")
	flags.BoolVar(&o.NoScripts, "no-scripts", false, "do not run the context's script")
	flags.BoolVar(&o.RunTwice, "compat-double-run", false, "run a script twice where the original amiconfig does")
	flags.DurationVar(&o.ScriptTimeout, "script-timeout", 0, "stop the script after this time")
	verbose := flags.Bool("verbose", false, "log every action to standard error")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		p.say("mica-guest apply: unexpected argument %q", flags.Arg(0))
		return 2
	}
	in, err := readInput(*dir, *file)
	if err != nil {
		p.say("mica-guest apply: %v", err)
		return 1
	}
	if *dry {
		s, err := Simulate(ctx, in.UserData, in)
		if err != nil {
			p.say("mica-guest apply: %v", err)
			return 1
		}
		return p.print(s)
	}
	live := *dir == "/"
	options := guest.Options{Dir: *dir, Live: live, Owners: os.Geteuid() == 0, Log: p.log(*verbose)}
	var tell func(stage.Event)
	if live {
		con := &console{p.consoles()}
		p.alive(&options, con)
		tell = func(e stage.Event) { con.emit(e) }
	}
	rep, err := p.run(ctx, options, in, o, tell)
	if err != nil {
		p.say("mica-guest apply: %v", err)
		return 1
	}
	if *asJSON {
		if code := p.print(rep); code != 0 {
			return code
		}
	} else {
		_, _ = io.WriteString(p.out, rep.Log())
	}
	return rep.ExitCode()
}

// alive gives the options of a running system what it acts through.
func (p program) alive(o *guest.Options, console io.Writer) {
	o.Runner = guest.Exec{}
	o.HTTP = &http.Client{Timeout: 60 * time.Second}
	o.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	o.Console = console
}

// run applies and leaves the report, the log and the last event.
func (p program) run(ctx context.Context, options guest.Options, in Input, o Options, tell func(stage.Event)) (Report, error) {
	root, err := p.open(options)
	if err != nil {
		return Report{}, err
	}
	defer root.Close() //nolint:errcheck // only a directory handle
	if tell == nil {
		tell = func(stage.Event) {}
	}
	o.Emit = tell
	o.Facts = func(ctx context.Context) map[string]string { return facts(ctx, root) }
	tell(stage.Event{Stage: stage.Apply, State: stage.Started, Uptime: uptime(root)})
	rep, err := Apply(ctx, root, in, o)
	if err != nil {
		rep.State, rep.Detail = stage.Failed, "stopped: "+err.Error()
	}
	var errs []error
	reportFile := stateDir + "/apply.json"
	if root.Exists("/mnt/.rw") {
		reportFile = "/mnt/.rw/ulogs/apply.json"
	}
	errs = append(errs, root.WriteState(reportFile, rep.JSON()))
	errs = append(errs, root.AppendFile(path.Join(logDir, "apply.log"), []byte(rep.Log())))
	event := stage.Event{Stage: stage.Apply, State: rep.State, Seconds: rep.Seconds, Uptime: uptime(root), Detail: rep.Detail, Facts: rep.Facts}
	if rep.State == stage.Failed || rep.State == stage.Warned {
		event.Remedy = "see " + logDir + "/apply.log in the machine"
	}
	tell(event)
	for _, err := range errs {
		if err != nil {
			p.say("mica-guest apply: %v", err)
		}
	}
	return rep, nil
}

// readInput reads what the boot stages left, below dir, or a file of the user's.
func readInput(dir, file string) (Input, error) {
	root, err := guest.Open(guest.Options{Dir: dir, Pretend: true})
	if err != nil {
		return Input{}, err
	}
	defer root.Close() //nolint:errcheck // only a directory handle
	var in Input
	if data, err := root.ReadFile(contextDir + "/meta.json"); err == nil {
		var meta struct {
			InstanceID string   `json:"instance_id"`
			Hostname   string   `json:"hostname"`
			PublicKeys []string `json:"public_keys"`

			Values map[string]string `json:"values"`
		}
		if err := json.Unmarshal(data, &meta); err != nil {
			return Input{}, fmt.Errorf("reading %s/meta.json: %w", contextDir, err)
		}
		in.InstanceID, in.Hostname, in.PublicKeys, in.Values = meta.InstanceID, meta.Hostname, meta.PublicKeys, meta.Values
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Input{}, err
	}
	if file != "" {
		in.UserData, err = readUserFile(file)
		return in, err
	}
	for _, name := range []string{contextDir + "/extra-user-data", "/cernvm/extra-user-data"} {
		in.Extra, err = root.ReadFile(name)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Input{}, err
		}
	}
	in.UserData, err = root.ReadFile(contextDir + "/user-data")
	if errors.Is(err, fs.ErrNotExist) { // a machine without a context still gets its keys
		return in, nil
	}
	return in, err
}

func readUserFile(file string) ([]byte, error) {
	f, err := os.Open(file) //nolint:gosec // named by the person who runs this
	if err != nil {
		return nil, fmt.Errorf("reading the context: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, usercontext.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading the context: %w", err)
	}
	if len(data) > usercontext.MaxSize {
		return nil, fmt.Errorf("reading the context %s: %w", file, usercontext.ErrTooLarge)
	}
	return data, nil
}

func (p program) log(verbose bool) *slog.Logger {
	if !verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(p.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (p program) say(format string, args ...any) {
	_, _ = fmt.Fprintf(p.err, format+"\n", args...)
}

func (p program) print(v any) int {
	enc := json.NewEncoder(p.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		p.say("mica-guest apply: %v", err)
		return 1
	}
	return 0
}

// uptime is how long the kernel has been running, 0 where it does not say.
func uptime(root *guest.Root) float64 {
	data, err := root.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	var seconds float64
	if _, err := fmt.Sscanf(strings.TrimSpace(string(data)), "%g", &seconds); err != nil {
		return 0
	}
	return seconds
}
