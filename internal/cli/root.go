package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/usercontext/multipart"
)

// IO is the world of one invocation, so that tests run commands in process.
type IO struct {
	In  io.Reader
	Out io.Writer // the result
	Err io.Writer // everything else
	Env func(string) string
}

// app is what every command shares.
type app struct {
	IO
	log      *slog.Logger
	verbose  bool
	progress string     // auto, lines, jsonl, none
	mu       sync.Mutex // guards Out and Err where machines are worked on at the same time
}

// Main runs the command line args (args[0] is the program's name) and returns
// the exit code. It prints the error itself. Under the name of a program that
// Mica replaces it answers as that one does.
func Main(ctx context.Context, stdio IO, args []string) int {
	switch programName(args[0]) {
	case "amiconfig-mime":
		return multipart.Main(stdio.Out, stdio.Err, args)
	case "cernvm-launch":
		return cernvmLaunch(ctx, stdio, slog.New(slog.DiscardHandler), args[1:])
	}
	err := New(stdio, args).ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var code exitCode
	if errors.As(err, &code) { // another program's own code, which has already spoken
		return int(code)
	}
	_, _ = fmt.Fprintf(stdio.Err, "mica: %v\n", err)
	for _, hint := range fail.Hints(err) {
		_, _ = fmt.Fprintf(stdio.Err, "hint: %s\n", hint)
	}
	return int(fail.ClassOf(err))
}

// exitCode ends the program with a code and without a message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// New builds the command tree afresh.
func New(stdio IO, args []string) *cobra.Command {
	a := &app{IO: stdio, log: slog.New(slog.DiscardHandler)}
	root := &cobra.Command{
		Use:   "mica",
		Short: "Make, describe, keep and run micro virtual appliances",
		Long: `Mica makes, describes, keeps and runs micro virtual appliances: a small boot
image that pulls its operating system on demand from a CernVM-FS repository and
takes its role from one text file, the context.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		PersistentPreRun: func(*cobra.Command, []string) {
			if a.verbose {
				a.log = slog.New(slog.NewTextHandler(a.Err, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args[1:])
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fail.New(fail.Usage, "%w", err).Hint("see '%s --help'", cmd.CommandPath())
	})
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log what is done to standard error")
	root.PersistentFlags().StringVar(&a.progress, "progress", "auto", "how long work is shown: auto, lines, jsonl or none")
	root.AddCommand(commands(a)...)
	usageErrors(root)
	a.completions(root)
	return root
}

// commands is the list of everything mica can do.
func commands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newCreate(a),
		newImport(a),
		newList(a),
		newShow(a),
		newStart(a),
		newStop(a),
		newPause(a),
		newResume(a),
		newRestart(a),
		newSSH(a),
		newSSHConfig(a),
		newConsole(a),
		newScreen(a),
		newLogs(a),
		newWhy(a),
		newReport(a),
		newSnapshot(a),
		newForward(a),
		newShare(a),
		newClone(a),
		newResize(a),
		newRename(a),
		newDestroy(a),
		newGC(a),
		newDoctor(a),
		newImage(a),
		newLaunch(a),
		newMetadata(a),
		newContext(a),
		newRepo(a),
		newMan(a),
		newVersion(a),
	}
}

// usageErrors gives cobra's own complaints about arguments their exit code.
func usageErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fail.New(fail.Usage, "%w", err).Hint("see '%s --help'", c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		usageErrors(sub)
	}
}

// sink returns where long work reports to, and a function that ends the display.
func (a *app) sink() (progress.Sink, func(), error) {
	switch a.progress {
	case "none":
		return progress.Discard, func() {}, nil
	case "jsonl":
		return progress.JSON(a.Err), func() {}, nil
	case "lines":
		return progress.Lines(a.Err), func() {}, nil
	case "auto":
		if !isTerminal(a.Err) {
			return progress.Lines(a.Err), func() {}, nil
		}
		bars := progress.NewBars(a.Err)
		return bars, bars.Wait, nil
	}
	return nil, nil, fail.New(fail.Usage, "unknown --progress %q", a.progress).Hint("use auto, lines, jsonl or none")
}
