package profile_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/profile"
)

func hash(t testing.TB, a cvmfs.Algorithm, text string) cvmfs.Hash {
	t.Helper()
	return a.Sum([]byte(text))
}

func sample(t testing.TB) *profile.Profile {
	return &profile.Profile{
		Repository: "os.example.org", Root: hash(t, cvmfs.SHA1, "root"), Recorded: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC),
		Objects: []profile.Object{
			{Hash: hash(t, cvmfs.SHA1, "root"), Suffix: cvmfs.SuffixCatalog, Size: -1},
			{Hash: hash(t, cvmfs.SHAKE128, "file"), Size: 4, Compression: cvmfs.Plain},
			{Hash: hash(t, cvmfs.RIPEMD160, "chunk"), Suffix: cvmfs.SuffixPartial, Size: 1 << 40},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, external := range []int{0, 7} {
		want := sample(t)
		want.External = external
		got, err := profile.Parse(want.Text())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Parse(Text()) (-want +got):\n%s", diff)
		}
		if n := got.Bytes(); n != 4+1<<40 {
			t.Errorf("Bytes() = %d", n)
		}
		if said := strings.Contains(string(want.Text()), "external"); said != (external > 0) {
			t.Errorf("with %d external files: %s", external, want.Text())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(sample(t).Text())
	for name, text := range map[string]string{
		"nothing":         "",
		"something else":  "hello\n",
		"another version": strings.Replace(good, "profile 1", "profile 2", 1),
		"a name":          strings.Replace(good, "os.example.org", "../../etc", 1),
		"no root":         strings.Replace(good, "root ", "root x", 1),
		"a time":          strings.Replace(good, "2026-05-04", "yesterday", 1),
		"too few":         strings.Replace(good, "objects 3", "objects 4", 1),
		"too many":        strings.Replace(good, "objects 3", "objects 2", 1),
		"a billion":       strings.Replace(good, "objects 3", "objects 1000000000", 1),
		"less than none":  strings.Replace(good, "objects 3", "objects -1", 1),
		"a size":          strings.Replace(good, " -1 zlib", " -2 zlib", 1),
		"a compression":   strings.Replace(good, " none", " lzma", 1),
		"a path's hash":   strings.Replace(good, hash(t, cvmfs.SHA1, "root").String()+"C", hash(t, cvmfs.MD5, "root").String()+"C", 1),
		"no external":     strings.Replace(good, "objects 3", "external 0\nobjects 3", 1),
		"what external":   strings.Replace(good, "objects 3", "external many\nobjects 3", 1),
		"cut short":       good[:len(good)-1],
	} {
		if p, err := profile.Parse([]byte(text)); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("%s: Parse = %v, %v; want ErrMalformed", name, p, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample(f).Text())
	f.Add([]byte("mica-profile 1\nrepository a\nroot \nobjects 99999\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := profile.Parse(text)
		if err != nil {
			return
		}
		again, err := profile.Parse(p.Text())
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Errorf("read again it is another (-first +second):\n%s", diff)
		}
	})
}
