package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/progress"
)

func newRepoGC(a *app) *cobra.Command {
	var keys string
	var o publish.CollectOptions
	cmd := &cobra.Command{
		Use:   "gc STORAGE/NAME",
		Short: "Remove objects that no kept revision refers to",
		Long: `Remove objects that neither the published revision, nor a tagged one, nor one of
the --revisions before refers to. Every publication tags its revision with its
date, and such a revision is kept: remove the tags first, or have them removed by
mica repo publish --tag-age.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Storage, o.Name, err = splitRepo(args[0]); err != nil {
				return err
			}
			if o.Keys, err = a.keysDir(keys); err != nil {
				return err
			}
			sink, done, err := a.sink()
			if err != nil {
				return err
			}
			o.Now, o.Progress = time.Now, repoProgress(sink, o.Name)
			c, err := publish.Collect(cmd.Context(), o)
			done()
			if err != nil {
				return publisherError(err)
			}
			verb := "removed"
			if o.DryRun {
				verb = "would remove"
				for _, path := range c.Paths {
					if _, err := fmt.Fprintln(a.Out, path); err != nil {
						return err
					}
				}
			}
			_, err = fmt.Fprintf(a.Out, "%s: %s %s (%s), kept %d\n", o.Name, verb, count(c.Removed, "object", "objects"), progress.Size(c.Bytes), c.Kept)
			return err
		},
	}
	keysFlag(cmd, &keys)
	cmd.Flags().IntVar(&o.Revisions, "revisions", 0, "untagged revisions before the published one to keep")
	cmd.Flags().DurationVar(&o.MinAge, "min-age", 24*time.Hour, "keep objects younger than this, whatever refers to them")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "list them, remove nothing")
	return cmd
}
