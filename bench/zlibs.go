//go:build ignore

// zlibs does to the files of a directory what cannot be avoided, and nothing
// else, on all processors: the yardstick of bench/cvmfs.sh for publishing and
// for reading what is in no cache.
//
//	go run bench/zlibs.go deflate|inflate DIR [BYTES]
//
// Files of less than so many bytes are left out. Those that are not packed are
// passed over by inflate.
package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"

	"github.com/klauspost/compress/zlib"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "zlibs:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: zlibs deflate|inflate DIR [BYTES]")
	}
	least := 0
	if len(args) == 3 {
		least, _ = strconv.Atoi(args[2])
	}
	queue := make(chan string, 64)
	var tasks sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		tasks.Go(func() {
			w, _ := zlib.NewWriterLevel(io.Discard, 6)
			var r io.ReadCloser
			for path := range queue {
				data, err := os.ReadFile(path)
				if err != nil || len(data) < least {
					continue
				}
				if args[0] == "deflate" {
					// a big file is cut into pieces of what the publisher's have on average
					for len(data) > 0 {
						piece := data[:min(len(data), 8<<20)]
						data = data[len(piece):]
						w.Reset(io.Discard)
						_, _ = w.Write(piece)
						_ = w.Close()
					}
					continue
				}
				if r == nil {
					r, _ = zlib.NewReader(bytes.NewReader(data))
				} else {
					_ = r.(zlib.Resetter).Reset(bytes.NewReader(data), nil)
				}
				if r != nil {
					_, _ = io.Copy(io.Discard, r)
				}
			}
		})
	}
	err := filepath.WalkDir(args[1], func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			queue <- path
		}
		return err
	})
	close(queue)
	tasks.Wait()
	return err
}
