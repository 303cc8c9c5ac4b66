//go:build ignore

// maketree makes the tree that bench/cvmfs.sh publishes, or changes some of it.
// Equal arguments make equal trees.
//
//	go run bench/maketree.go DIR FILES MEGABYTES     small files, and a big one
//	go run bench/maketree.go -change N DIR           another content in N of the small files
//	go run bench/maketree.go -tar N >ARCHIVE         an archive of N small files instead
//
// Nine files in ten are in directories of fifty; the tenth has a directory of its
// own, as the files of Python packages and of licences often have. Sizes are
// those of an operating system's small files: most below 4 KiB, a few up to 256.
// The content is words, which zlib packs to about a third.
package main

import (
	"archive/tar"
	"bufio"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	change := flag.Int("change", 0, "")
	archive := flag.Int("tar", 0, "")
	flag.Parse()
	var err error
	switch args := flag.Args(); {
	case *archive > 0:
		err = pack(os.Stdout, *archive)
	case *change > 0:
		err = rewrite(args[0], *change)
	default:
		var files, megabytes int
		if files, err = strconv.Atoi(args[1]); err == nil {
			megabytes, err = strconv.Atoi(args[2])
		}
		if err == nil {
			err = plant(args[0], files, megabytes)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "maketree:", err)
		os.Exit(1)
	}
}

// name is where the n-th small file lies.
func name(n int) string {
	if n%10 == 9 {
		return fmt.Sprintf("single/g%02d/m%04d/metadata", n/1000%100, n/10)
	}
	return fmt.Sprintf("lib/p%03d/file%05d.txt", n/50, n)
}

func size(r *rand.Rand) int {
	return int(min(math.Exp(r.NormFloat64()*1.5+7.5), 256<<10))
}

var words = func() [2048]string {
	r := rand.New(rand.NewPCG(1, 2))
	var list [2048]string
	for i := range list {
		b := make([]byte, 2+r.IntN(9))
		for j := range b {
			b[j] = "etaoinshrdlucmfwypvbgkjqxz"[min(r.IntN(26), r.IntN(26))]
		}
		list[i] = string(b)
	}
	return list
}()

// write writes so many bytes of text.
func write(w io.Writer, r *rand.Rand, bytes int) error {
	out := bufio.NewWriterSize(w, 64<<10)
	for bytes > 0 {
		s := words[min(r.IntN(len(words)), r.IntN(len(words)))] + " \n"[r.IntN(12)/11:][:1]
		s = s[:min(len(s), bytes)]
		bytes -= len(s)
		if _, err := out.WriteString(s); err != nil {
			return err
		}
	}
	return out.Flush()
}

func file(path string, seed uint64, bytes int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return write(f, rand.New(rand.NewPCG(seed, 3)), bytes)
}

func plant(dir string, files, megabytes int) error {
	r := rand.New(rand.NewPCG(4, 5))
	for n := range files {
		path := filepath.Join(dir, name(n))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := file(path, uint64(n), size(r)); err != nil {
			return err
		}
	}
	return file(filepath.Join(dir, "big"), 1<<40, megabytes<<20)
}

func rewrite(dir string, n int) error {
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, "/big") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range min(n, len(all)) {
		seed := rand.Uint64()
		if err := file(all[i*len(all)/n], seed, 1000+int(seed%4000)); err != nil {
			return err
		}
	}
	return nil
}

func pack(w io.Writer, files int) error {
	out := bufio.NewWriterSize(w, 1<<20)
	t := tar.NewWriter(out)
	for n := range files {
		text := fmt.Sprintf("file %d\n", n)
		h := &tar.Header{Name: fmt.Sprintf("d%03d/s%02d/file%07d.txt", n/10000, n/200%50, n), Mode: 0o644, Size: int64(len(text)), Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(t, text); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return out.Flush()
}
