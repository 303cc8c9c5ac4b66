package launch_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/launch"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
	"github.com/micavm/mica/internal/machine/drivertest"
)

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case fakevbox.Program, fakevbox.Process:
		os.Exit(fakevbox.Main(os.Args[0], os.Args[1:]))
	case programName:
		asProgram()
	}
	os.Exit(m.Run())
}

// desk is a user's home with a VirtualBox, a folder of released images and a
// context.
type desk struct {
	*testing.T
	home, vbox string
	env        map[string]string
	terminal   bool
	sshed      []string // what ssh was run with
	drivers    *machine.Registry
}

const (
	version   = "2.7-7"
	imagePath = "ucernvm-images." + version + ".cernvm.x86_64/ucernvm-prod." + version + ".cernvm.x86_64.iso"
)

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{T: t, home: t.TempDir(), vbox: t.TempDir(), env: map[string]string{}}
	program, err := fakevbox.Install(d.vbox)
	if err != nil {
		t.Fatal(err)
	}
	d.env["MICA_LAUNCH_HOME"], d.env["MICA_VBOXMANAGE"] = d.home, program
	d.env["MICA_LAUNCH_IMAGE_SERVER"] = fileURL(d.release(drivertest.BootISO(drivertest.Guest{Says: "hello\r\n"})))
	d.drivers = machine.NewRegistry(machine.Env{Getenv: d.getenv}, machine.Factory{Name: virtualbox.Name, New: virtualbox.New})
	d.write("UD", "[amiconfig]\nplugins=cernvm\n")
	d.write(".cernvm-launch.conf", "sharedFolder="+d.home+"\nlaunchHomeFolder="+d.home+"\napiPort=22\ncernvmVersion=latest\ncpus=1\nmemory=64\ndisk=64\nexecutionCap=100\nflags=5\n")
	t.Cleanup(func() {
		for _, name := range d.names() {
			d.run("", "destroy", "--force", name)
		}
	})
	return d
}

func fileURL(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

func (d *desk) getenv(name string) string { return d.env[name] }

func (d *desk) path(name string) string { return filepath.Join(d.home, name) }

func (d *desk) write(name, text string) string {
	d.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(d.path(name)), 0o700), os.WriteFile(d.path(name), []byte(text), 0o600)); err != nil {
		d.Fatal(err)
	}
	return d.path(name)
}

func (d *desk) read(path string) string {
	d.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		d.Fatal(err)
	}
	return string(data)
}

// release makes a folder as the server has it, with one version.
func (d *desk) release(image []byte) string {
	dir := d.TempDir()
	file := filepath.Join(dir, imagePath)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, image, 0o600),
		os.WriteFile(file+".sha256", []byte(digest(image)+"  image\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "latest"), []byte(" "+version+" \n"), 0o600)); err != nil {
		d.Fatal(err)
	}
	return dir
}

// result is what one command did.
type result struct {
	code     int
	out, err string
}

func (d *desk) run(stdin string, args ...string) result {
	return d.runCtx(context.WithoutCancel(d.Context()), stdin, args...)
}

func (d *desk) runCtx(ctx context.Context, stdin string, args ...string) result {
	var out, err bytes.Buffer
	p := &launch.Program{
		Version: "9.9", In: strings.NewReader(stdin), Out: &out, Err: &err, Terminal: d.terminal, Getenv: d.getenv, Drivers: d.drivers,
		SSH: func(_ context.Context, _ string, argv []string) (int, error) {
			d.sshed = argv
			return 0, nil
		},
	}
	code := p.Main(ctx, args)
	return result{code, out.String(), err.String()}
}

// must runs a command that succeeds.
func (d *desk) must(args ...string) result {
	d.Helper()
	r := d.run("", args...)
	if r.code != 0 {
		d.Fatalf("%q ended with %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r
}

// fails runs a command that ends with code and says want on standard error.
func (d *desk) fails(code int, want string, args ...string) result {
	d.Helper()
	r := d.run("", args...)
	if r.code != code || !strings.Contains(r.err, want) {
		d.Errorf("%q ended with %d, want %d\nstdout: %s\nstderr: %s\nwant in it: %q", args, r.code, code, r.out, r.err, want)
	}
	return r
}

func (d *desk) names() []string {
	var names []string
	for _, path := range d.records() {
		for line := range strings.Lines(d.read(path)) {
			if name, ok := strings.CutPrefix(line, "name="); ok {
				names = append(names, strings.TrimSpace(name))
			}
		}
	}
	return names
}

func (d *desk) records() []string {
	found, err := filepath.Glob(d.path(".cernvm/run/vbsess-*.conf"))
	if err != nil {
		d.Fatal(err)
	}
	return found
}

// ownPort gives the only machine a port that no program looks for, as its own
// are looked for by others on this computer, and returns where it is.
func (d *desk) ownPort() string {
	d.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		d.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	path := d.records()[0]
	d.write(strings.TrimPrefix(path, d.path("")), strings.Replace(d.read(path), "local/apiPort="+d.record()["local/apiPort"]+"\n", "local/apiPort="+port+"\n", 1))
	if d.record()["local/apiPort"] != port {
		d.Fatalf("the record has not got port %s", port)
	}
	return l.Addr().String()
}

// record returns the values of the only record, as they stand in the file.
func (d *desk) record() map[string]string {
	d.Helper()
	all := d.records()
	if len(all) != 1 {
		d.Fatalf("there are %d records, want 1", len(all))
	}
	values := map[string]string{}
	for line := range strings.Lines(d.read(all[0])) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		values[key] = value
	}
	return values
}

// left returns what is in the run folder, locks aside.
func (d *desk) left() []string {
	entries, err := os.ReadDir(d.path(".cernvm/run"))
	if err != nil {
		d.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".lock" {
			left = append(left, e.Name())
		}
	}
	return left
}

// commands returns what VBoxManage was told since the last call, changes only.
func (d *desk) commands() []string {
	var changes []string
	for _, line := range fakevbox.Commands(d.vbox) {
		switch strings.Fields(line + " ?")[0] {
		case "--version", "list", "showvminfo", "showmediuminfo", "?":
		default:
			changes = append(changes, line)
		}
	}
	_ = os.Remove(filepath.Join(d.vbox, "commands"))
	return changes
}

func (d *desk) told(part string) bool {
	return slices.ContainsFunc(d.commands(), func(line string) bool { return strings.Contains(line, part) })
}

func (d *desk) configure(c fakevbox.Config) {
	d.Helper()
	if err := fakevbox.Configure(d.vbox, c); err != nil {
		d.Fatal(err)
	}
}

// vboxManage runs the fake as another program, or its user, would.
func (d *desk) vboxManage(args ...string) string {
	d.Helper()
	out, err := execCommand(d.Context(), filepath.Join(d.vbox, fakevbox.Program), args...)
	if err != nil {
		d.Fatalf("VBoxManage %q: %v\n%s", args, err, out)
	}
	return out
}
