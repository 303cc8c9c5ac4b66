package cpio_test

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/image/cpio"
	"github.com/micavm/mica/internal/tier"
)

var sample = []cpio.Entry{
	{Path: "sbin/tool", Mode: 0o755, Data: []byte("tool")},
	{Path: "init", Mode: fs.ModeSymlink | 0o777, Link: "sbin/tool"},
	{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	{Path: "empty", Mode: 0o400},
	{Path: "dev/null", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Major: 1, Minor: 3},
	{Path: "sbin-other", Mode: 0o4755, Data: bytes.Repeat([]byte("x"), 5000)},
}

func archive(t *testing.T, entries []cpio.Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := cpio.Write(&b, entries, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestAgainstCpio has GNU cpio list and unpack an archive.
func TestAgainstCpio(t *testing.T) {
	tool := tier.Tool(t, "cpio")
	data := archive(t, sample)
	list := exec.Command(tool, "-itvn", "--quiet")
	list.Stdin, list.Env = bytes.NewReader(data), append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"drwxr-xr-x 2 0 0 0 Nov 14 2023 dev",
		"crw-rw-rw- 1 0 0 1, 3 Nov 14 2023 dev/null",
		"-r-------- 1 0 0 0 Nov 14 2023 empty",
		"lrwxrwxrwx 1 0 0 9 Nov 14 2023 init -> sbin/tool",
		"drwxr-xr-x 2 0 0 0 Nov 14 2023 sbin",
		"-rwxr-xr-x 1 0 0 4 Nov 14 2023 sbin/tool",
		"-rwxr-xr-x 1 0 0 5000 Nov 14 2023 sbin-other",
		"drwxrwxrwt 2 0 0 0 Nov 14 2023 tmp",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
	dir := t.TempDir()
	unpack := exec.Command(tool, "-i", "--quiet", "sbin/tool", "sbin-other", "sbin")
	unpack.Stdin, unpack.Dir = bytes.NewReader(data), dir
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for _, e := range sample {
		if !strings.HasPrefix(e.Path, "sbin") {
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir, e.Path)); err != nil || !bytes.Equal(got, e.Data) {
			t.Errorf("%s: content differs (%v)", e.Path, err)
		}
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	first := archive(t, sample)
	reversed := make([]cpio.Entry, len(sample))
	for i, e := range sample {
		reversed[len(sample)-1-i] = e
	}
	if !bytes.Equal(first, archive(t, reversed)) {
		t.Error("the order of the list changed the archive")
	}
}

func TestRefused(t *testing.T) {
	for name, entries := range map[string][]cpio.Entry{
		"escape":       {{Path: "../x"}},
		"absolute":     {{Path: "/x"}},
		"twice":        {{Path: "x"}, {Path: "x"}},
		"below a file": {{Path: "x"}, {Path: "x/y"}},
		"socket":       {{Path: "x", Mode: fs.ModeSocket}},
		"empty link":   {{Path: "x", Mode: fs.ModeSymlink}},
		"trailer":      {{Path: "TRAILER!!!"}},
	} {
		if err := cpio.Write(io.Discard, entries, time.Unix(0, 0)); err == nil {
			t.Errorf("%s: Write succeeded", name)
		}
	}
}
