package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/stage"
)

func newRepoProfile(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Record what a boot reads of a repository, so that the next one fetches it ahead",
		Long: `A profile lists the objects that a machine read while it booted, in order. Put
beside a repository it tells every machine that boots for the first time what to
fetch ahead, many objects at a time. 'mica repo slice' makes a disk of it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRepoProfileRecord(a), newRepoProfileShow(a), newRepoProfileAttach(a))
	return cmd
}

func newRepoProfileRecord(a *app) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "record MACHINE FILE",
		Short: "Write down what a running machine has read of its repository",
		Long: `Ask a machine that has booted for what it has read of its repository since, and
write that to FILE; - is standard output. It is asked by ssh, as root.`,
		Example: "  mica repo profile record demo boot.profile",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.profileOf(cmd.Context(), args[0], user)
			if err != nil {
				return err
			}
			p, err := profile.Parse(text)
			if err != nil {
				return fmt.Errorf("machine %q: %w", args[0], err)
			}
			if args[1] == "-" {
				_, err := a.Out.Write(p.Text())
				return err
			}
			if err := atomicfile.Write(args[1], p.Text(), 0o644); err != nil {
				return err
			}
			a.tell("%s: %s", args[1], summary(p))
			return nil
		},
	}
	cmd.Flags().StringVarP(&user, "user", "l", "root", "log in as this user")
	return cmd
}

// profileOf asks a machine's repository process what it has read.
func (a *app) profileOf(ctx context.Context, name, user string) ([]byte, error) {
	fleet, err := a.fleet(nil)
	if err != nil {
		return nil, err
	}
	login, err := fleet.Login(ctx, name, machine.DoSSH)
	if err != nil {
		return nil, err
	}
	login.User = user
	to := a.Out
	defer func() { a.Out = to }()
	var text bytes.Buffer
	a.Out = &text
	if err := a.login(ctx, login, []string{stage.Program, "profile"}); err != nil {
		return nil, fail.New(fail.Failed, "asking machine %q for what it has read: %w", name, err).
			Hint("it must have booted to the end, and let %s in: see 'mica show %s'", user, name)
	}
	return text.Bytes(), nil
}

func summary(p *profile.Profile) string {
	text := fmt.Sprintf("%d objects of %s, %.1f MB unpacked, recorded %s",
		len(p.Objects), p.Repository, float64(p.Bytes())/1e6, p.Recorded.Format(time.RFC3339))
	if p.External > 0 {
		text += "; not in it: " + count(int64(p.External), "external file", "external files")
	}
	return text
}

// profileEntry is one line of a listing.
type profileEntry struct {
	Path string `json:"path"`
	Kind string `json:"kind"`
	Size int64  `json:"size"` // -1 if not known
}

func newRepoProfileShow(a *app) *cobra.Command {
	var s repoSource
	var output string
	cmd := &cobra.Command{
		Use:   "show FILE|URL|DIR",
		Short: "List what is in a profile",
		Long:  `List the objects of a profile: of a file, or of the one beside a repository.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.findProfile(cmd.Context(), args[0], &s)
			if err != nil {
				return err
			}
			l := listing[profileEntry]{
				Schema: 1,
				name:   func(e profileEntry) string { return e.Path },
				columns: []column[profileEntry]{
					{head: "KIND", cell: func(e profileEntry) string { return e.Kind }},
					{head: "SIZE", cell: func(e profileEntry) string { return fmt.Sprint(e.Size) }},
					{head: "OBJECT", cell: func(e profileEntry) string { return e.Path }},
				},
			}
			kinds := map[cvmfs.Suffix]string{
				cvmfs.SuffixNone: "file", cvmfs.SuffixPartial: "chunk", cvmfs.SuffixCatalog: "catalogue",
				cvmfs.SuffixHistory: "history", cvmfs.SuffixCertificate: "certificate",
			}
			for _, o := range p.Objects {
				l.Items = append(l.Items, profileEntry{o.Path(), kinds[o.Suffix], o.Size})
			}
			a.tell("%s", summary(p))
			return l.print(a.Out, output)
		},
	}
	s.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func newRepoProfileAttach(a *app) *cobra.Command {
	var keys string
	cmd := &cobra.Command{
		Use:   "attach STORAGE/NAME FILE",
		Short: "Sign a profile and put it beside the manifest of a repository",
		Long: `Sign a profile with the repository's key and put it beside the manifest, in
place of one that is there. From then on machines that boot this repository for
the first time fetch ahead what is in it. Publishing keeps it; record a new one
when much has changed.`,
		Example: `  mica repo profile record demo boot.profile
  mica repo profile attach /srv/cvmfs/os.example.org boot.profile`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			storage, name, err := splitRepo(args[0])
			if err != nil {
				return err
			}
			dir, err := a.keysDir(keys)
			if err != nil {
				return err
			}
			p, err := readProfile(args[1])
			if err != nil {
				return err
			}
			missing, err := publish.AttachProfile(cmd.Context(), publish.ProfileOptions{Storage: storage, Name: name, Keys: dir}, p)
			if errors.Is(err, cvmfs.ErrWrongName) {
				return fail.New(fail.Usage, "%w", err).Hint("attach it to the repository that it was recorded with")
			}
			if err != nil {
				return publisherError(err)
			}
			if missing > 0 {
				a.tell("%d objects of the profile are not in the repository any more, and left out", missing)
			}
			a.tell("%s: %d objects are fetched ahead", name, len(p.Objects)-missing)
			return nil
		},
	}
	keysFlag(cmd, &keys)
	return cmd
}

// findProfile reads a profile from a file, or from beside a repository.
func (a *app) findProfile(ctx context.Context, from string, s *repoSource) (*profile.Profile, error) {
	if !strings.Contains(from, "://") {
		info, err := os.Stat(from)
		if err != nil {
			return nil, fail.New(fail.NotFound, "reading the profile: %w", err)
		}
		if !info.IsDir() {
			return readProfile(from)
		}
	}
	r, err := s.open(ctx, a, from)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // nothing was written but a cache
	p, err := r.Profile(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail.New(fail.NotFound, "repository %q has no profile", r.Name()).
			Hint("record one with 'mica repo profile record', and put it there with 'mica repo profile attach'")
	}
	return p, repoError(err)
}

func readProfile(file string) (*profile.Profile, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fail.New(fail.NotFound, "reading the profile: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, profile.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading the profile: %w", err)
	}
	p, err := profile.Parse(text)
	if err != nil {
		return nil, fail.New(fail.Usage, "%s: %w", file, err).Hint("'mica repo profile record' makes one")
	}
	return p, nil
}

func newRepoSlice(a *app) *cobra.Command {
	var s repoSource
	var from string
	cmd := &cobra.Command{
		Use:   "slice URL|DIR FILE",
		Short: "Make a disk of the part of a repository that a boot reads",
		Long: `Write the objects of a profile, with the signed files that lead to them, to a
file that is attached to a machine as a further disk. The machine reads from it
before it asks any server, and boots without a network as long as the whitelist
in it is good. With --tag it is of that revision, and so must the machine be
(cvmfs_tag in its context).

'mica create --add-disk' knows the file for what it is, and attaches it to be read
only: any number of machines can have it at a time. It is a tar archive.`,
		Example: `  mica repo profile record demo boot.profile
  mica repo slice http://cvmfs.example.org/cvmfs/os.example.org os.slice --profile boot.profile
  mica create --add-disk os.slice alone.context`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			r, err := s.open(ctx, a, args[0])
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // nothing was written but a cache
			var p *profile.Profile
			if from == "" {
				if p, err = r.Profile(ctx); errors.Is(err, fs.ErrNotExist) {
					return fail.New(fail.NotFound, "repository %q has no profile", r.Name()).Hint("give the file of one with --profile")
				}
				err = repoError(err)
			} else {
				p, err = readProfile(from)
			}
			if err != nil {
				return err
			}
			if err := sliceable(p, r); err != nil {
				return err
			}
			return a.writeSlice(ctx, r, p, args[1])
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&from, "profile", "", "file with the profile (default: the one beside the repository)")
	return cmd
}

// sliceable refuses a profile of another revision than the one a machine with
// the slice would find in it.
func sliceable(p *profile.Profile, r *client.Repository) error {
	if p.Repository != r.Name() {
		return fail.New(fail.Usage, "the profile is of repository %q, not of %q", p.Repository, r.Name())
	}
	if p.Root != r.RootHash() {
		return fail.New(fail.Conflict, "the profile was recorded with root catalogue %s, the repository shows %s", p.Root, r.RootHash()).
			Hint("record it again with a machine of this revision, or name the revision's --tag")
	}
	return nil
}

// writeSlice writes the file whole or not at all.
func (a *app) writeSlice(ctx context.Context, r *client.Repository, p *profile.Profile, to string) error {
	w, err := atomicfile.Create(to, 0o644)
	if err != nil {
		return err
	}
	defer w.Close() //nolint:errcheck // Commit reports
	sink, done, err := a.sink()
	if err != nil {
		return err
	}
	err = r.WriteSlice(ctx, w, p, func(n int, _ int64) {
		sink.Emit(progress.Event{ID: "slice", Phase: "collecting objects", Done: int64(n), Total: int64(len(p.Objects)), Unit: progress.Objects})
	})
	done()
	if err != nil {
		return repoError(err)
	}
	if err := w.Commit(); err != nil {
		return err
	}
	info, err := os.Stat(to)
	if err != nil {
		return err
	}
	a.tell("%s: %d objects of %s in %.1f MB", filepath.Base(to), len(p.Objects), p.Repository, float64(info.Size())/1e6)
	if p.External > 0 {
		a.tell("not in it: %s, which a machine with the slice reads from their servers", count(int64(p.External), "external file", "external files"))
	}
	return nil
}
