package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/fail"
)

func newRepoResign(a *app) *cobra.Command {
	var keys string
	var days int
	cmd := &cobra.Command{
		Use:   "resign STORAGE/NAME",
		Short: "Sign a new whitelist for a repository",
		Long: `Sign a new whitelist with the master key, so that readers accept the repository
for another while. Publishing does so by itself where the master key is there.
If the repository's key and certificate have been replaced, the manifest is
signed with the new ones.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			storage, name, err := splitRepo(args[0])
			if err != nil {
				return err
			}
			dir, err := a.keysDir(keys)
			if err != nil {
				return err
			}
			const most = 36500
			if days < 1 || days > most {
				return fail.New(fail.Usage, "--days %d is not between 1 and %d", days, most)
			}
			w, err := publish.Resign(cmd.Context(), publish.ResignOptions{
				Storage: storage, Name: name, Keys: dir, Lifetime: time.Duration(days) * 24 * time.Hour, Now: time.Now,
			})
			if err != nil {
				return publisherError(err)
			}
			_, err = fmt.Fprintf(a.Out, "%s: whitelist good until %s\n", name, w.Expires.Format(time.RFC3339))
			return err
		},
	}
	keysFlag(cmd, &keys)
	cmd.Flags().IntVar(&days, "days", 30, "how long it is good for")
	return cmd
}
