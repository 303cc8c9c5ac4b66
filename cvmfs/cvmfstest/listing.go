package cvmfstest

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Listed is one entry as the original client showed it.
type Listed struct {
	Path      string            `json:"path"`
	PathB64   string            `json:"path_b64"` // in the file only, where Path is not UTF-8
	Type      string            `json:"type"`
	Mode      string            `json:"mode"`
	Nlink     uint32            `json:"nlink"`
	UID       uint32            `json:"uid"`
	GID       uint32            `json:"gid"`
	MTime     int64             `json:"mtime"`
	MTimeNS   int32             `json:"mtime_ns"`
	Size      int64             `json:"size"` // not of directories
	Rdev      string            `json:"rdev"`
	SHA256    string            `json:"sha256"`
	Target    string            `json:"target"`
	RawTarget string            `json:"raw_target"`
	Xattrs    map[string][]byte `json:"xattrs"`
}

// Expect returns the listing of a revision (1, 2 or 3), paths as in package
// catalog: the root is "".
func Expect(t testing.TB, revision int) map[string]Listed {
	t.Helper()
	f, err := os.Open(Data(t, "expect.rev"+string(rune('0'+revision))+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list := make(map[string]Listed)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var l Listed
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.PathB64 != "" {
			raw, err := base64.StdEncoding.DecodeString(l.PathB64)
			if err != nil {
				t.Fatal(err)
			}
			l.Path, l.PathB64 = string(raw), ""
		}
		if l.Path == "/" {
			l.Path = ""
		}
		list[l.Path] = l
	}
	if len(list) < 200 {
		t.Fatalf("only %d entries in the expected listing", len(list))
	}
	return list
}

// Compare reports every entry of got that is not as in want, is missing, or
// should not be there. forget takes from both what the view cannot show; nil
// forgets nothing.
func Compare(t testing.TB, got, want map[string]Listed, forget func(*Listed)) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(want)) {
		g, there := got[p]
		if !there {
			t.Errorf("%q is missing", p)
			continue
		}
		w := want[p]
		if forget != nil {
			forget(&g)
			forget(&w)
		}
		if diff := cmp.Diff(w, g); diff != "" {
			t.Errorf("%q (-original +got):\n%s", p, diff)
		}
	}
	for p := range got {
		if _, there := want[p]; !there {
			t.Errorf("%q should not be there", p)
		}
	}
}
