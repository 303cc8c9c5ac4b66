package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/fail"
)

// smallRepo unpacks the repository that the original tools published and returns
// its directory and the file of its key.
func smallRepo(t *testing.T) (repo, key string) {
	t.Helper()
	r := cvmfstest.Small(t)
	return r.Dir, filepath.Join(r.Keys, cvmfstest.Name+".pub")
}

// repoCommand runs one of the reading commands.
func repoCommand(t *testing.T, make func(*app) *cobra.Command, args ...string) (string, error) {
	t.Helper()
	return repoCommandIn(t.Context(), make, args...)
}

// mustRepo is repoCommand for what has to succeed.
func mustRepo(t *testing.T, make func(*app) *cobra.Command, args ...string) string {
	t.Helper()
	out, err := repoCommand(t, make, args...)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return out
}

func repoCommandIn(ctx context.Context, make func(*app) *cobra.Command, args ...string) (string, error) {
	return repoCommandTo(ctx, io.Discard, make, args...)
}

// repoCommandTo is repoCommandIn with somewhere for messages.
func repoCommandTo(ctx context.Context, messages io.Writer, make func(*app) *cobra.Command, args ...string) (string, error) {
	var out bytes.Buffer
	home := filepath.Join(os.TempDir(), "none")
	a := &app{IO: IO{In: strings.NewReader(""), Out: &out, Err: messages, Env: func(name string) string {
		if name == "HOME" {
			return home
		}
		return ""
	}}, log: slog.New(slog.DiscardHandler), progress: "none"}
	cmd := make(a)
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(ctx)
	return out.String(), err
}

// repoCommandBoth is repoCommandIn with what goes to standard error.
func repoCommandBoth(ctx context.Context, make func(*app) *cobra.Command, args ...string) (stdout, stderr string, err error) {
	var said bytes.Buffer
	stdout, err = repoCommandTo(ctx, &said, make, args...)
	return stdout, said.String(), err
}

func TestRepoReading(t *testing.T) {
	repo, key := smallRepo(t)
	common := []string{"--key", key, "--cache", t.TempDir()}
	run := func(command func(*app) *cobra.Command, args ...string) string {
		t.Helper()
		out, err := repoCommand(t, command, append(args, common...)...)
		if err != nil {
			t.Errorf("%q: %v", args, err)
		}
		return out
	}

	var list struct {
		Items []repoEntry `json:"items"`
	}
	if err := json.Unmarshal([]byte(run(newRepoLs, repo, "/big", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	byPath := map[string]repoEntry{}
	for _, e := range list.Items {
		byPath[e.Path] = e
	}
	if e := byPath["/big/chunked"]; e.Size != 307200 || e.Type != "file" || e.Mode != "0644" {
		t.Errorf("ls /big: chunked is %+v", e)
	}
	if out := run(newRepoLs, "file://"+repo, "-o", "name"); !strings.Contains(out, "/README\n") || strings.Contains(out, ".cvmfs\n") {
		t.Errorf("ls / = %q", out)
	}
	if out := run(newRepoLs, repo, "/odd"); strings.Contains(out, "\t") || !strings.Contains(out, `\t`) {
		t.Errorf("ls /odd shows foreign names as they are: %q", out)
	}
	if out := run(newRepoStat, repo, "/v3/bigraw", "/nested/one", "-o", "jsonl"); !strings.Contains(out, `"chunks":6`) || !strings.Contains(out, `"catalog":"/nested"`) {
		t.Errorf("stat = %q", out)
	}
	if out := run(newRepoCat, repo, "/README"); len(out) == 0 {
		t.Error("cat /README is empty")
	}
	if out := run(newRepoFind, repo, "/software", "--match", "*.so*", "--type", "symlink", "-o", "name"); out != "/software/2.0/lib/libx.so.1\n/software/noncat/lib/libx.so.1\n" {
		t.Errorf("find = %q", out)
	}

	dest := filepath.Join(t.TempDir(), "copy")
	run(newRepoGet, repo, "/nested", dest)
	data, err := os.ReadFile(filepath.Join(dest, "a", "b", "c", "three"))
	if err != nil || string(data) != run(newRepoCat, repo, "/nested/a/b/c/three") {
		t.Errorf("get /nested: %q, %v", data, err)
	}
	if _, err := repoCommand(t, newRepoGet, append([]string{repo, "/nested", dest}, common...)...); !fail.Is(err, fail.Conflict) {
		t.Errorf("get over an existing copy: %v", err)
	}
	if _, err := repoCommand(t, newRepoGet, append([]string{repo, "/special", dest + "2"}, common...)...); !fail.Is(err, fail.Partial) {
		t.Errorf("get of special files: %v", err)
	}

	testRepoCp(t, repo, common)
	for name, test := range map[string]struct {
		command func(*app) *cobra.Command
		args    []string
		class   fail.Class
	}{
		"no key":       {newRepoLs, []string{repo}, fail.Usage},
		"missing path": {newRepoCat, append([]string{repo, "/nonesuch"}, common...), fail.NotFound},
		"missing tag":  {newRepoLs, append([]string{repo, "--tag", "nonesuch"}, common...), fail.NotFound},
		"wrong name":   {newRepoLs, []string{repo, "--name", "other.example", "--key", key, "--cache", t.TempDir()}, fail.Unverified},
		"nothing":      {newRepoLs, append([]string{t.TempDir(), "--name", "x.example"}, "--key", key, "--cache", t.TempDir()), fail.Refused},
	} {
		if _, err := repoCommand(t, test.command, test.args...); fail.ClassOf(err) != test.class {
			t.Errorf("%s: error %v of class %d, want %d", name, err, fail.ClassOf(err), test.class)
		}
	}
}
