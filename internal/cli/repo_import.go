package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/progress"
)

func newRepoImport(a *app) *cobra.Command {
	var from, keys, config, storage string
	cmd := &cobra.Command{
		Use:   "import DIR|URL --repo STORAGE --from-keys DIR",
		Short: "Take over a repository from a cvmfs_server, to publish its next revisions",
		Long: `Take over a repository that a cvmfs_server has published: all of its files, from
its storage directory, from a bucket or over HTTP; its keys; and of its
server.conf what a publication goes by, which 'mica repo publish' follows from
then on. The last element of DIR or URL is the name of the repository. If it lies
in STORAGE already it is taken over where it is.

The source is not changed. Once imported, only one of the two may publish.`,
		Example: `  sudo mica repo import /srv/cvmfs/sw.example.org --repo /srv/mica --from-keys /etc/cvmfs/keys
  mica repo import http://stratum0.example.org/cvmfs/sw.example.org --repo s3://shelf/repos --from-keys ./keys --config ./server.conf`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := publish.ImportOptions{Source: args[0], SourceKeys: from, Config: config, Storage: storage, Now: time.Now, Log: a.log}
			var err error
			if o.Keys, err = a.keysDir(keys); err != nil {
				return err
			}
			path, _, _ := strings.Cut(strings.TrimRight(args[0], "/"), "?")
			o.Name = filepath.Base(path)
			if o.Config == "" {
				// Where the original has it, if this is its server.
				usual := filepath.Join("/etc/cvmfs/repositories.d", o.Name, "server.conf")
				if _, err := os.Stat(usual); err == nil {
					o.Config = usual
				}
			}
			sink, done, err := a.sink()
			if err != nil {
				return err
			}
			o.Progress = repoProgress(sink, o.Name)
			r, err := publish.Import(cmd.Context(), o)
			done()
			if err != nil {
				return publisherError(err)
			}
			for _, warning := range r.Warnings {
				_, _ = fmt.Fprintf(a.Err, "mica: %s\n", warning)
			}
			a.warnWhitelist(o.Name, r.WhitelistExpires)
			where := fmt.Sprintf("%s in %s copied", progress.Size(r.Bytes), count(r.Objects, "object", "objects"))
			if r.InPlace {
				where = "where it is"
			}
			_, err = fmt.Fprintf(a.Out, "%s: took over revision %d, %s\n", o.Name, r.Revision, where)
			return err
		},
	}
	cmd.Flags().StringVar(&storage, "repo", "", "directory or bucket that will have the repository in it")
	cmd.Flags().StringVar(&from, "from-keys", "", "directory of the keys the repository has been published with")
	cmd.Flags().StringVar(&config, "config", "", "its server.conf (default: that of the cvmfs_server on this computer, if there is one)")
	keysFlag(cmd, &keys)
	_ = cmd.MarkFlagRequired("repo")
	_ = cmd.MarkFlagRequired("from-keys")
	return cmd
}
