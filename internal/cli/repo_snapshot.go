package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
)

// replicated is what 'repo snapshot' prints.
type replicated struct {
	Schema      int      `json:"schema"`
	Name        string   `json:"name"`
	Revision    uint64   `json:"revision"`
	RootHash    string   `json:"root_hash"`
	Unchanged   bool     `json:"unchanged"`
	Tags        int      `json:"tags"`
	Catalogs    int64    `json:"catalogs"`
	Objects     int64    `json:"objects"`
	BytesStored int64    `json:"bytes_stored"`
	Warnings    []string `json:"warnings"`
}

func newRepoSnapshot(a *app) *cobra.Command {
	var keys, key, output string
	var o publish.ReplicateOptions
	cmd := &cobra.Command{
		Use:   "snapshot URL STORAGE/NAME",
		Short: "Copy a repository from another server, or bring the copy up to date",
		Long: `Make STORAGE/NAME a replica of the repository at URL, or bring it up to date: the
published revision, every tagged one, and with --history those before. Everything
is verified with the public master key. What is there already is not copied
again, so that a snapshot that was cut short goes on where it ended; readers of
the replica see the new revision once all of it is there.

URL may also be a directory, file:///DIR or s3://BUCKET/PREFIX/NAME. It must have
the file .cvmfs_master_replica, by which its owner lets it be replicated.`,
		Example: `  mica repo snapshot http://stratum0.example.org/cvmfs/sw.example.org /srv/cvmfs/sw.example.org --key sw.example.org.pub`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return fail.New(fail.Usage, "unknown --output %q", output).Hint("use table or json")
			}
			var err error
			if o.Storage, o.Name, err = splitRepo(args[1]); err != nil {
				return err
			}
			if o.MasterKeys, err = a.publicKeys(key, keys, o.Name); err != nil {
				return err
			}
			if o.MasterKeys == nil {
				return fail.New(fail.Usage, "no public master key of %q to verify with", o.Name).Hint("give it with --key FILE")
			}
			sink, done, err := a.sink()
			if err != nil {
				return err
			}
			o.Source, o.Now, o.Progress, o.Log = args[0], time.Now, repoProgress(sink, o.Name), a.log
			r, err := publish.Replicate(cmd.Context(), o)
			done()
			if err != nil {
				return publisherError(err)
			}
			return a.printReplicated(o.Name, output, r)
		},
	}
	keysFlag(cmd, &keys)
	cmd.Flags().StringVar(&key, "key", "", "file with the public master key to verify with")
	cmd.Flags().IntVar(&o.History, "history", 0, "how many untagged revisions before the published one to copy")
	cmd.Flags().BoolVar(&o.Recheck, "recheck", false, "look for the objects of catalogues that are there already, too")
	cmd.Flags().BoolVar(&o.Unmarked, "unmarked", false, "copy a repository that has no .cvmfs_master_replica")
	cmd.Flags().IntVar(&o.Workers, "transfers", 16, "objects on their way at a time")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "how to print the result: table or json")
	return cmd
}

func (a *app) printReplicated(name, output string, r *publish.Replicated) error {
	if output == "json" {
		p := replicated{
			Schema: 1, Name: name, Revision: r.Revision, RootHash: r.RootHash.String(), Unchanged: r.Unchanged, Tags: r.Tags,
			Catalogs: r.Catalogs, Objects: r.Objects, BytesStored: r.Bytes, Warnings: r.Warnings,
		}
		if p.Warnings == nil {
			p.Warnings = []string{}
		}
		return printJSON(a.Out, p)
	}
	for _, warning := range r.Warnings {
		_, _ = fmt.Fprintf(a.Err, "mica: %s\n", warning)
	}
	a.warnWhitelist(name, r.WhitelistExpires)
	if r.Unchanged && r.Objects == 0 {
		_, err := fmt.Fprintf(a.Out, "%s: revision %d is there already\n", name, r.Revision)
		return err
	}
	_, err := fmt.Fprintf(a.Out, "%s: copied revision %d: %s in %s, %s\n", name, r.Revision,
		progress.Size(r.Bytes), count(r.Objects, "object", "objects"), count(r.Catalogs, "new catalogue", "new catalogues"))
	return err
}
