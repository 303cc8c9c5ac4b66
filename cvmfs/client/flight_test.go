package client_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"

	"github.com/micavm/mica/cvmfs/cvmfstest"
)

func TestOneDownloadForMany(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	server := cvmfstest.NewRogue(t, repo)
	r := open(t, options(t, server.Base))
	e, err := r.Lookup(t.Context(), "/README")
	if err != nil {
		t.Fatal(err)
	}
	path := "/" + e.Hash.ObjectPath(cvmfs.SuffixNone)
	release := make(chan struct{})
	server.Set(func(p string, _ int) cvmfstest.Fault {
		if p != path {
			return nil
		}
		return func(w http.ResponseWriter, r *http.Request, files http.Handler) {
			<-release
			files.ServeHTTP(w, r)
		}
	})
	const readers = 20
	var wg sync.WaitGroup
	var failed, cancelled atomic.Int32
	first, giveUp := context.WithCancel(t.Context())
	for i := range readers {
		ctx := t.Context()
		if i == 0 {
			ctx = first
		}
		wg.Go(func() {
			f, err := r.Open(ctx, "/README")
			switch {
			case errors.Is(err, context.Canceled):
				cancelled.Add(1)
			case err != nil:
				failed.Add(1)
				t.Error(err)
			default:
				_ = f.Close()
			}
		})
		if i == 0 { // the first one starts the download, and then gives up
			for server.Count(path) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	time.Sleep(20 * time.Millisecond)
	giveUp()
	time.Sleep(20 * time.Millisecond)
	close(release)
	wg.Wait()
	if server.Count(path) != 1 || cancelled.Load() != 1 || failed.Load() != 0 {
		t.Errorf("%d requests, %d cancelled, %d failed; want 1, 1, 0", server.Count(path), cancelled.Load(), failed.Load())
	}
}

// When all have given up the download ends.
func TestDownloadNobodyWaitsFor(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	server := cvmfstest.NewRogue(t, repo)
	r := open(t, options(t, server.Base))
	gone := make(chan struct{})
	server.Set(func(string, int) cvmfstest.Fault {
		return func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
			<-r.Context().Done()
			close(gone)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Open(ctx, "/README"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open: error %v, want %v", err, context.DeadlineExceeded)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the download goes on")
	}
	server.Set(nil)
	if f, err := r.Open(t.Context(), "/README"); err != nil {
		t.Errorf("the next reader: %v", err)
	} else {
		_ = f.Close()
	}
}
