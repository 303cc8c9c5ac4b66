//go:build ignore

// Away serves a folder over HTTP as a server does that is a while away: every
// answer comes DELAY later than it could. A connection is kept as any server
// keeps it.
//
//	go run bench/away.go FOLDER ADDRESS DELAY
package main

import (
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: away FOLDER ADDRESS DELAY")
	}
	delay, err := time.ParseDuration(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	files := http.StripPrefix("/cvmfs/", http.FileServer(http.Dir(os.Args[1])))
	server := http.Server{Addr: os.Args[2], ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(delay)
		files.ServeHTTP(w, r)
	})}
	log.Fatal(server.ListenAndServe())
}
