package cli

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/launch"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/all"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/version"
)

// programName is the name the program was called by.
func programName(path string) string {
	return strings.TrimSuffix(strings.ToLower(filepath.Base(path)), ".exe")
}

// cernvmLaunch answers as the original cernvm-launch does; args are without the
// program's name.
func cernvmLaunch(ctx context.Context, stdio IO, log *slog.Logger, args []string) int {
	p := &launch.Program{
		Version: version.Number,
		In:      stdio.In, Out: stdio.Out, Err: stdio.Err, Getenv: stdio.Env, Terminal: isTerminal(stdio.In),
		Drivers: all.Drivers(machine.Env{Run: run.Host{Log: log}, Log: log, Getenv: stdio.Env}),
		Log:     log, SSH: launch.Exec,
	}
	if isTerminal(stdio.Err) {
		bars := progress.NewBars(stdio.Err)
		p.Progress, p.Settle = bars, sync.OnceFunc(bars.Wait)
	}
	return p.Main(ctx, args)
}

func newLaunch(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "launch OPERATION [ARGUMENTS]",
		Short: "Answer as cernvm-launch does, with its files and machines",
		Long: `Answer as the original cernvm-launch does: the same operations, options, prompts,
lines and exit codes, the same configuration (~/.cernvm-launch.conf) and the same
machines. 'mica launch help' lists the operations. Called as cernvm-launch, by a
link of that name, the program does the same.`,
		Example:            "  ln -s $(command -v mica) ~/bin/cernvm-launch\n  mica launch create --name worker worker.context",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := cernvmLaunch(cmd.Context(), a.IO, a.log, args); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}
