package boot

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/boot/cmdline"
	"github.com/micavm/mica/internal/boot/console"
	"github.com/micavm/mica/internal/boot/network"
	"github.com/micavm/mica/internal/boot/units"
	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/usercontext/source"
)

// machine is a state whose UROOT is a folder.
func machine(t *testing.T) *state {
	t.Helper()
	s := &state{rec: &Record{}, con: console.New(discard{}, nil, nil, nil), rwDir: t.TempDir(), mounted: true}
	t.Cleanup(s.con.Close)
	for _, d := range []string{"context", "aux"} {
		if err := os.Mkdir(s.rw(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func drive(id, text string) source.Found {
	return source.Found{
		Source: "ConfigDrive", Origin: "/dev/sr0", Present: true, UserData: []byte(text),
		Meta: source.Meta{InstanceID: id, Hostname: "h", PublicKeys: []string{"ssh-ed25519 AAAA x"}},
	}
}

const block = "[ucernvm-begin]\ncernvm_path=cvm4\n[ucernvm-end]\n"

func TestContextIsKeptAndReadAgain(t *testing.T) {
	s := machine(t)
	s.local = drive("i-1", block)
	r := &report{}
	if err := findContext(t.Context(), s, r); err != nil {
		t.Fatal(err)
	}
	if !s.newSelf || !s.keep || s.keys.Path != "cvm4" || r.facts["context"] != "ConfigDrive" {
		t.Errorf("first boot: new %v, keep %v, path %q, facts %v", s.newSelf, s.keep, s.keys.Path, r.facts)
	}
	if err := s.keepContext(); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"user-data": 0o600, "meta.json": 0o600, "source": 0o600, "ucontext": 0o600} {
		if fi, err := os.Stat(s.rw("context", name)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", name, fi, err, mode)
		}
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(read(t, s.rw("context"), "meta.json")), &m); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"instance_id": "i-1", "hostname": "h", "public_keys": []any{"ssh-ed25519 AAAA x"}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("meta.json (-want +got):\n%s", diff)
	}

	// Later boots: the medium is gone, or says something else for the same machine.
	for name, local := range map[string]source.Found{
		"no medium":             {},
		"same instance changed": drive("i-1", "[ucernvm-begin]\ncernvm_path=other\n[ucernvm-end]\n"),
	} {
		later := machine(t)
		later.rwDir, later.local = s.rwDir, local
		if err := findContext(t.Context(), later, &report{}); err != nil {
			t.Fatal(err)
		}
		if later.newSelf || later.keep || later.keys.Path != "cvm4" || later.source != "ConfigDrive" {
			t.Errorf("%s: new %v, keep %v, path %q, source %q", name, later.newSelf, later.keep, later.keys.Path, later.source)
		}
	}

	// A copy of the disk under another instance id is another machine.
	put(t, s.rw("context"), markInjected, "")
	clone := machine(t)
	clone.rwDir, clone.local = s.rwDir, drive("i-2", "[ucernvm-begin]\ncernvm_path=new\n[ucernvm-end]\n")
	if err := findContext(t.Context(), clone, &report{}); err != nil {
		t.Fatal(err)
	}
	if !clone.newSelf || !clone.keep || clone.keys.Path != "new" {
		t.Errorf("clone: new %v, keep %v, path %q", clone.newSelf, clone.keep, clone.keys.Path)
	}
	if err := clone.keepContext(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.rw("context", markInjected)); err == nil {
		t.Error("the clone would not inject its files")
	}
}

// TestSharesAreKept: a machine mounts its shared folders on each boot, as it was
// told when its context was read; a copy of its disk has its own.
func TestSharesAreKept(t *testing.T) {
	shared := func(id string, shares ...source.Share) source.Found {
		f := drive(id, block)
		f.Meta.Shares = shares
		return f
	}
	data := source.Share{Name: "data", Type: source.Share9P, ReadOnly: true}
	s := machine(t)
	s.local = shared("i-1", data)
	if err := findContext(t.Context(), s, &report{}); err != nil {
		t.Fatal(err)
	}
	if err := s.keepContext(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		local source.Found
		want  []units.Share
	}{
		"first boot":     {s.local, []units.Share{units.Share(data)}},
		"no medium":      {source.Found{}, []units.Share{units.Share(data)}},
		"another medium": {shared("i-1"), []units.Share{units.Share(data)}},
		"another machine": {
			shared("i-2", source.Share{Name: "own", Type: source.ShareVBoxSF}),
			[]units.Share{{Name: "own", Type: source.ShareVBoxSF}},
		},
		"another machine, none": {shared("i-3"), nil},
	} {
		later := machine(t)
		later.rwDir, later.local = s.rwDir, tc.local
		if err := findContext(t.Context(), later, &report{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, later.sharedFolders()); diff != "" {
			t.Errorf("%s: shares (-want +got):\n%s", name, diff)
		}
	}
}

// TestSharesWithoutSystemd: they are not mounted, and the record says how.
func TestSharesWithoutSystemd(t *testing.T) {
	s := machine(t)
	s.shares = []source.Share{{Name: "data", Type: source.ShareVirtioFS, Tag: "share0", ReadOnly: true}}
	s.noteShares()
	if want := "mount -t virtiofs -o ro,nosuid,nodev share0 /mnt/shared/data"; len(s.rec.Notes) != 1 || !strings.HasSuffix(s.rec.Notes[0], want) {
		t.Errorf("notes %q, want one that ends in %q", s.rec.Notes, want)
	}
}

func TestRecontextualize(t *testing.T) {
	s := machine(t)
	s.local = drive("i-1", block)
	if err := findContext(t.Context(), s, &report{}); err != nil {
		t.Fatal(err)
	}
	if err := s.keepContext(); err != nil {
		t.Fatal(err)
	}
	put(t, s.rw("aux"), "recontextualize", "")
	later := machine(t)
	later.rwDir, later.local = s.rwDir, drive("i-1", "[ucernvm-begin]\ncernvm_path=changed\n[ucernvm-end]\n")
	if err := findContext(t.Context(), later, &report{}); err != nil {
		t.Fatal(err)
	}
	if later.keys.Path != "changed" || later.newSelf {
		t.Errorf("path %q, new %v; want changed, and the same machine", later.keys.Path, later.newSelf)
	}
	if err := later.keepContext(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.rw("aux/recontextualize")); err == nil {
		t.Error("the request stays: every boot would read the context again")
	}
}

// isSkipped checks that a stage said it had nothing to do.
func isSkipped(t *testing.T, err error) {
	t.Helper()
	var o *outcome
	if !errors.As(err, &o) || o.state != stage.Skipped || o.Error() == "" {
		t.Errorf("stage ended with %v, want skipped and a reason", err)
	}
}

func TestNoContextIsFine(t *testing.T) {
	s := machine(t)
	// Online, but on a platform whose metadata service is not asked.
	s.configs = []network.Config{{}}
	s.cmd = cmdline.Parse("cvm_platform=none")
	isSkipped(t, findContext(t.Context(), s, &report{}))
	if err := s.keepContext(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s.rw("context"), "source"); got != "none\n" {
		t.Errorf("source = %q, want none", got)
	}
	later := machine(t)
	later.rwDir = s.rwDir
	isSkipped(t, findContext(t.Context(), later, &report{}))
	if later.newSelf || later.context == nil {
		t.Errorf("later boot: new %v, context %v", later.newSelf, later.context)
	}
}

// TestNobodyCouldBeAsked: a first boot without a network must not settle that
// the machine has no context.
func TestNobodyCouldBeAsked(t *testing.T) {
	s := machine(t)
	isSkipped(t, findContext(t.Context(), s, &report{}))
	if s.keep || s.source != "none" {
		t.Errorf("keep %v, source %q; want the question left open", s.keep, s.source)
	}
}

func TestBadKeysAreToldAndTheRestCounts(t *testing.T) {
	s := machine(t)
	s.local = drive("i-1", "[ucernvm-begin]\nresize_rootfs=perhaps\ncernvm_path=cvm4\n[ucernvm-end]\n")
	if err := findContext(t.Context(), s, &report{}); err == nil {
		t.Error("a bad value is not told")
	}
	if s.keys.Path != "cvm4" || !s.keep {
		t.Errorf("path %q, keep %v; want the good key to count", s.keys.Path, s.keep)
	}
}

func TestHostileUserDataIsBounded(t *testing.T) {
	s := machine(t)
	s.local = drive("i-1", "\x1f\x8b\x08 not gzip")
	_ = findContext(t.Context(), s, &report{}) // a warning, never a panic
	if !s.keep {
		t.Error("the context is not kept")
	}
}

// TestPairingNeedsANetwork: a worker without a network boots with the keys it
// has, instead of waiting for its master.
func TestPairingNeedsANetwork(t *testing.T) {
	s := machine(t)
	s.local = drive("i-1", "[ucernvm-begin]\ncvm_cluster_pin=123456\n[ucernvm-end]\n")
	if err := findContext(t.Context(), s, &report{}); err != nil {
		t.Errorf("without a network: %v, want pairing left out", err)
	}
}
