package cli

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/progress"
)

// repoInfo is what 'repo info' prints.
type repoInfo struct {
	Schema           int       `json:"schema"`
	Name             string    `json:"name"`
	Revision         uint64    `json:"revision"`
	RootHash         string    `json:"root_hash"`
	Published        time.Time `json:"published"`
	TTL              int64     `json:"ttl_seconds"`
	WhitelistExpires time.Time `json:"whitelist_expires"`
	Signatures       string    `json:"signatures"` // "good", "not checked", or what is wrong
	Tags             int       `json:"tags"`
	Entries          int64     `json:"entries"`
	Files            int64     `json:"files"`
	Bytes            int64     `json:"bytes"`
	Catalogs         int64     `json:"catalogs"`
}

func newRepoInfo(a *app) *cobra.Command {
	var keys, key, output string
	cmd := &cobra.Command{
		Use:   "info STORAGE/NAME",
		Short: "Show what is published in a repository",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := a.repoInfo(cmd.Context(), args[0], keys, key)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return printJSON(a.Out, info)
			case "table":
				return info.print(a)
			}
			return fail.New(fail.Usage, "unknown --output %q", output).Hint("use table or json")
		},
	}
	keysFlag(cmd, &keys)
	cmd.Flags().StringVar(&key, "key", "", "file with the public master key to verify with")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "how to print: table or json")
	return cmd
}

func (a *app) repoInfo(ctx context.Context, dir, keys, key string) (repoInfo, error) {
	storage, name, err := splitRepo(dir)
	if err != nil {
		return repoInfo{}, err
	}
	public, err := a.publicKeys(key, keys, name)
	if err != nil {
		return repoInfo{}, err
	}
	info, err := publish.ReadInfo(ctx, storage, name, public, time.Now)
	if err != nil {
		return repoInfo{}, publisherError(err)
	}
	r := repoInfo{
		Schema: 1, Name: info.Manifest.Name, Revision: info.Manifest.Revision, RootHash: info.Manifest.RootHash.String(),
		Published: info.Manifest.Published, TTL: int64(info.Manifest.TTL / time.Second), WhitelistExpires: info.Whitelist.Expires,
		Signatures: "good", Tags: len(info.Tags), Entries: info.Counters.Entries() - info.Counters.Nested,
		Files: info.Counters.Regular, Bytes: info.Counters.FileSize, Catalogs: info.Counters.Nested + 1,
	}
	switch {
	case errors.Is(info.Verified, publish.ErrKeys):
		r.Signatures = "not checked"
	case info.Verified != nil:
		r.Signatures = info.Verified.Error()
	}
	return r, nil
}

func (r repoInfo) print(a *app) error {
	tw := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
	for _, line := range [][2]string{
		{"name", r.Name},
		{"revision", fmt.Sprint(r.Revision)},
		{"root", r.RootHash},
		{"published", r.Published.Format(time.RFC3339)},
		{"ttl", (time.Duration(r.TTL) * time.Second).String()},
		{"signatures", r.Signatures},
		{"whitelist until", r.WhitelistExpires.Format(time.RFC3339)},
		{"tags", fmt.Sprint(r.Tags)},
		{"entries", fmt.Sprint(r.Entries)},
		{"files", fmt.Sprintf("%d (%s)", r.Files, progress.Size(r.Bytes))},
		{"catalogs", fmt.Sprint(r.Catalogs)},
	} {
		_, _ = fmt.Fprintf(tw, "%s:\t%s\n", line[0], line[1])
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	a.warnWhitelist(r.Name, r.WhitelistExpires)
	return nil
}
