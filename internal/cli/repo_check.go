package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
)

func newRepoCheck(a *app) *cobra.Command {
	var keys, key, output string
	var data bool
	cmd := &cobra.Command{
		Use:   "check STORAGE/NAME",
		Short: "Verify a repository: signatures, catalogues, links, counts, objects",
		Long: `Verify the published revision of a repository and every tagged one: signatures,
the structure of catalogues, link counts and counters, and that every object is
there; with --data also that it has the bytes its name says. What does not hold
is listed, and the exit code is 6.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			storage, name, err := splitRepo(args[0])
			if err != nil {
				return err
			}
			public, err := a.publicKeys(key, keys, name)
			if err != nil {
				return err
			}
			sink, done, err := a.sink()
			if err != nil {
				return err
			}
			report, err := publish.Check(cmd.Context(), publish.CheckOptions{
				Storage: storage, Name: name, MasterKeys: public, Data: data, Now: time.Now, Progress: repoProgress(sink, name),
			})
			done()
			if err != nil {
				return publisherError(err)
			}
			if public == nil {
				_, _ = fmt.Fprintf(a.Err, "mica: signatures of %q not checked, there is no public key\n", name)
			}
			if len(report.Problems) > 0 || output != "table" && output != "wide" {
				if err := problemListing(report.Problems).print(a.Out, output); err != nil {
					return err
				}
			}
			if n := int64(len(report.Problems)); n > 0 {
				return fail.New(fail.Unverified, "%s in repository %q", count(n, "problem", "problems"), name).
					Hint("publishing the same tree again with --checksum stores missing objects anew")
			}
			_, _ = fmt.Fprintf(a.Err, "%s: revision %d is good: %s, %s, %s of %s\n", name, report.Revision, count(report.Catalogs, "catalogue", "catalogues"),
				count(report.Entries, "entry", "entries"), count(report.Objects, "object", "objects"), progress.Size(report.Bytes))
			return nil
		},
	}
	keysFlag(cmd, &keys)
	cmd.Flags().StringVar(&key, "key", "", "file with the public master key to verify with")
	cmd.Flags().BoolVar(&data, "data", false, "read every object and compare its hash")
	outputFlag(cmd, &output)
	return cmd
}

func problemListing(problems []publish.Problem) listing[publish.Problem] {
	col := func(head string, cell func(publish.Problem) string) column[publish.Problem] {
		return column[publish.Problem]{head: head, cell: cell}
	}
	return listing[publish.Problem]{
		Schema: 1, Items: problems,
		name: func(p publish.Problem) string { return printable(p.Path) },
		columns: []column[publish.Problem]{
			col("REVISION", func(p publish.Problem) string { return p.Revision }),
			col("PATH", func(p publish.Problem) string { return printable(p.Path) }),
			col("PROBLEM", func(p publish.Problem) string { return printable(p.Text) }),
		},
	}
}
