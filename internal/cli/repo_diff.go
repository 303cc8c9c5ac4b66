package cli

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/history"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/fail"
)

// changeRow is one difference of a listing.
type changeRow struct {
	Change string `json:"change"` // added, removed or changed
	Path   string `json:"path"`
	From   int64  `json:"size_before"`
	To     int64  `json:"size_after"`
}

func newRepoDiff(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "diff STORAGE/NAME [FROM [TO]]",
		Short: "List what differs between two revisions",
		Long: `List what differs between two revisions of a repository, each given by a tag or
by the hash of its root catalogue. Without them, what the last publication
changed.`,
		Args: cobra.RangeArgs(1, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			storage, name, err := splitRepo(args[0])
			if err != nil {
				return err
			}
			info, err := publish.ReadInfo(cmd.Context(), storage, name, nil, time.Now)
			if err != nil {
				return publisherError(err)
			}
			names := slices.Concat(args[1:], []string{history.TrunkPrevious, history.Trunk})
			if len(args) == 2 {
				names = []string{args[1], history.Trunk}
			}
			from, err := revisionOf(info, names[0])
			if err != nil {
				return err
			}
			to, err := revisionOf(info, names[1])
			if err != nil {
				return err
			}
			l := changeListing()
			err = publish.Diff(cmd.Context(), storage, name, from, to, func(c publish.Change) error {
				l.Items = append(l.Items, changeRow{c.Kind, c.Path, c.From.Size, c.To.Size})
				return nil
			})
			if err != nil {
				return publisherError(err)
			}
			return l.print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func changeListing() listing[changeRow] {
	return listing[changeRow]{
		Schema: 1,
		name:   func(c changeRow) string { return printable(c.Path) },
		columns: []column[changeRow]{
			{head: "CHANGE", cell: func(c changeRow) string { return c.Change }},
			{head: "PATH", cell: func(c changeRow) string { return printable(c.Path) }},
		},
	}
}

// revisionOf finds the root catalogue a tag or a hash stands for.
func revisionOf(info *publish.Info, name string) (cvmfs.Hash, error) {
	i := slices.IndexFunc(info.Tags, func(t history.Tag) bool { return t.Name == name })
	if i >= 0 {
		return info.Tags[i].Hash, nil
	}
	if h, err := cvmfs.ParseHash(name); err == nil {
		return h, nil
	}
	if name == history.Trunk {
		return info.Manifest.RootHash, nil
	}
	return cvmfs.Hash{}, fail.New(fail.NotFound, "repository %q has no tag %q", info.Manifest.Name, name).Hint("see mica repo tags")
}
