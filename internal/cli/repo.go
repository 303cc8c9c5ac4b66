package cli

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/progress"
)

func newRepo(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "repo",
		Short: "Publish, serve, check, read and mount CernVM-FS repositories",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newRepoCreate(a),
		newRepoPublish(a),
		newRepoServe(a),
		newRepoInfo(a),
		newRepoTags(a),
		newRepoTag(a),
		newRepoDiff(a),
		newRepoCheck(a),
		newRepoResign(a),
		newRepoSnapshot(a),
		newRepoImport(a),
		newRepoGC(a),
		newRepoMount(a),
		newRepoTalk(a),
		newRepoLs(a),
		newRepoStat(a),
		newRepoCat(a),
		newRepoFind(a),
		newRepoGet(a),
		newRepoCp(a),
		newRepoConfig(a),
		newRepoProxyScript(a),
		newRepoProfile(a),
		newRepoSlice(a),
	)
	return cmd
}

// keysFlag adds --keys.
func keysFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "keys", "", "directory of the repository's keys (default: the folder keys below MICA_HOME)")
}

// keysDir is where keys are if nobody says.
func (a *app) keysDir(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	home, err := machine.HomeOf(a.Env)
	if err != nil {
		return "", err
	}
	return filepath.Join(string(home), "keys"), nil
}

// splitRepo takes the location of a repository apart: its storage and its name.
func splitRepo(dir string) (storage, name string, err error) {
	storage, name, err = publish.SplitLocation(dir)
	if err != nil {
		return "", "", fail.New(fail.Usage, "%s is no directory of a repository: %w", dir, err).
			Hint("give STORAGE/NAME, where NAME is the repository's full name, such as sw.example.org").
			Hint("STORAGE is a directory or s3://BUCKET/PREFIX")
	}
	return storage, name, nil
}

// publicKeys reads the master key to verify with: from a file, or from the
// directory of keys if it has one.
func (a *app) publicKeys(file, keys, name string) ([]*rsa.PublicKey, error) {
	given := file != ""
	if !given {
		dir, err := a.keysDir(keys)
		if err != nil {
			return nil, err
		}
		file = filepath.Join(dir, name+".pub")
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !given && keys == "" {
		return nil, nil
	}
	if err != nil {
		return nil, fail.New(fail.NotFound, "reading the public key of %q: %w", name, err).
			Hint("give the file with --key, or its folder with --keys")
	}
	list, err := cvmfs.ParsePublicKeys(data)
	if err != nil {
		return nil, fail.New(fail.Usage, "public key %s: %w", file, err)
	}
	return list, nil
}

// stamp is the date of what is published if the environment fixes one
// (https://reproducible-builds.org/specs/source-date-epoch/).
func (a *app) stamp() (time.Time, error) {
	text := a.Env("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fail.New(fail.Usage, "SOURCE_DATE_EPOCH is %q, not a number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// repoProgress shows a publisher's progress as that of one piece of work.
func repoProgress(sink progress.Sink, name string) func(publish.Progress) {
	units := map[publish.Phase]progress.Unit{publish.PhaseFiles: progress.Bytes, publish.PhaseData: progress.Bytes}
	return func(p publish.Progress) {
		unit, ok := units[p.Phase]
		if !ok {
			unit = progress.Objects
		}
		sink.Emit(progress.Event{ID: name, Phase: string(p.Phase), Done: p.Done, Total: p.Total, Unit: unit, Finished: p.Finished})
	}
}

// publisherError gives an error of package publish its class and a hint.
func publisherError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, publish.ErrNoRepository):
		return fail.New(fail.NotFound, "%w", err).Hint("mica repo create makes one, mica repo publish too")
	case errors.Is(err, publish.ErrNoKeys):
		return fail.New(fail.NotFound, "%w", err).Hint("--keys names the folder with NAME.pub, NAME.crt and NAME.key")
	case errors.Is(err, publish.ErrOther):
		return fail.New(fail.Usage, "%w", err).Hint("the last part of the storage is the repository's name: STORAGE/NAME")
	case errors.Is(err, publish.ErrNoReplica):
		return fail.New(fail.Refused, "%w", err).Hint("its owner lets it be copied with a file .cvmfs_master_replica in it").
			Hint("or copy it all the same with --unmarked")
	case errors.Is(err, publish.ErrRollback):
		return fail.New(fail.Unverified, "%w", err).Hint("the source may be a server that has not been brought up to date")
	case errors.Is(err, publish.ErrIncomplete):
		return fail.New(fail.Partial, "%w", err).Hint("what could be copied has been; try again once the source is whole, or from another server")
	case errors.Is(err, publish.ErrImport):
		return fail.New(fail.Failed, "%w", err).Hint("go on publishing it with cvmfs_server")
	case errors.Is(err, publish.ErrNoTag):
		return fail.New(fail.NotFound, "%w", err).Hint("see mica repo tags")
	case errors.Is(err, publish.ErrExists):
		return fail.New(fail.Conflict, "%w", err)
	case errors.Is(err, atomicfile.ErrLocked):
		return fail.New(fail.Conflict, "%w", err).Hint("wait for it to end")
	case errors.Is(err, cvmfs.ErrExpired):
		return fail.New(fail.Unverified, "%w", err).Hint("sign a new whitelist with mica repo resign, where the master key is")
	case errors.Is(err, cvmfs.ErrSignature), errors.Is(err, cvmfs.ErrUntrusted), errors.Is(err, cvmfs.ErrWrongName):
		return fail.New(fail.Unverified, "%w", err).Hint("check that --keys has the keys of this repository")
	case errors.Is(err, cvmfs.ErrCorrupt), errors.Is(err, cvmfs.ErrMalformed):
		return fail.New(fail.Unverified, "%w", err).Hint("mica repo check tells what else is damaged")
	case errors.Is(err, publish.ErrKeys):
		return fail.New(fail.HostLacks, "%w", err).Hint("mica repo resign needs the files NAME.masterkey, .pub, .key and .crt in --keys")
	case errors.Is(err, publish.ErrSource), errors.Is(err, errors.ErrUnsupported):
		return fail.New(fail.Failed, "%w", err)
	case errors.Is(err, fs.ErrNotExist):
		return fail.New(fail.NotFound, "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return fail.New(fail.HostLacks, "%w", err).Hint("publishing a whole system takes root, to read all of it")
	}
	return err
}

// count writes a number with the word for it.
func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
