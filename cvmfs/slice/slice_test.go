package slice_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/slice"
)

// content is what the object number n has.
func content(n int) []byte { return bytes.Repeat([]byte{byte(n)}, 300*n) }

func sample(n int) *profile.Profile {
	p := &profile.Profile{Repository: "os.example.org", Root: cvmfs.SHA1.Sum([]byte("root")), Recorded: time.Unix(1_800_000_000, 0).UTC()}
	for i := range n {
		p.Objects = append(p.Objects, profile.Object{Hash: cvmfs.SHAKE128.Sum(content(i)), Suffix: cvmfs.SuffixPartial, Size: int64(len(content(i)))})
	}
	return p
}

func write(t testing.TB, p *profile.Profile) []byte {
	t.Helper()
	byHash := map[cvmfs.Hash]int{}
	for n, o := range p.Objects {
		byHash[o.Hash] = n
	}
	var out bytes.Buffer
	get := func(_ context.Context, o profile.Object) ([]byte, error) {
		time.Sleep(time.Duration(byHash[o.Hash]%3) * time.Millisecond) // they arrive in another order
		return content(byHash[o.Hash]), nil
	}
	if err := slice.Write(t.Context(), &out, p, []slice.File{{Name: ".cvmfspublished", Data: []byte("C")}}, get, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRoundTrip(t *testing.T) {
	p := sample(40)
	data := write(t, p)
	if !slice.Is(data[:512]) {
		t.Error("Is = false")
	}
	if again := write(t, p); !bytes.Equal(data, again) {
		t.Error("written twice it is not the same")
	}
	onDisk := append(data, make([]byte, 1<<20)...) // a disk is longer
	s, err := slice.Open(bytes.NewReader(onDisk), int64(len(onDisk)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, s.Profile); diff != "" {
		t.Errorf("profile (-want +got):\n%s", diff)
	}
	if s.Len() != 42 {
		t.Errorf("Len = %d, want 42", s.Len())
	}
	for n, o := range p.Objects {
		f, ok := s.Open(o.Path())
		if got, err := io.ReadAll(f); !ok || err != nil || !bytes.Equal(got, content(n)) {
			t.Errorf("object %d: %d bytes, %v, %v; want %d", n, len(got), ok, err, len(content(n)))
		}
	}
	if _, ok := s.Open("data/00/none"); ok {
		t.Error("a file that is not there was opened")
	}
}

// TestTarReadsIt gives a slice to the tar of this computer.
func TestTarReadsIt(t *testing.T) {
	p := sample(5)
	file := filepath.Join(t.TempDir(), "slice")
	if err := os.WriteFile(file, write(t, p), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "tar", "-tf", file).CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	want := ".micaslice\n.cvmfspublished\n"
	for _, o := range p.Objects {
		want += o.Path() + "\n"
	}
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("tar -t (-want +got):\n%s", diff)
	}
}

func TestWriteFails(t *testing.T) {
	p, boom := sample(30), errors.New("boom")
	for _, at := range []int{0, 17, 29} {
		get := func(_ context.Context, o profile.Object) ([]byte, error) {
			if o == p.Objects[at] {
				return nil, boom
			}
			return []byte("x"), nil
		}
		err := slice.Write(t.Context(), io.Discard, p, nil, get, nil)
		if !errors.Is(err, boom) || !strings.Contains(err.Error(), p.Objects[at].Path()) {
			t.Errorf("Write = %v, want boom and the object's name", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	get := func(ctx context.Context, _ profile.Object) ([]byte, error) { return nil, ctx.Err() }
	if err := slice.Write(ctx, io.Discard, p, nil, get, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v, want canceled", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	good := write(t, sample(3))
	archive := func(h tar.Header, body string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h.Mode, h.Size = 0o444, int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, body)
		_ = w.Close()
		return b.Bytes()
	}
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":           {nil, slice.ErrNoSlice},
		"a blank disk":      {make([]byte, 4096), slice.ErrNoSlice},
		"another archive":   {archive(tar.Header{Name: "hello", Typeflag: tar.TypeReg}, "hi"), slice.ErrNoSlice},
		"no profile in it":  {archive(tar.Header{Name: slice.Name, Typeflag: tar.TypeReg}, "hi"), cvmfs.ErrMalformed},
		"cut at a header":   {good[:1024], cvmfs.ErrMalformed},
		"cut in a file":     {good[:len(good)-2048], cvmfs.ErrMalformed},
		"a wrong checksum":  {change(func(b []byte) { b[1024+1] ^= 1 }), cvmfs.ErrMalformed},
		"the same twice":    {append(bytes.Clone(good[:len(good)-1024]), good...), cvmfs.ErrMalformed},
		"a link":            {append(bytes.Clone(good[:len(good)-1024]), archive(tar.Header{Name: "x", Linkname: "/etc", Typeflag: tar.TypeSymlink}, "")...), cvmfs.ErrMalformed},
		"a negative length": {append(bytes.Clone(good[:len(good)-1024]), negative(t)...), cvmfs.ErrMalformed},
	} {
		s, err := slice.Open(bytes.NewReader(c.data), int64(len(c.data)))
		if !errors.Is(err, c.want) {
			t.Errorf("%s: Open = %v, %v; want %v", name, s, err, c.want)
		}
	}
}

// negative is a header whose length is a negative number in base 256.
func negative(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, 1536)
	copy(b, "x")
	copy(b[257:], "ustar\x0000")
	b[156] = '0'
	for i := 124; i < 136; i++ {
		b[i] = 0xff
	}
	sum := 8 * int(' ')
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func FuzzOpen(f *testing.F) {
	f.Add(write(f, sample(2)))
	f.Add(make([]byte, 512))
	f.Fuzz(func(_ *testing.T, data []byte) {
		s, err := slice.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		for _, o := range s.Profile.Objects {
			r, _ := s.Open(o.Path())
			_, _ = io.Copy(io.Discard, r)
		}
	})
}
