package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/progress"
)

// The exit codes of the original.
const (
	codeOK        = 0
	codeUsage     = 1 // wrong arguments; help; no arguments
	codeConfig    = 2 // the creation configuration cannot be read
	codeOperation = 3 // no such operation
	codeFailed    = 4
)

// Program is one invocation's world.
type Program struct {
	Version  string
	In       io.Reader
	Out, Err io.Writer
	Terminal bool // In is a terminal: somebody can answer
	Getenv   func(string) string
	Drivers  *machine.Registry
	Progress progress.Sink // nil writes lines to Err
	Settle   func()        // ends the display of progress before the result is written; nil does nothing
	Log      *slog.Logger  // nil discards

	// SSH runs the program at path with argv (argv[0] is its name) in place of
	// this one. It returns only on failure or, where a process cannot be
	// replaced, with the exit code.
	SSH func(ctx context.Context, path string, argv []string) (int, error)

	system string // runtime.GOOS; tests say another
}

// coded is an error that ends the program with another code than 4.
type coded struct {
	code int
	err  error // nil where everything has been said
}

func (c *coded) Error() string {
	if c.err == nil {
		return fmt.Sprintf("exit code %d", c.code)
	}
	return c.err.Error()
}

func (c *coded) Unwrap() error { return c.err }

func usage(format string, args ...any) error {
	return &coded{codeUsage, fail.New(fail.Usage, format, args...)}
}

// spoken ends the program with a code and without another word.
func spoken(code int) error { return &coded{code: code} }

// Main carries out args, the command line without the program's name, and
// returns the exit code.
func (p *Program) Main(ctx context.Context, args []string) int {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	if p.Progress == nil {
		p.Progress = progress.Lines(p.Err)
	}
	if p.Getenv == nil {
		p.Getenv = func(string) string { return "" }
	}
	if p.system == "" {
		p.system = runtime.GOOS
	}
	err := p.dispatch(ctx, args)
	p.settled()
	if err == nil {
		return codeOK
	}
	code := codeFailed
	var c *coded
	switch {
	case errors.As(err, &c):
		code = c.code
		if c.err == nil {
			return code
		}
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		code = int(fail.Interrupted)
	}
	p.tell("%s", oneLine(err.Error()))
	for _, hint := range fail.Hints(err) {
		p.tell("hint: %s", oneLine(hint))
	}
	return code
}

func (p *Program) settled() {
	if p.Settle != nil {
		p.Settle()
	}
}

func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// say writes what the original writes to standard output.
func (p *Program) say(format string, args ...any) { _, _ = fmt.Fprintf(p.Out, format+"\n", args...) }

// tell writes a line to standard error.
func (p *Program) tell(format string, args ...any) { _, _ = fmt.Fprintf(p.Err, format+"\n", args...) }

const usageText = `Usage: cernvm-launch OPERATION [ARGUMENTS]
	create	[--no-start] [--wait] [--name NAME] [--cpus N] [--memory MB] [--disk MB] [--iso PATH] [--sharedFolder PATH] [USER_DATA_FILE] [CONFIG_FILE]
		Make a machine from a context, and start it; with --wait, until its SSH server answers.
	destroy	[--force] NAME
		Remove a machine and its disks.
	import	[--no-start] [--wait] [--name NAME] [--memory MB] [--disk MB] [--cpus N] [--sharedFolder PATH] OVA_FILE [CONFIG_FILE]
		Make a machine from an OVA appliance.
	list	[NAME | --running | -l | --json [NAME]]
		Show all machines, those that run, or one in detail; with -l their state and driver, too.
	logs	NAME
		Show what a machine has written to its console.
	pause	NAME
	prune	[--force]
		Remove the records and folders of machines that are gone or were never finished.
	ssh	[user@]NAME [COMMAND...]
	start	[--wait] NAME
	stop	[--shutdown | --poweroff] NAME
		Save the machine's memory to disk and end it; or have it shut down; or switch it off.
	-v, --version
	-h, --help`

// operation is one word of the command line.
type operation func(s *session, ctx context.Context, args []string) error

func operations() map[string]operation {
	return map[string]operation{
		"create": (*session).create, "import": (*session).importOVA, "list": (*session).list, "destroy": (*session).destroy,
		"start": (*session).start, "pause": (*session).pause, "stop": (*session).stop, "ssh": (*session).ssh,
		"logs": (*session).logs, "prune": (*session).prune,
	}
}

// dispatch finds the operation.
//
// Compat: help, asked for or not, ends with code 1 (cernvm-launch: src/main.cpp).
//
// Differs: the original asks for its base folder and writes its configuration
// before it looks at the operation; a version or a typing error needs neither.
func (p *Program) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		p.say("%s", usageText)
		return spoken(codeUsage)
	}
	switch args[0] {
	case "-v", "--version":
		p.say("CernVM-Launch %s", p.Version)
		return nil
	}
	run, ok := operations()[args[0]]
	if !ok {
		p.tell("Invalid operation: %s", args[0])
		p.tell("The operations are: %s\n", strings.Join(slices.Sorted(maps.Keys(operations())), ", "))
		p.say("%s", usageText)
		return spoken(codeOperation)
	}
	s, err := p.open(ctx)
	if err != nil {
		return err
	}
	return run(s, ctx, args[1:])
}
