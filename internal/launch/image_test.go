package launch_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// web serves a folder and notes what was asked for.
type web struct {
	*httptest.Server
	mu    sync.Mutex
	paths []string
}

func (d *desk) serve(dir string, spoil func(http.ResponseWriter, *http.Request) bool) *web {
	w := &web{}
	files := http.FileServer(http.Dir(dir))
	w.Server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.paths = append(w.paths, r.URL.Path)
		w.mu.Unlock()
		if spoil == nil || !spoil(out, r) {
			files.ServeHTTP(out, r)
		}
	}))
	d.Cleanup(w.Close)
	d.env["MICA_LAUNCH_IMAGE_SERVER"] = w.URL + "/"
	return w
}

func (w *web) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.paths
	w.paths = nil
	return asked
}

func TestImage(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	dir := d.release([]byte("an image"))
	server := d.serve(dir, nil)
	d.must("create", "--no-start", "--name", "x", d.path("UD"))
	if diff := cmp.Diff([]string{"/latest", "/" + imagePath + ".sha256", "/" + imagePath}, server.asked()); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	address := server.URL + "/" + imagePath
	cached := d.path(".cernvm/cache/" + digest([]byte(address)) + "-" + filepath.Base(imagePath))
	if got := d.read(cached); got != "an image" {
		t.Errorf("the cache holds %q", got)
	}
	if got := d.record()["local/bootISO"]; got != cached {
		t.Errorf("local/bootISO = %q, want %q", got, cached)
	}
	if got := d.read(d.record()["local/baseFolder"] + "/image.iso"); got != "an image" {
		t.Errorf("the machine's image is %q", got)
	}
	d.must("create", "--no-start", "--name", "y", d.path("UD")) // from the cache
	if diff := cmp.Diff([]string{"/latest"}, server.asked()); diff != "" {
		t.Errorf("asked for, the second time (-want +got):\n%s", diff)
	}
	d.must("destroy", "x")
	d.must("destroy", "y")

	server.Close() // a known version needs no server
	d.write("c.conf", "cernvmVersion="+version+"\n")
	d.must("create", "--no-start", "--name", "x", d.path("UD"), d.path("c.conf"))
	d.must("destroy", "x")
	if err := os.WriteFile(cached, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.fails(4, "Unable to get the image", "create", "--no-start", "--name", "x", d.path("UD"), d.path("c.conf"))
	if left := d.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestServersFaults has the server answer wrongly: the original loops for ever at
// the second, and ends with 0 at the first.
func TestServersFaults(t *testing.T) {
	page := func(w http.ResponseWriter) {
		_, _ = w.Write([]byte("<!DOCTYPE html><html>" + strings.Repeat("log in ", 20) + "</html>"))
	}
	suffix := func(end string, do func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, end) {
				do(w)
				return true
			}
			return false
		}
	}
	text := func(t string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write([]byte(t))
		}
	}
	for _, tc := range []struct {
		name, version string
		spoil         func(http.ResponseWriter, *http.Request) bool
		want          string
		asked         int
	}{
		{"unknown version", "9.9-9", nil, "There is no image of version 9.9-9", 1},
		{"a page for a digest", version, suffix(".sha256", page), "web page", 1},
		{"text for a digest", version, suffix(".sha256", text(strings.Repeat("x", 100))), "holds no SHA-256 digest", 1},
		{"a page for the version", "latest", suffix("latest", page), "web page", 1},
		{"a path for the version", "latest", suffix("latest", text("../../etc")), "is no version", 1},
		{"a long version", "latest", suffix("latest", text(strings.Repeat("1", 65))), "is no version", 1},
		{"nothing for the version", "latest", suffix("latest", text(" \n")), "is no version", 1},
		{"another image", version, suffix(".iso", text("another")), "the digest is", 2},
		{"a path from the user", "../x", nil, "is no version", 0},
		{"dots", "2..7", nil, "is no version", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDesk(t)
			d.useMemory()
			server := d.serve(d.release([]byte("an image")), tc.spoil)
			d.write("c.conf", "cernvmVersion="+tc.version+"\n")
			d.fails(4, tc.want, "create", "--no-start", "--name", "x", d.path("UD"), d.path("c.conf"))
			if asked := server.asked(); len(asked) != tc.asked {
				t.Errorf("asked for %v, want %d requests", asked, tc.asked)
			}
			if left := d.left(); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestArchitectureAndFlavor(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	server := d.serve(t.TempDir(), nil)
	d.write("c.conf", "cernvmVersion=1.0\ncernvmFlavor=devel\nflags=4\n")
	d.fails(4, "There is no image", "create", "--name", "x", d.path("UD"), d.path("c.conf"))
	if want := "/ucernvm-images.1.0.cernvm.i386/ucernvm-devel.1.0.cernvm.i386.iso.sha256"; !slices.Contains(server.asked(), want) {
		t.Errorf("did not ask for %s", want)
	}
	d.write("c.conf", "cernvmVersion=1.0\ncernvmFlavor=../x\n")
	d.fails(4, "cernvmFlavor", "create", "--name", "x", d.path("UD"), d.path("c.conf"))
}

// vdi is what a VDI image begins with.
func vdi(text string) []byte {
	return append(append(make([]byte, 0x40), "\x7f\x10\xda\xbe"...), text...)
}

func zip(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

func TestDiskByURL(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	dir := t.TempDir()
	plain := vdi("the disk")
	for name, data := range map[string][]byte{"d.vdi": plain, "d.vdi.gz": zip(plain), "d.txt": []byte("no disk")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := d.serve(dir, nil)
	order := func(name string, sum []byte, more string) []string {
		d.write("c.conf", fmt.Sprintf("flags=3\ndiskURL=%s/%s\ndiskChecksum=%s\n%s", server.URL, name, digest(sum), more))
		return []string{"create", "--no-start", "--name", "x", d.path("UD"), d.path("c.conf")}
	}
	for range 2 {
		for _, file := range []string{"d.vdi", "d.vdi.gz"} {
			sum := plain
			if file == "d.vdi.gz" {
				sum = zip(plain)
			}
			d.must(order(file, sum, "")...)
			s := m.specs[d.record()["vboxid"]]
			if s.Image.Format != "vdi" || s.Image.SHA256 != digest(plain) || !s.Image.Verified {
				t.Errorf("%s: the driver got %+v", file, s.Image)
			}
			d.must("destroy", "x")
		}
	}
	if asked := server.asked(); len(asked) != 2 {
		t.Errorf("asked for %v, want each file once", asked)
	}
	// What was unpacked is looked at again.
	unpacked, _ := filepath.Glob(d.path(".cernvm/cache/*-d.vdi"))
	for _, path := range unpacked {
		if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.must(order("d.vdi.gz", zip(plain), "")...)
	if got := m.specs[d.record()["vboxid"]].Image.SHA256; got != digest(plain) {
		t.Errorf("the driver got a damaged disk, %s", got)
	}
	d.must("destroy", "x")
	d.fails(4, "the digest is", order("d.vdi?again", []byte("else"), "")...)
	d.fails(4, "is no disk image", order("d.txt", []byte("no disk"), "")...)
	d.fails(4, "more than one boot medium", order("d.vdi", plain, "flags=259\n")...)
}

// TestDiskByPath sees that the user's own disk is not the machine's.
func TestDiskByPath(t *testing.T) {
	d := newDesk(t)
	m := d.useMemory()
	path := d.write("own.vdi", string(vdi("mine")))
	m.at["Create"] = func() {
		own, err1 := os.Stat(path)
		copied, err2 := os.Stat(d.record()["local/baseFolder"] + "/image.vdi")
		if err := errors.Join(err1, err2); err != nil || os.SameFile(own, copied) {
			t.Errorf("the machine has the user's own disk (%v)", err)
		}
	}
	d.write("c.conf", "flags=257\ndiskPath="+path+"\n")
	d.must("create", "--no-start", "--name", "x", d.path("UD"), d.path("c.conf"))
	d.must("destroy", "x")
	if got := d.read(path); got != string(vdi("mine")) {
		t.Errorf("the user's disk is %q", got)
	}
}
