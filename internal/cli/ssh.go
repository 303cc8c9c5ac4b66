package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

func newSSH(a *app) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "ssh NAME [-- COMMAND...]",
		Short: "Log in to a machine, or run a command in it",
		Long: `Log in with the system's ssh program and the machine's own key. The host's key
is the one the machine told over its console. The exit code is that of the
command that ran in the machine.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at > 1 || at < 0 && len(args) > 1 {
				return fail.New(fail.Usage, "what is %q?", args[1]).Hint("write the command after --, as in: mica ssh %s -- %s", args[0], strings.Join(args[1:], " "))
			}
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			login, err := fleet.Login(cmd.Context(), args[0], machine.DoSSH)
			if err != nil {
				return err
			}
			if user != "" {
				login.User = user
			}
			return a.login(cmd.Context(), login, args[1:])
		},
	}
	cmd.Flags().StringVarP(&user, "user", "l", "", "log in as this user; default: the first one of the context, or root")
	return cmd
}

func (a *app) login(ctx context.Context, login machine.Login, command []string) error {
	if login.Port == 0 {
		return fail.New(fail.Usage, "%q was created without a port for SSH", login.Name).Hint("'mica console %s' needs none", login.Name)
	}
	program, err := exec.LookPath("ssh")
	if err != nil {
		return fail.New(fail.HostLacks, "there is no ssh program on this computer").
			Hint("install OpenSSH's client: package openssh-client, or openssh-clients").
			Hint("'mica ssh-config %s' says what another client needs", login.Name)
	}
	// Not through package run: ssh takes over this program's terminal.
	cmd := exec.CommandContext(ctx, program, login.Args(command)...) //nolint:gosec // arguments, not a shell's line
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.In, a.Out, a.Err
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		if code := exit.ExitCode(); code > 0 {
			return exitCode(code)
		}
	}
	if err != nil {
		return fmt.Errorf("running ssh: %w", err)
	}
	return nil
}

func newSSHConfig(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh-config NAME",
		Short: "Print how to reach a machine, for ~/.ssh/config",
		Long: `Print a section for ssh's configuration file, so that ssh, scp, rsync and
editors reach the machine by name.`,
		Example: "  mica ssh-config demo >> ~/.ssh/config; scp file mica-demo:",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			login, err := fleet.Login(cmd.Context(), args[0], "")
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.Out, login.Config())
			return err
		},
	}
}
