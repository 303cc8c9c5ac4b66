package publish_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/tier"
)

// Whatever an archive has, it is refused as one, or its revision has nothing that
// readers refuse. Names and kinds are given apart, as the checksums of headers
// would stop nearly every change of an archive's bytes.
func FuzzTar(f *testing.F) {
	tier.Full(f) // each is a publication
	const types = string(tar.TypeReg) + string(tar.TypeLink) + string(tar.TypeSymlink) + string(tar.TypeDir) +
		string(tar.TypeChar) + string(tar.TypeFifo)
	var raw bytes.Buffer
	_, err := io.Copy(&raw, archive(f, member{tar.Header{Name: "a/b"}, "x"}))
	must(f, err)
	long := strings.Repeat("x", 255)
	for _, seed := range []struct {
		name, second, target string
		kind, kind2          byte
		content              []byte
	}{
		{"a", "a/b", "a", 0, 1, []byte("x")},
		{"a", "b", "a", 0, 1, raw.Bytes()},
		{"./a/", "a", "", 3, 2, nil},
		{"a", "b", "", 2, 0, nil},
		{"a", "b", strings.Repeat("y", 5000), 3, 2, nil},
		{long + "/" + long, long + "y", "a", 0, 0, nil},
		{".cvmfsdirtab", "d", "", 0, 3, []byte("/*\n")},
		{"d/.cvmfscatalog", "d/.cvmfsautocatalog", "d/.cvmfscatalog", 0, 1, nil},
		{".", "..", "", 0, 0, nil},
		{"a", "b", "a", 4, 1, nil},
		{"a\xff", "b\n", "c", 5, 2, nil},
	} {
		f.Add(seed.name, seed.second, seed.target, seed.kind, seed.kind2, seed.content)
	}
	f.Fuzz(func(t *testing.T, name, second, target string, kind, kind2 byte, content []byte) {
		var made bytes.Buffer
		tw := tar.NewWriter(&made)
		for _, h := range []*tar.Header{
			{Name: name, Linkname: target, Typeflag: types[int(kind)%len(types)], Mode: 0o644, ModTime: clock},
			{Name: second, Linkname: target, Typeflag: types[int(kind2)%len(types)], Mode: 0o7777, ModTime: clock},
		} {
			if h.Typeflag == tar.TypeReg {
				h.Size = int64(len(content))
			}
			if tw.WriteHeader(h) != nil {
				return // what the format has no room for
			}
			if h.Typeflag == tar.TypeReg {
				_, err := tw.Write(content)
				must(t, err)
			}
		}
		must(t, tw.Close())
		archives := [][]byte{made.Bytes()}
		if len(content) >= 512 { // a header's size
			archives = append(archives, content)
		}
		for _, data := range archives {
			w := newWorld(t)
			o := w.options()
			o.Source, o.Tar = "", bytes.NewReader(data)
			_, err := publish.Publish(t.Context(), o)
			if err != nil && !errors.Is(err, publish.ErrSource) {
				t.Errorf("Publish = %v, want ErrSource", err)
			}
			clean(t, w.check(t))
		}
	})
}
