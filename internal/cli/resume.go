package cli

import "github.com/spf13/cobra"

func newResume(a *app) *cobra.Command {
	return a.pauser("resume", "Let paused machines go on", false, "running")
}
