package cvmfs_test

import (
	"bytes"
	"compress/zlib"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"iter"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
)

func deflate(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHashText(t *testing.T) {
	const digits = "2e5bee7da3f1e9b7c5f5e4d5c6b7a8998877665544332211"
	for _, test := range []struct {
		text string
		want cvmfs.Algorithm
		path string
	}{
		{digits[:32], cvmfs.MD5, "data/2e/" + digits[2:32]},
		{digits[:40], cvmfs.SHA1, "data/2e/" + digits[2:40]},
		{digits[:40] + "-rmd160", cvmfs.RIPEMD160, "data/2e/" + digits[2:40] + "-rmd160"},
		{digits[:40] + "-shake128", cvmfs.SHAKE128, "data/2e/" + digits[2:40] + "-shake128"},
	} {
		h, err := cvmfs.ParseHash(test.text)
		if err != nil || h.Algorithm != test.want || h.String() != test.text {
			t.Errorf("ParseHash(%q) = %v of %v, %v, want the same of %v", test.text, h, h.Algorithm, err, test.want)
		}
		if got := h.ObjectPath(cvmfs.SuffixNone); got != test.path {
			t.Errorf("ObjectPath(none) = %q, want %q", got, test.path)
		}
		if got := h.ObjectPath(cvmfs.SuffixCatalog); got != test.path+"C" {
			t.Errorf("ObjectPath(C) = %q, want %q", got, test.path+"C")
		}
	}
	for _, text := range []string{
		"", digits[:39], digits[:41], strings.ToUpper(digits[:40]), "g" + digits[:39],
		digits[:40] + "-sha1", digits[:40] + "-RMD160", digits[:40] + "-shake12x", digits[:32] + "-shake128", digits[:40] + "C",
	} {
		if h, err := cvmfs.ParseHash(text); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("ParseHash(%q) = %v, %v, want ErrMalformed", text, h, err)
		}
	}
	if (cvmfs.Hash{}).String() != "" || !(cvmfs.Hash{}).IsZero() {
		t.Error("the zero hash is not none")
	}
	if null, err := cvmfs.ParseHash(strings.Repeat("0", 40)); err != nil || !null.IsZero() {
		t.Errorf("forty zeros = %v, %v, want none", null, err)
	}
}

// The empty file is a stream of eight bytes when compressed, and the hash of
// nothing when not.
func TestEmptyObject(t *testing.T) {
	zlibEmpty := []byte{0x78, 0x9c, 0x03, 0, 0, 0, 0, 0x01}
	if got, want := cvmfs.SHA1.Sum(zlibEmpty).String(), "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"; got != want {
		t.Errorf("SHA1.Sum(empty stream) = %s, want %s", got, want)
	}
	if got, want := cvmfs.SHAKE128.Sum(nil).String(), "7f9c2ba4e88f827d616045507605853ed73b8093-shake128"; got != want {
		t.Errorf("SHAKE128.Sum(nil) = %s, want %s", got, want)
	}
	if got, want := cvmfs.RIPEMD160.Sum(nil).String(), "9c1185a5c5e9fc54612808977ee8f548b2258d31-rmd160"; got != want {
		t.Errorf("RIPEMD160.Sum(nil) = %s, want %s", got, want)
	}
	n, err := cvmfs.CopyVerified(io.Discard, bytes.NewReader(zlibEmpty), cvmfs.SHA1.Sum(zlibEmpty), cvmfs.Zlib, 0)
	if n != 0 || err != nil {
		t.Errorf("CopyVerified(empty stream) = %d, %v", n, err)
	}
}

// Sum in the middle must not end the stream: the publisher reads intermediate
// digests of nothing, but hash.Hash promises it.
func TestShakeSumKeepsState(t *testing.T) {
	h := cvmfs.SHAKE128.New()
	_, _ = h.Write([]byte("ab"))
	_ = h.Sum(nil)
	_, _ = h.Write([]byte("c"))
	if got, want := cvmfs.NewHash(cvmfs.SHAKE128, h), cvmfs.SHAKE128.Sum([]byte("abc")); got != want {
		t.Errorf("digest after an early Sum = %v, want %v", got, want)
	}
}

func TestCopyVerified(t *testing.T) {
	plain := bytes.Repeat([]byte("plain content "), 10000)
	stored := deflate(t, plain)
	sha1 := cvmfs.SHA1.Sum
	broken := bytes.Clone(stored)
	broken[len(broken)/2] ^= 1
	trailing := append(bytes.Clone(stored), 0)
	for _, test := range []struct {
		name   string
		stored []byte
		want   cvmfs.Hash
		c      cvmfs.Compression
		max    int64
		good   bool
	}{
		{"zlib", stored, sha1(stored), cvmfs.Zlib, int64(len(plain)), true},
		{"shake128", stored, cvmfs.SHAKE128.Sum(stored), cvmfs.Zlib, int64(len(plain)), true},
		{"plain", plain, sha1(plain), cvmfs.Plain, int64(len(plain)), true},
		{"absurd bound", stored, sha1(stored), cvmfs.Zlib, 1 << 62, true},
		{"plain, absurd bound", plain, sha1(plain), cvmfs.Plain, math.MaxInt64, true},
		{"hash of the plain bytes", stored, sha1(plain), cvmfs.Zlib, int64(len(plain)), false},
		{"broken", broken, sha1(stored), cvmfs.Zlib, int64(len(plain)), false},
		{"broken with its own hash", broken, sha1(broken), cvmfs.Zlib, int64(len(plain)), false},
		{"cut short", stored[:len(stored)-1], sha1(stored[:len(stored)-1]), cvmfs.Zlib, int64(len(plain)), false},
		{"bytes behind the stream", trailing, sha1(trailing), cvmfs.Zlib, int64(len(plain)), false},
		{"bomb", stored, sha1(stored), cvmfs.Zlib, int64(len(plain)) - 1, false},
		{"plain too long", plain, sha1(plain), cvmfs.Plain, int64(len(plain)) - 1, false},
		{"nothing", nil, sha1(stored), cvmfs.Zlib, int64(len(plain)), false},
		{"negative bound", plain, sha1(plain), cvmfs.Plain, -7, false},
		{"a page of HTML", []byte("<html>log in here</html>"), sha1(stored), cvmfs.Zlib, int64(len(plain)), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got bytes.Buffer
			n, err := cvmfs.CopyVerified(&got, iotest.OneByteReader(bytes.NewReader(test.stored)), test.want, test.c, test.max)
			if n != int64(got.Len()) {
				t.Errorf("n = %d, wrote %d", n, got.Len())
			}
			if n > max(test.max, 0) {
				t.Errorf("wrote %d bytes, bound is %d", n, test.max)
			}
			if test.good {
				if err != nil || !bytes.Equal(got.Bytes(), plain) {
					t.Errorf("CopyVerified = %d bytes, %v, want the content", n, err)
				}
			} else if !errors.Is(err, cvmfs.ErrCorrupt) {
				t.Errorf("CopyVerified = %v, want ErrCorrupt", err)
			}
		})
	}
}

// What the network or the disk did wrong is not the object's fault.
func TestCopyVerifiedOtherErrors(t *testing.T) {
	plain := []byte("content")
	stored := deflate(t, plain)
	boom := errors.New("boom")
	for _, c := range []cvmfs.Compression{cvmfs.Zlib, cvmfs.Plain} {
		src := io.MultiReader(bytes.NewReader(stored[:4]), iotest.ErrReader(boom))
		_, err := cvmfs.CopyVerified(io.Discard, src, cvmfs.SHA1.Sum(stored), c, 100)
		if !errors.Is(err, boom) || errors.Is(err, cvmfs.ErrCorrupt) {
			t.Errorf("%v: error of the source = %v", c, err)
		}
	}
	_, err := cvmfs.CopyVerified(failingWriter{boom}, bytes.NewReader(stored), cvmfs.SHA1.Sum(stored), cvmfs.Zlib, 100)
	if !errors.Is(err, boom) || errors.Is(err, cvmfs.ErrCorrupt) {
		t.Errorf("error of the destination = %v", err)
	}
	// A stream of empty stored blocks never ends and never yields a byte.
	endless := io.MultiReader(bytes.NewReader([]byte{0x78, 0x9c}), iterReader(func(yield func([]byte) bool) {
		for yield([]byte{0, 0, 0, 0xff, 0xff}) {
		}
	}))
	if _, err := cvmfs.CopyVerified(io.Discard, endless, cvmfs.SHA1.Sum(stored), cvmfs.Zlib, 10); !errors.Is(err, cvmfs.ErrCorrupt) {
		t.Errorf("endless empty blocks = %v, want ErrCorrupt", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func iterReader(seq iter.Seq[[]byte]) io.Reader {
	next, _ := iter.Pull(seq)
	return readFunc(func(p []byte) (int, error) {
		b, ok := next()
		if !ok {
			return 0, io.EOF
		}
		return copy(p, b), nil
	})
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func trust(t testing.TB, repo cvmfstest.Repo) cvmfs.Trust {
	t.Helper()
	keys, err := cvmfs.ParsePublicKeys(repo.Key(t, "pub"))
	if err != nil {
		t.Fatal(err)
	}
	return cvmfs.Trust{Name: cvmfstest.Name, MasterKeys: keys, Now: func() time.Time {
		return time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	}}
}

func certificate(t testing.TB, repo cvmfstest.Repo, m *cvmfs.Manifest) []byte {
	t.Helper()
	var pem bytes.Buffer
	stored := repo.Read(t, m.Certificate.ObjectPath(cvmfs.SuffixCertificate))
	if _, err := cvmfs.CopyVerified(&pem, bytes.NewReader(stored), m.Certificate, cvmfs.Zlib, 64<<10); err != nil {
		t.Fatal(err)
	}
	return pem.Bytes()
}

func TestVerifyOriginal(t *testing.T) {
	repo := cvmfstest.Small(t)
	data := repo.Read(t, cvmfs.ManifestFile)
	m, err := cvmfs.ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	hash := func(s string) cvmfs.Hash {
		h, err := cvmfs.ParseHash(s)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	want := &cvmfs.Manifest{
		RootHash: hash(cvmfstest.RootHashes[3]), RootSize: 51200, TTL: 240 * time.Second, Revision: 3,
		GarbageCollectable: true, Name: cvmfstest.Name,
		Certificate: hash("344163b2c455843d202dea6b4a7e9d9018e14229-shake128"),
		History:     hash("41e6f1ef4cbc088767d0e6449eb76ed25d97f395-shake128"),
		Metainfo:    hash("26c3ed98b53e1308d02478520e466feac9f97ee2-shake128"),
		Reflog:      hash("92556b786142dba62e5162975128d314a69ddfdb-shake128"),
		Published:   time.Unix(1795219940, 0).UTC(),
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
	got, err := trust(t, repo).Verify(data, repo.Read(t, cvmfs.WhitelistFile), certificate(t, repo, m))
	if err != nil {
		t.Fatalf("Verify = %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verified manifest (-want +got):\n%s", diff)
	}
	if got := cvmfs.SHAKE128.Sum(repo.Read(t, cvmfs.ReflogFile)); got != m.Reflog {
		t.Errorf("hash of the reflog = %v, want %v", got, m.Reflog)
	}
}

// Our signing of the original's own fields and key gives the original's bytes.
func TestSignAsTheOriginal(t *testing.T) {
	repo := cvmfstest.Small(t)
	key, err := cvmfs.ParsePrivateKey(repo.Key(t, "key"))
	if err != nil {
		t.Fatal(err)
	}
	master, err := cvmfs.ParsePrivateKey(repo.Key(t, "masterkey"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := cvmfs.ParseManifest(repo.Read(t, cvmfs.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Sign(key); err != nil || !bytes.Equal(got, repo.Read(t, cvmfs.ManifestFile)) {
		t.Errorf("Sign = %q, %v, want the original's bytes", got, err)
	}
	w, err := cvmfs.ParseWhitelist(repo.Read(t, cvmfs.WhitelistFile))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.Sign(master); err != nil || !bytes.Equal(got, repo.Read(t, cvmfs.WhitelistFile)) {
		t.Errorf("whitelist Sign = %q, %v, want the original's bytes", got, err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	repo := cvmfstest.Small(t)
	key, _ := cvmfs.ParsePrivateKey(repo.Key(t, "key"))
	master, _ := cvmfs.ParsePrivateKey(repo.Key(t, "masterkey"))
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	base, err := cvmfs.ParseManifest(repo.Read(t, cvmfs.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	list, err := cvmfs.ParseWhitelist(repo.Read(t, cvmfs.WhitelistFile))
	if err != nil {
		t.Fatal(err)
	}
	manifest := func(change func(*cvmfs.Manifest), key *rsa.PrivateKey) []byte {
		m := *base
		change(&m)
		data, err := m.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	whitelist := func(change func(*cvmfs.Whitelist), key *rsa.PrivateKey) []byte {
		w := *list
		change(&w)
		data, err := w.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	same := func(*cvmfs.Manifest) {}
	goodManifest, goodList := manifest(same, key), whitelist(func(*cvmfs.Whitelist) {}, master)
	pem := certificate(t, repo, base)
	// T31: the text of a genuine manifest with another revision, its signature kept.
	forged := manifest(func(m *cvmfs.Manifest) { m.Revision = 99 }, stranger)
	forged = append(forged[:len(forged)-256], goodManifest[len(goodManifest)-256:]...)
	flipped := bytes.Clone(goodManifest)
	flipped[len(flipped)-1] ^= 1
	unterminated := bytes.Replace(goodManifest, []byte("S3\n"), []byte("S4\n"), 1)

	for _, test := range []struct {
		name                string
		manifest, whitelist []byte
		pem                 []byte
		trust               func(*cvmfs.Trust)
		want                error
	}{
		{"good", goodManifest, goodList, pem, nil, nil},
		{"signature of another revision", forged, goodList, pem, nil, cvmfs.ErrSignature},
		{"broken signature", flipped, goodList, pem, nil, cvmfs.ErrSignature},
		{"no signature", goodManifest[:len(goodManifest)-256], goodList, pem, nil, cvmfs.ErrSignature},
		{"changed text", unterminated, goodList, pem, nil, cvmfs.ErrMalformed},
		{"another key", manifest(same, stranger), goodList, pem, nil, cvmfs.ErrSignature},
		{"another name", manifest(func(m *cvmfs.Manifest) { m.Name = "other.example.org" }, key), goodList, pem, nil, cvmfs.ErrWrongName},
		{"empty certificate", goodManifest, goodList, nil, nil, cvmfs.ErrMalformed},
		{"certificate is a key", goodManifest, goodList, repo.Key(t, "pub"), nil, cvmfs.ErrMalformed},
		{"whitelist by a stranger", goodManifest, whitelist(func(*cvmfs.Whitelist) {}, stranger), pem, nil, cvmfs.ErrSignature},
		{"no master key", goodManifest, goodList, pem, func(t *cvmfs.Trust) { t.MasterKeys = nil }, cvmfs.ErrSignature},
		{"whitelist of another", goodManifest, whitelist(func(w *cvmfs.Whitelist) { w.Name = "other.example.org" }, master), pem, nil, cvmfs.ErrWrongName},
		{"certificate not listed", goodManifest, whitelist(func(w *cvmfs.Whitelist) { w.Fingerprints = []cvmfs.Hash{cvmfs.SHA1.Sum([]byte("x"))} }, master), pem, nil, cvmfs.ErrUntrusted},
		{"empty whitelist", goodManifest, whitelist(func(w *cvmfs.Whitelist) { w.Fingerprints = nil }, master), pem, nil, cvmfs.ErrUntrusted},
		{"blocked", goodManifest, goodList, pem, func(t *cvmfs.Trust) { t.Blocked = list.Fingerprints }, cvmfs.ErrUntrusted},
		{"pkcs7", goodManifest, whitelist(func(w *cvmfs.Whitelist) { w.PKCS7 = true }, master), pem, nil, cvmfs.ErrUntrusted},
		{"cachain", goodManifest, whitelist(func(w *cvmfs.Whitelist) { w.CAChain = true }, master), pem, nil, cvmfs.ErrUntrusted},
		{"a page of HTML", []byte("<html>log in here</html>"), goodList, pem, nil, cvmfs.ErrMalformed},
		{"one second before the end", goodManifest, goodList, pem, func(t *cvmfs.Trust) { t.Now = func() time.Time { return list.Expires.Add(-time.Second) } }, nil},
		{"at the end", goodManifest, goodList, pem, func(t *cvmfs.Trust) { t.Now = func() time.Time { return list.Expires } }, cvmfs.ErrExpired},
		{"at the end with skew", goodManifest, goodList, pem, func(t *cvmfs.Trust) {
			t.Now, t.Skew = func() time.Time { return list.Expires }, time.Minute
		}, nil},
		{"long before the beginning", goodManifest, goodList, pem, func(t *cvmfs.Trust) { t.Now = func() time.Time { return time.Unix(0, 0) } }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := trust(t, repo)
			if test.trust != nil {
				test.trust(&tr)
			}
			m, err := tr.Verify(test.manifest, test.whitelist, test.pem)
			if !errors.Is(err, test.want) || (m == nil) != (test.want != nil) {
				t.Errorf("Verify = %v, %v, want %v", m, err, test.want)
			}
		})
	}
}

func TestParseManifestRefuses(t *testing.T) {
	repo := cvmfstest.Small(t)
	good, _, _ := bytes.Cut(repo.Read(t, cvmfs.ManifestFile), []byte("--\n"))
	framed := func(text string) []byte {
		return []byte(text + "--\n" + cvmfs.SHA1.Sum([]byte(text)).String() + "\nsignature")
	}
	if _, err := cvmfs.ParseManifest(framed(string(good) + "Qunknown letter\n")); err != nil {
		t.Errorf("unknown letter: %v, want nil", err)
	}
	if m, err := cvmfs.ParseManifest(framed(string(good) + "S77\n")); err != nil || m.Revision != 77 {
		t.Errorf("letter twice = %v, %v, want the last", m, err)
	}
	replace := func(from, to string) string {
		s := strings.Replace(string(good), from, to, 1)
		if s == string(good) {
			t.Fatalf("%q is not there", from)
		}
		return s
	}
	for _, text := range []string{
		"", "C\n", replace("S3\n", ""), replace("D240\n", ""), replace("Rd41d", "Rd41e"), replace("S3", "S-3"), replace("S3", "S+3"),
		replace("S3", "S 3"), replace("S3", "S99999999999999999999"), replace("B51200", "B-1"), replace("D240", "D99999999999"),
		replace("Gyes", "Gmaybe"), replace("-shake128", "-shake129"), replace("Nsmall.", "N../small."), replace("S3\n", "S3\n\n"),
		replace("T1795219940", "T99999999999999"), replace("Ce07c3fe44f0b69bb9d3d9f7a49a2f8af156c240a-shake128", "Cd41d8cd98f00b204e9800998ecf8427e"),
		replace("X344163b2c455843d202dea6b4a7e9d9018e14229-shake128", "Xd41d8cd98f00b204e9800998ecf8427e"),
		string(good) + "Q" + strings.Repeat("x", 65<<10) + "\n",
	} {
		if m, err := cvmfs.ParseManifest(framed(text)); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("ParseManifest(%.80q) = %v, %v, want ErrMalformed", text, m, err)
		}
	}
}

func TestParseWhitelist(t *testing.T) {
	framed := func(text string) []byte {
		return []byte(text + "--\n" + cvmfs.SHA1.Sum([]byte(text)).String() + "\nsignature")
	}
	const head = "20241018103000\nE20241117103000\nNsw.example.org\n"
	const print1 = "6D:ED:7F:F3:52:2E:FB:D2:56:3F:F8:61:B8:4C:90:68:06:AC:12:55"
	w, err := cvmfs.ParseWhitelist(framed(head + "Vpkcs7\nWcachain\n" + print1 + " # someone\n\n# comment\n" + print1 + "-SHAKE128\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !w.PKCS7 || !w.CAChain || len(w.Fingerprints) != 2 || w.Fingerprints[1].Algorithm != cvmfs.SHAKE128 {
		t.Errorf("ParseWhitelist = %+v", w)
	}
	if want := time.Date(2024, 11, 17, 10, 30, 0, 0, time.UTC); !w.Expires.Equal(want) {
		t.Errorf("Expires = %v, want %v", w.Expires, want)
	}
	for _, text := range []string{
		"", "20241018103000\n", "20241018103000\nE2024111710300\nNsw.example.org\n", "20241018103000\n20241117103000\nNsw.example.org\n",
		"20241018103000\nE20241317103000\nNsw.example.org\n", "x\nE20241117103000\nNsw.example.org\n", "20241018103000\nE20241117103000\nsw.example.org\n",
		head + "Vother\n", head + "VPKCS7\n", head + print1[:58] + "\n", head + strings.ToLower(print1) + "\n", head + print1 + "-MD5\n",
		head + strings.ReplaceAll(print1, ":", "") + "\n", head + "\x00\n",
	} {
		if w, err := cvmfs.ParseWhitelist(framed(text)); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("ParseWhitelist(%q) = %+v, %v, want ErrMalformed", text, w, err)
		}
	}
}

func TestParseKeys(t *testing.T) {
	repo := cvmfstest.Small(t)
	pub := repo.Key(t, "pub")
	keys, err := cvmfs.ParsePublicKeys(append(append(bytes.Clone(pub), "\n# text between\n"...), pub...))
	if err != nil || len(keys) != 2 || !keys[0].Equal(keys[1]) {
		t.Errorf("ParsePublicKeys(two) = %d keys, %v", len(keys), err)
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "private": repo.Key(t, "key"), "certificate": repo.Key(t, "crt"), "cut": pub[:len(pub)-40],
		"second cut": append(bytes.Clone(pub), pub[:len(pub)-40]...),
	} {
		if keys, err := cvmfs.ParsePublicKeys(data); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("ParsePublicKeys(%s) = %v, %v, want ErrMalformed", name, keys, err)
		}
	}
	if _, err := cvmfs.ParsePrivateKey(pub); !errors.Is(err, cvmfs.ErrMalformed) {
		t.Errorf("ParsePrivateKey(public) = %v, want ErrMalformed", err)
	}
}

func FuzzManifest(f *testing.F) {
	repo := cvmfstest.Small(f)
	f.Add(repo.Read(f, cvmfs.ManifestFile))
	f.Add([]byte("--\n\n"))
	f.Add([]byte("C\n--\nd41d8cd98f00b204e9800998ecf8427e\n"))
	key, err := cvmfs.ParsePrivateKey(repo.Key(f, "key"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		// The hash line would stop nearly every mutation, so it is made anew.
		framed := append(append(bytes.Clone(text), "--\n"...), cvmfs.SHA1.Sum(text).String()+"\n"...)
		for _, data := range [][]byte{text, framed} {
			m, err := cvmfs.ParseManifest(data)
			if err != nil {
				if !errors.Is(err, cvmfs.ErrMalformed) {
					t.Errorf("ParseManifest = %v, want ErrMalformed", err)
				}
				continue
			}
			if m.Certificate.IsZero() || m.Name == "" {
				continue
			}
			again, err := m.Sign(key)
			if err != nil {
				t.Fatalf("Sign of a parsed manifest = %v", err)
			}
			m2, err := cvmfs.ParseManifest(again)
			if err != nil || !cmp.Equal(m, m2) {
				t.Errorf("round trip of %+v = %+v, %v", m, m2, err)
			}
		}
	})
}

func FuzzWhitelist(f *testing.F) {
	repo := cvmfstest.Small(f)
	f.Add(repo.Read(f, cvmfs.WhitelistFile))
	text, _, _ := bytes.Cut(repo.Read(f, cvmfs.WhitelistFile), []byte("--\n"))
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		framed := append(append(bytes.Clone(text), "--\n"...), cvmfs.SHA1.Sum(text).String()+"\n"...)
		for _, data := range [][]byte{text, framed} {
			if _, err := cvmfs.ParseWhitelist(data); err != nil && !errors.Is(err, cvmfs.ErrMalformed) {
				t.Errorf("ParseWhitelist = %v, want ErrMalformed", err)
			}
		}
	})
}
