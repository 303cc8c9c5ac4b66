package publish_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/publish"
)

// describe writes what cvmfs_swissknife graft does: an empty file, and a
// description of what is published under its path.
func (w *world) describe(t *testing.T, path string, e catalog.Entry, chunks []catalog.Chunk) {
	t.Helper()
	text := fmt.Sprintf("# %s\nsize = %d\nchecksum=%s\n\ncompression=%s\n", path, e.Size, e.Hash, map[cvmfs.Compression]string{cvmfs.Zlib: "default", cvmfs.Plain: "none"}[e.Compression])
	var offsets, sums []string
	for _, c := range chunks {
		offsets, sums = append(offsets, fmt.Sprint(c.Offset)), append(sums, c.Hash.String())
	}
	if len(chunks) > 0 {
		text += "chunk_offsets=" + strings.Join(offsets, ",") + "\nchunk_checksums=" + strings.Join(sums, ", ") + "\n"
	}
	w.write(t, path, "")
	dir, base := filepath.Split(path)
	w.write(t, dir+".cvmfsgraft-"+base, text)
}

// What is published by its description alone is what was published by its
// content: in a tree and in an archive, whole and in chunks.
func TestGraft(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"tree", "archive"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			elsewhere(t, w)
			first := w.publish(t, nil)
			had, _, _ := w.tree(t, first.RootHash)
			chunks, err := reader{t, cvmfstest.Repo{Dir: w.repo()}}.open(first.RootHash).Chunks("/data/big")
			must(t, err)
			if len(chunks) < 2 {
				t.Fatalf("/data/big has %d chunks", len(chunks))
			}
			must(t, os.Remove(filepath.Join(w.source, "linked")))
			grafts := []string{"/data/run 1/a?b", "/data/big", "/database"}
			for _, path := range grafts {
				if path == "/data/big" {
					e := had[path]
					e.Hash = cvmfs.Hash{Algorithm: cvmfs.SHA1}
					w.describe(t, path, e, chunks)
				} else {
					w.describe(t, path, had[path], nil)
				}
			}
			w.write(t, "data/.cvmfsgraft-nothing", "size=1\nchecksum="+had["/database"].Hash.String()+"\n")
			change := func(o *publish.Options) {
				if form == "archive" {
					o.Source, o.Tar = "", archived(t, w.source)
				}
			}
			second := w.publish(t, change)
			if len(second.Warnings) != 1 || !strings.Contains(second.Warnings[0], "/data/.cvmfsgraft-nothing") {
				t.Errorf("warnings = %q, want one of what describes no file", second.Warnings)
			}
			has, _, _ := w.tree(t, second.RootHash)
			for path := range has {
				if strings.Contains(path, "graft") {
					t.Errorf("%q is published", path)
				}
			}
			for _, path := range grafts {
				a, b := had[path], has[path]
				if a.Size != b.Size || a.Hash != b.Hash || a.Compression != b.Compression || a.IsChunked() != b.IsChunked() || b.IsExternal() {
					t.Errorf("%q = %+v, by its content it was %+v", path, b, a)
				}
			}
			if got, err := (reader{t, cvmfstest.Repo{Dir: w.repo()}}).open(second.RootHash).Chunks("/data/big"); err != nil || fmt.Sprint(got) != fmt.Sprint(chunks) {
				t.Errorf("chunks = %v, %v, want %v", got, err, chunks)
			}
			clean(t, w.check(t))
			if again := w.publish(t, change); again.RootHash != second.RootHash || form == "tree" && !again.Unchanged {
				t.Errorf("published again: %+v", again)
			}

			// Elsewhere is where an external content is, and its description may be of
			// what is in no repository; without that, there is a warning.
			e := had["/database"]
			e.Hash, e.Compression = cvmfs.SHA1.Sum([]byte("far away")), cvmfs.Plain
			w.describe(t, "/data/none", e, nil)
			away := func(o *publish.Options) { change(o); o.External = []string{"/data"} }
			if r := w.publish(t, away); len(r.Warnings) != 1 {
				t.Errorf("warnings = %q, want that of before alone", r.Warnings)
			}
			has, _, _ = w.tree(t, w.head(t).RootHash)
			if got := has["/data/none"]; !got.IsExternal() || got.Hash != e.Hash {
				t.Errorf("/data/none = %+v, want it external", got)
			}
			if r := w.publish(t, change); len(r.Warnings) != 2 || !strings.Contains(strings.Join(r.Warnings, "\n"), `"/data/none"`) {
				t.Errorf("warnings = %q, want one of the content that is missing", r.Warnings)
			}
		})
	}
}

// A description that says too little or nonsense ends the publication, with its
// name and line.
func TestGraftRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, nil)
	sum := cvmfs.SHA1.Sum([]byte("content")).String()
	for text, want := range map[string]string{
		"":                                            "line 1: the file ends without size=",
		"# nothing\n\nsize=7\n":                       "line 3: the file ends without checksum=",
		"size=7\nsize=7\nchecksum=" + sum:             "line 2",
		"size=-7\nchecksum=" + sum:                    "line 1",
		"size=7\nchecksum=" + sum[1:]:                 "line 2",
		"size=7\nchecksum=" + sum[:32]:                "line 2",
		"size=7\nchecksum=" + strings.Repeat("0", 40): "line 2",
		"size=7\nchecksum " + sum:                     "line 2",
		"size=7\nsum=" + sum:                          "line 2",
		"size=7\ncompression=zstd\nchecksum=" + sum:   "line 2",
		"size=7\nchecksum=" + sum + "\nchunk_offsets=0,5\nchunk_checksums=" + sum:                         "line 4: 2 offsets and 1",
		"size=7\nchecksum=" + sum + "\nchunk_offsets=0":                                                   "line 3: 1 offsets and 0",
		"size=7\nchecksum=" + sum + "\nchunk_offsets=1,5\nchunk_checksums=" + sum + "," + sum:             "line 3",
		"size=7\nchecksum=" + sum + "\nchunk_offsets=0,7\nchunk_checksums=" + sum + "," + sum:             "line 3",
		"size=7\nchecksum=" + sum + "\nchunk_offsets=0,5\nchunk_checksums=" + sum + "," + sum + "-rmd160": "line 4",
	} {
		w.write(t, "dir/file", "")
		w.write(t, "dir/.cvmfsgraft-file", text)
		for _, form := range []string{"tree", "archive"} {
			o := w.options()
			if form == "archive" {
				o.Source, o.Tar = "", archived(t, w.source)
			}
			_, err := publish.Publish(t.Context(), o)
			if !errors.Is(err, publish.ErrSource) || !strings.Contains(err.Error(), `"/dir/.cvmfsgraft-file" `+want) {
				t.Errorf("%s with %q: %v, want %s", form, text, err, want)
			}
		}
	}
}
