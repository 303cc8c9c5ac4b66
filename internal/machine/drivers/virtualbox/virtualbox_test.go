package virtualbox_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/tier"
)

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case fakevbox.Program, fakevbox.Process:
		os.Exit(fakevbox.Main(os.Args[0], os.Args[1:]))
	}
	if what := os.Getenv(killAt); what != "" {
		os.Exit(commandToKill(what))
	}
	os.Exit(m.Run())
}

// fake is a driver with a VirtualBox of its own.
type fake struct {
	*testing.T
	*virtualbox.Driver
	run          run.Runner
	dir, program string
}

// newFake makes one whose VBoxManage runs inside this process.
func newFake(t *testing.T, c fakevbox.Config) *fake {
	t.Helper()
	return newFakeRun(t, c, fakevbox.Runner{})
}

// newFakeProgram makes one whose VBoxManage is a program, as it is in life.
func newFakeProgram(t *testing.T, c fakevbox.Config) *fake {
	t.Helper()
	return newFakeRun(t, c, run.Host{})
}

func newFakeRun(t *testing.T, c fakevbox.Config, r run.Runner) *fake {
	t.Helper()
	f := &fake{T: t, dir: t.TempDir(), run: r}
	var err error
	if f.program, err = fakevbox.Install(f.dir); err != nil {
		t.Fatal(err)
	}
	f.configure(c)
	f.Driver = virtualbox.Hasty(virtualbox.New(machine.Env{Run: r, Getenv: func(name string) string {
		return map[string]string{"MICA_VBOXMANAGE": f.program}[name]
	}}), 30*time.Second, 20*time.Second).(*virtualbox.Driver)
	return f
}

func (f *fake) configure(c fakevbox.Config) {
	f.Helper()
	if err := fakevbox.Configure(f.dir, c); err != nil {
		f.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	tier.Full(t) // some thousand processes
	t.Parallel()
	for _, style := range []string{fakevbox.Style72, fakevbox.Style61, fakevbox.Style52} {
		t.Run(style, func(t *testing.T) {
			drivertest.Run(t, drivertest.Case{
				New: func(t *testing.T) machine.Driver {
					return newFake(t, fakevbox.Config{Style: style, Race: 3, Extension: "VNC"}).Driver
				},
				Parallel: true, Patience: 30 * time.Second,
			})
		})
	}
}
