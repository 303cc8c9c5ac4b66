//go:build ignore

// origin serves a directory over HTTP for bench/cvmfs.sh, each answer a while
// after its request, as a server far away does.
//
//	go run bench/origin.go DIR ADDRESS [DELAY]
//
// What was asked for since the last time is at /taken: requests and bytes. The
// answers of one connection wait one after another, those of several do not.
package main

import (
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "origin:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var delay time.Duration
	if len(args) == 3 {
		var err error
		if delay, err = time.ParseDuration(args[2]); err != nil {
			return err
		}
	} else if len(args) != 2 {
		return fmt.Errorf("usage: origin DIR ADDRESS [DELAY]")
	}
	var requests, bytes atomic.Int64
	files := http.FileServer(http.Dir(args[0]))
	server := &http.Server{Addr: args[1], ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/taken" {
			fmt.Fprintln(w, requests.Swap(0), bytes.Swap(0))
			return
		}
		time.Sleep(delay)
		requests.Add(1)
		// the file, not what is counted through a wrapper: that would cost sendfile
		if fi, err := os.Stat(args[0] + r.URL.Path); err == nil {
			bytes.Add(fi.Size())
		}
		files.ServeHTTP(w, r)
	})}
	return server.ListenAndServe()
}
