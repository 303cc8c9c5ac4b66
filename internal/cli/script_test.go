package cli_test

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/micavm/mica/internal/cli"
	"github.com/micavm/mica/internal/tier"
)

// TestMain lets scripts run the commands of this package as programs.
func TestMain(m *testing.M) {
	asVirtualBox()
	testscript.Main(m, map[string]func(){
		"mica":           run,
		"amiconfig-mime": run,
		"cernvm-launch":  run,

		// What the stories of machines need; see machine_test.go.
		"qemu-system-x86_64": fakeQEMU,
		"bootiso":            bootISO,
		"bootdisk":           bootDisk,
		"makeova":            makeOVA,
		"fakevbox":           fakeVBox,
	})
}

func run() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := cli.Main(ctx, cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv}, os.Args)
	stop()
	os.Exit(code)
}

// TestScripts tells one story a file: testdata/script/*.txtar.
func TestScripts(t *testing.T) { tell(t, "testdata/script") }

// TestRootScripts tells those that need root and FUSE.
func TestRootScripts(t *testing.T) {
	tier.Root(t)
	tell(t, "testdata/rootscript")
}

func tell(t *testing.T, dir string) {
	t.Helper()
	small, err := filepath.Abs("../../cvmfs/testdata/small")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:  dir,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "serve": serveHTTP, "digest": digestOf},
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("MICA_HOME", filepath.Join(env.WorkDir, ".mica"))
			env.Setenv("CVMFS_SMALL", small) // a repository made by the original tools
			return nil
		},
	})
}
