package cli

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/fail"
)

func newRepoCreate(a *app) *cobra.Command {
	var keys, algorithm string
	var ttl, lifetime time.Duration
	cmd := &cobra.Command{
		Use:   "create STORAGE/NAME",
		Short: "Create an empty repository",
		Long: `Create an empty repository in a directory, and its keys if there are none for
its name. NAME.pub among the keys is what readers need; NAME.masterkey is what
everything hangs on, and may be kept elsewhere once the repository exists.`,
		Example: `  mica repo create /srv/cvmfs/sw.example.org --keys /etc/mica/keys`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			storage, name, err := splitRepo(args[0])
			if err != nil {
				return err
			}
			dir, err := a.keysDir(keys)
			if err != nil {
				return err
			}
			hash, err := cvmfs.ParseAlgorithm(algorithm)
			if err != nil {
				return fail.New(fail.Usage, "--hash: %w", err).Hint("use sha1, rmd160 or shake128")
			}
			stamp, err := a.stamp()
			if err != nil {
				return err
			}
			err = publish.Create(cmd.Context(), publish.CreateOptions{
				Storage: storage, Name: name, Keys: dir, TTL: ttl, Algorithm: hash, Lifetime: lifetime, Now: time.Now, Stamp: stamp,
			})
			if err != nil {
				return publisherError(err)
			}
			_, err = fmt.Fprintf(a.Out, "created %s\npublic key: %s\n", filepath.Join(storage, name), filepath.Join(dir, name+".pub"))
			return err
		},
	}
	keysFlag(cmd, &keys)
	cmd.Flags().StringVar(&algorithm, "hash", "sha1", "hash algorithm: sha1, rmd160 or shake128")
	cmd.Flags().DurationVar(&ttl, "ttl", publish.DefaultTTL, "how long readers wait before they look for news")
	cmd.Flags().DurationVar(&lifetime, "whitelist", publish.DefaultWhitelistLifetime, "how long the whitelist is good for")
	return cmd
}
