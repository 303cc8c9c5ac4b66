package plugins_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS machine"

// TestGolden applies one section to a small system and compares what was done and
// what the files are then. A file of testdata is one story: a comment whose first
// line names the system and the plugin, the context, files to add to the system
// (in/…), then the golden part, which -update rewrites.
func TestGolden(t *testing.T) {
	stories, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(stories) == 0 {
		t.Fatalf("stories: %v, %v", stories, err)
	}
	told := map[string]bool{}
	for _, file := range stories {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var system, name string
			if _, err := fmt.Sscanf(string(archive.Comment), "%s %s\n", &system, &name); err != nil {
				t.Fatalf("first line of %s: %v", file, err)
			}
			told[name] = true
			got := tell(t, archive, system, name)
			if *update {
				kept := slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return golden(f.Name) })
				archive.Files = append(kept, got...)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			var want []txtar.File
			for _, f := range archive.Files {
				if golden(f.Name) {
					want = append(want, f)
				}
			}
			if diff := cmp.Diff(plain(want), plain(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
	for _, p := range plugins.Table() {
		if !told[p.Name] {
			t.Errorf("plugin %s has no story in testdata", p.Name)
		}
	}
}

func golden(name string) bool {
	return name == "actions" || name == "error" || name == "warnings" || strings.HasPrefix(name, "out/")
}

func plain(files []txtar.File) map[string]string {
	m := map[string]string{}
	for _, f := range files {
		m[f.Name] = string(f.Data)
	}
	return m
}

// tell runs one story and returns its golden part.
func tell(t *testing.T, story *txtar.Archive, system, name string) []txtar.File {
	t.Helper()
	dir := t.TempDir()
	base, err := txtar.ParseFile("testdata/systems/" + system + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range base.Files {
		put(t, dir, f.Name, f.Data)
	}
	var text []byte
	for _, f := range story.Files {
		if rest, ok := strings.CutPrefix(f.Name, "in/"); ok {
			put(t, dir, rest, f.Data)
		}
		if f.Name == "context" {
			text = f.Data
		}
	}
	root, err := guest.Open(guest.Options{
		Dir: dir, Runner: nothing{}, Volatile: true, HTTP: answers{}, Dial: dial,
		Now: func() time.Time { return time.Unix(1_700_000_000, 0) }, Rand: rand.NewChaCha8([32]byte{7}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	p, ok := plugins.ByName(name)
	if !ok {
		t.Fatalf("no plugin %q", name)
	}
	section := plugins.Section{Name: name}
	options, present := usercontext.ParseAmiconfig(text).Section(name)
	section.Present = present
	for _, o := range options {
		section.Options = append(section.Options, plugins.Option{Key: o.Key, Value: o.Value})
	}
	var warnings []string
	call := &plugins.Call{
		Root: root, Section: section,
		Meta: plugins.Meta{InstanceID: "i-42", Hostname: "vm42.example.org", PublicKeys: []string{publicKey}},
		Warn: func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) },
	}
	err = p.Apply(t.Context(), call)
	for _, step := range []func(context.Context, *plugins.Call) error{p.EveryBoot, p.Last} {
		if step != nil {
			err = errors.Join(err, step(t.Context(), call))
		}
	}
	secrets(t, p, section, root, err, warnings)

	var out []txtar.File
	add := func(name, text string) {
		if text != "" {
			if !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			out = append(out, txtar.File{Name: name, Data: []byte(text)})
		}
	}
	if err != nil {
		add("error", strings.ReplaceAll(err.Error(), dir, "$ROOT"))
	}
	add("warnings", strings.Join(warnings, "\n"))
	var actions strings.Builder
	var files []string
	for _, a := range root.Actions() {
		fmt.Fprintln(&actions, strings.TrimSpace(strings.Join([]string{string(a.Kind), a.Target, a.Detail, a.Mode, a.Owner}, " ")))
		if a.Kind == guest.KindFile && !slices.Contains(files, a.Target) {
			files = append(files, a.Target)
		}
	}
	add("actions", actions.String())
	slices.Sort(files)
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // taken away again
			}
			t.Fatal(err)
		}
		if !bytes.HasSuffix(data, []byte("\n")) {
			data = append(data, "(no line break here)\n"...)
		}
		out = append(out, txtar.File{Name: "out" + f, Data: []byte(strings.ToValidUTF8(string(data), "?"))})
	}

	// A second time nothing changes.
	n := len(root.Actions())
	_ = p.Apply(t.Context(), call)
	for _, step := range []func(context.Context, *plugins.Call) error{p.EveryBoot, p.Last} {
		if step != nil {
			_ = step(t.Context(), call)
		}
	}
	for _, a := range root.Actions()[n:] {
		switch a.Kind {
		case guest.KindFile, guest.KindDirectory, guest.KindLink, guest.KindAttr, guest.KindRemove, guest.KindUser,
			guest.KindAccount, guest.KindGroup, guest.KindPassword:
			t.Errorf("the second time did %+v", a)
		}
	}
	return out
}

// secrets fails the test if the value of a secret option shows anywhere but in
// files that only root reads.
func secrets(t *testing.T, p plugins.Plugin, s plugins.Section, root *guest.Root, err error, warnings []string) {
	t.Helper()
	text := fmt.Sprint(err, warnings)
	for _, a := range root.Actions() {
		text += a.Target + a.Detail
	}
	for _, k := range p.Keys {
		v, _ := s.Lookup(k.Name)
		if !k.Secret || v == "" {
			continue
		}
		values := []string{v}
		if k.Kind == plugins.Users {
			values = nil
			for _, user := range strings.Split(v, ",") {
				if f := strings.Split(user, ":"); len(f) == 3 && len(f[2]) > 3 {
					values = append(values, f[2])
				}
			}
		}
		for _, v := range values {
			if strings.Contains(text, v) {
				t.Errorf("secret %s shows in %q", k.Name, text)
			}
		}
	}
}

func put(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if strings.Contains(name, "bin/") || strings.Contains(name, "init.d/") {
		mode = 0o755
	}
	if err := os.WriteFile(file, data, mode); err != nil {
		t.Fatal(err)
	}
}

// nothing is a Runner whose programs all succeed and do nothing.
type nothing struct{}

func (nothing) Run(context.Context, guest.Command) (guest.Result, error) { return guest.Result{}, nil }

// answers is a network with a few pages.
type answers struct{}

func (answers) Do(r *http.Request) (*http.Response, error) {
	pages := map[string]string{
		"dynupdate.no-ip.com/nic/update": "good 192.0.2.7\r\n",
		"ca.example.org/ca.crt":          "-----BEGIN CERTIFICATE-----\nY2E=\n-----END CERTIFICATE-----\n",
		"169.254.169.254/context/x.tgz":  "",
	}
	body, ok := pages[r.URL.Host+r.URL.Path]
	status := http.StatusOK
	if !ok {
		status, body = http.StatusNotFound, "404 - Not Found"
	}
	if strings.HasSuffix(r.URL.Path, "/x.tgz") {
		body = siteArchive()
	}
	return &http.Response{
		StatusCode: status, Status: fmt.Sprintf("%d %s", status, http.StatusText(status)),
		Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}, Request: r,
	}, nil
}

// dial opens connections to a machine that knows nothing but its own address.
func dial(_ context.Context, network, _ string) (net.Conn, error) {
	if network == "udp" {
		return udp{}, nil
	}
	return nil, errors.New("connection refused")
}

type udp struct{ net.Conn }

func (udp) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4242} }
func (udp) Close() error        { return nil }
