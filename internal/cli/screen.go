package cli

import (
	"bytes"
	"io"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
)

func newScreen(a *app) *cobra.Command {
	var picture string
	cmd := &cobra.Command{
		Use:   "screen NAME",
		Short: "Say where a machine's screen can be watched, or take a picture of it",
		Long: `Print the URL at which the machine's screen can be watched, such as
vnc://127.0.0.1:5900. With --png take a picture of it instead.`,
		Example: `  mica screen demo
  mica screen demo --png demo.png`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			if picture == "" {
				url, err := fleet.View(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.print("%s", url)
			}
			if picture == "-" && isTerminal(a.Out) {
				return fail.New(fail.Usage, "a picture is nothing for a terminal").Hint("name a file, or send standard output to one")
			}
			var shot bytes.Buffer
			if err := fleet.Screenshot(cmd.Context(), args[0], &shot); err != nil {
				return err
			}
			if picture == "-" {
				_, err := io.Copy(a.Out, &shot)
				return err
			}
			return atomicfile.Write(picture, shot.Bytes(), 0o644)
		},
	}
	cmd.Flags().StringVar(&picture, "png", "", "write a picture to this file, - for standard output")
	return cmd
}
