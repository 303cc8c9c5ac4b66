package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
)

func TestIDMap(t *testing.T) {
	rest := uint32(65534)
	dir := install(t, map[string]string{
		"good":  "# users\n0 1000\n\n  4294967295 7 # none\n* 65534\n",
		"three": "1 2 3\n", "word": "1 2\nroot 0\n", "far": "1 4294967296\n", "half": "\n1\n",
	})
	got, err := ReadIDMap(filepath.Join(dir, "good"))
	if want := (IDMap{map[uint32]uint32{0: 1000, 1<<32 - 1: 7}, &rest}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("ReadIDMap: %v\n%s", err, cmp.Diff(want, got))
	}
	for name, line := range map[string]string{"three": ":1:", "word": ":2:", "far": ":1:", "half": ":2:"} {
		if m, err := ReadIDMap(filepath.Join(dir, name)); !errors.Is(err, ErrValue) || !strings.Contains(err.Error(), line) {
			t.Errorf("ReadIDMap of %s = %v, %v, want ErrValue in line %s", name, m, err, line)
		}
	}
	if m, err := ReadIDMap(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadIDMap of nothing = %v, %v", m, err)
	}
	if _, err := read2(t, "CVMFS_UID_MAP="+dir+"/word\n"); !errors.Is(err, ErrValue) || !strings.Contains(err.Error(), "default.conf:1") {
		t.Errorf("a bad map: %v, want ErrValue of default.conf:1", err)
	}
	r, err := read2(t, "CVMFS_GID_MAP="+dir+"/good\nCVMFS_CLAIM_OWNERSHIP=yes\nCVMFS_REPOSITORY_DATE=2026-01-31T12:00:00Z\nCVMFS_AUTO_UPDATE=no\nCVMFS_MAX_TTL=3\n")
	if err != nil || r.GIDs.IDs[0] != 1000 || !r.ClaimOwnership || r.Date.Day() != 31 || !r.Frozen || r.MaxTTL.Minutes() != 3 {
		t.Errorf("Repository = %+v, %v", r, err)
	}
	if _, err := read2(t, "CVMFS_REPOSITORY_DATE=yesterday\n"); !errors.Is(err, ErrValue) {
		t.Errorf("a date that is none: %v", err)
	}
}

// read2 finds out what the text of a default.conf means.
func read2(t *testing.T, text string) (Repository, error) {
	t.Helper()
	c, err := Read("sw.example.org", Options{Dir: install(t, map[string]string{"default.conf": text + "CVMFS_SERVER_URL=http://s\n"})})
	if err != nil {
		t.Fatal(err)
	}
	return c.Repository()
}

func TestBlacklist(t *testing.T) {
	a, b := cvmfs.SHA1.Sum([]byte("a")), cvmfs.SHAKE128.Sum([]byte("b"))
	text := "# bad ones\n" + cvmfs.FormatFingerprint(a) + " # a comment\n\n" + cvmfs.FormatFingerprint(b) + "\n<sw.example.org 7\n<sw.example.org 5\n<other.example.org 100\n"
	elsewhere := filepath.Join(install(t, map[string]string{"list": "<sw.example.org 1000\n"}), "list")
	for what, test := range map[string]struct {
		files map[string]string
		want  Blocked
	}{
		"nothing":    {nil, Blocked{}},
		"the usual":  {map[string]string{"blacklist": text}, Blocked{[]cvmfs.Hash{a, b}, 7}},
		"named":      {map[string]string{"default.local": "CVMFS_BLACKLIST=" + elsewhere + "\n", "blacklist": text}, Blocked{nil, 1000}},
		"no colons":  {map[string]string{"blacklist": strings.ReplaceAll(cvmfs.FormatFingerprint(a), ":", "")}, Blocked{}},
		"no number":  {map[string]string{"blacklist": "\n<sw.example.org x"}, Blocked{}},
		"three":      {map[string]string{"blacklist": "\n<sw.example.org 1 2"}, Blocked{}},
		"lower case": {map[string]string{"blacklist": strings.ToLower(cvmfs.FormatFingerprint(a))}, Blocked{}},
	} {
		dir := install(t, test.files)
		c, err := Read("sw.example.org", Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Blacklist(dir)
		if bad := what != "nothing" && cmp.Equal(test.want, Blocked{}); bad != errors.Is(err, ErrValue) || err == nil && !cmp.Equal(got, test.want) {
			t.Errorf("%s: Blacklist = %+v, %v, want %+v", what, got, err, test.want)
		}
	}
}

func TestNotFollowed(t *testing.T) {
	dir := install(t, map[string]string{"default.conf": "CVMFS_NFS_SOURCE=no\nCVMFS_STREAMING_CACHE=yes\nCVMFS_DEBUGLOG=/tmp/x\nCVMFS_TELEMETRY_SEND=\nCVMFS_NFILES=100\n"})
	c, err := Read("sw.example.org", Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	got := c.NotFollowed()
	if len(got) != 2 || !strings.Contains(got[0], "default.conf:2: CVMFS_STREAMING_CACHE") || !strings.Contains(got[1], "default.conf:3: CVMFS_DEBUGLOG") {
		t.Errorf("NotFollowed = %q", got)
	}
}

// Keys of well-known repositories, with the SHA-256 of their public key. Each is
// that of the public file behind it, which it was compared with to the last byte in
// November 2026.
func TestKnownKeys(t *testing.T) {
	for name, want := range map[string][]string{
		"cernvm-prod.cern.ch": {
			"56d801f7d6b756433a2dd8493001d4abcdba810bf59369464fd7ab9325add74b", // cvmfs/cvmfs e1de67e6: mount/keys/cern-it1.cern.ch.pub
			"79dd263cc8ca21d33b03a4537d1d192ec8ec601e29f07e092b9d6938158adac7", // cvmfs/cvmfs b311c6c7: mount/keys/cern-it4.cern.ch.pub
			"ea1b11163b2e9ac3e20c57dbc71ffb15466f0ce844da62257c50f4c2ecafec6e", // cvmfs/cvmfs b311c6c7: mount/keys/cern-it5.cern.ch.pub
		},
		"cernvm-devel.cern.ch": {
			"be5545fa85c644a210d526a84358fd5ef294d8cb1522e7d25120be8d5959faf0", // cernvm/cernvm-micro 3752f2c2: docker/UCVM/keys/cernvm-devel.cern.ch.pub
		},
		"cernvm-sl7.cern.ch": {
			"00edbacd7e35209d647a0912d4030aa34bef869180a19ecaf6cd8ac7bb458de5", // cernvm/cernvm-micro 3752f2c2: docker/UCVM/keys/cernvm-sl7.cern.ch.pub
		},
		"cernvm-testing.cern.ch": {
			"0a1bd1c0d419bbff31c00a130e36906eac62ac148ffa989e2ede7d9212661ff2", // cernvm/cernvm-micro 6238b564: packages.d/cvmfs-config/etc/cvmfs/keys/cernvm-testing.cern.ch/cernvm-testing.cern.ch.pub
		},
		"grid.desy.de": {
			"5c9fc8065c436e9473a322086042a950e5db491c2e3be3a8807de8671a4b2675", // cvmfs-contrib/config-repo 7e08601c: etc/cvmfs/keys/desy.de/desy.de.20260611.2048.pub
			"be61a8803c8920d48e830b5b910b663d650eb5ec8a0757abd80b40f0b3e0c542", // cvmfs-contrib/config-repo b00191a0: etc/cvmfs/keys/desy.de/desy.de.20260611.4096.pub
		},
		"software.eessi.io": { // the same in EESSI/filesystem-layer 0254abcb: inventory/group_vars/all.yml
			"7b3afdd160203a6fb1eec490c8d389b26f65358d7644b2c97c89873dac9e1cc7", // cvmfs-contrib/config-repo e06c4d6f: etc/cvmfs/keys/eessi.io/eessi.io.pub
		},
		"dirac.egi.eu": {
			"d0cde0e3b1ff6454ca728af625d7103d457b023bf9d57d6ddc66078582a4d011", // cvmfs/cvmfs 6b8dad78: mount/keys/egi.eu.pub
		},
		"oasis.opensciencegrid.org": {
			"115fd1622881b4fd604bfe51a699e58fe31c51d6cf178dd4b11177ed17b9b6be", // cvmfs/cvmfs b3b94a12: cvmfs-keys/keys/opensciencegrid.org.pub
		},
		"config-osg.example.invalid": nil,
	} {
		c, err := Read(name, Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Repository()
		if want == nil {
			if !errors.Is(err, ErrUnknown) {
				t.Errorf("%s: %v, want ErrUnknown", name, err)
			}
			continue
		}
		var got []string
		for _, k := range r.Keys {
			got = append(got, k.Fingerprint)
		}
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: keys %q, %v, want %q", name, got, err, want)
		}
	}
}

func FuzzBlacklist(f *testing.F) {
	f.Add("<sw.example.org 7")
	f.Add(cvmfs.FormatFingerprint(cvmfs.SHA1.Sum(nil)) + " # x")
	f.Fuzz(func(t *testing.T, line string) {
		var b Blocked
		if err := b.line("sw.example.org", line); err != nil && !errors.Is(err, ErrValue) {
			t.Errorf("line %q: %v", line, err)
		}
	})
}
