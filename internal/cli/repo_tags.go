package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs/history"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/fail"
)

// tagRow is one tag of a listing.
type tagRow struct {
	Name        string    `json:"name"`
	Revision    uint64    `json:"revision"`
	Time        time.Time `json:"time"`
	RootHash    string    `json:"root_hash"`
	Size        int64     `json:"size"` // of the root catalogue
	Description string    `json:"description"`
}

func newRepoTags(a *app) *cobra.Command {
	var output, older string
	cmd := &cobra.Command{
		Use:   "tags STORAGE/NAME",
		Short: "List the tags of a repository, newest revision first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			storage, name, err := splitRepo(args[0])
			if err != nil {
				return err
			}
			age, err := parseTagAge("--older-than", older)
			if err != nil {
				return err
			}
			info, err := publish.ReadInfo(cmd.Context(), storage, name, nil, time.Now)
			if err != nil {
				return publisherError(err)
			}
			if cmd.Flags().Changed("older-than") {
				info.Tags = publish.Expired(info.Tags, age, time.Now())
			}
			return tagListing(info.Tags).print(a.Out, output)
		},
	}
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&older, "older-than", "", "only those that mica repo publish --tag-age would remove, such as '4 weeks'")
	return cmd
}

func tagListing(tags []history.Tag) listing[tagRow] {
	col := func(head string, wide bool, cell func(tagRow) string) column[tagRow] {
		return column[tagRow]{head: head, cell: cell, wide: wide}
	}
	l := listing[tagRow]{
		Schema: 1,
		name:   func(t tagRow) string { return t.Name },
		columns: []column[tagRow]{
			col("NAME", false, func(t tagRow) string { return t.Name }),
			col("REVISION", false, func(t tagRow) string { return fmt.Sprint(t.Revision) }),
			col("TIME", false, func(t tagRow) string { return t.Time.Format(time.RFC3339) }),
			col("ROOT", true, func(t tagRow) string { return t.RootHash }),
			col("DESCRIPTION", false, func(t tagRow) string { return printable(t.Description) }),
		},
	}
	for _, t := range tags {
		l.Items = append(l.Items, tagRow{t.Name, t.Revision, t.Time, t.Hash.String(), t.Size, t.Description})
	}
	return l
}

func newRepoTag(a *app) *cobra.Command {
	var keys, description string
	var remove []string
	cmd := &cobra.Command{
		Use:   "tag STORAGE/NAME [TAG]",
		Short: "Name the published revision, or remove names",
		Long: `Give the published revision of a repository a name, or remove names with
--remove. What only a removed name kept is there until mica repo gc.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			storage, name, err := splitRepo(args[0])
			if err != nil {
				return err
			}
			dir, err := a.keysDir(keys)
			if err != nil {
				return err
			}
			o := publish.TagOptions{Storage: storage, Name: name, Keys: dir, Description: description, Remove: remove, Now: time.Now}
			if len(args) == 2 {
				o.Set = args[1]
			}
			if o.Set == "" && len(remove) == 0 {
				return fail.New(fail.Usage, "no tag to set or to remove").Hint("see '%s --help'", cmd.CommandPath())
			}
			return publisherError(publish.EditTags(cmd.Context(), o))
		},
	}
	keysFlag(cmd, &keys)
	cmd.Flags().StringVar(&description, "description", "", "what the tag stands for")
	cmd.Flags().StringSliceVar(&remove, "remove", nil, "tags to remove")
	return cmd
}
