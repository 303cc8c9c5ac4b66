package client_test

import (
	"bytes"
	"crypto/rsa"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/publish"
)

// manyFiles publishes a tree of dirs directories with files small files each
// and serves it with a delay. It returns the paths in the order of a listing.
func manyFiles(t *testing.T, dirs, files int, delay time.Duration) (client.Options, []string, *atomic.Int64) {
	t.Helper()
	const name = "many.example.org"
	tree, storage, keys := t.TempDir(), t.TempDir(), t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	var paths []string
	for d := range dirs {
		dir := fmt.Sprintf("/d%03d", d)
		if err := os.Mkdir(tree+dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range files {
			path := fmt.Sprintf("%s/f%04d", dir, f)
			content := bytes.Repeat([]byte(fmt.Sprint(path, random.Uint64())), 1+random.IntN(20))
			if err := os.WriteFile(tree+path, content, 0o644); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, path)
		}
	}
	public := publishTree(t, tree, storage, keys, name)
	var requests atomic.Int64
	handler := http.FileServer(http.Dir(storage))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		time.Sleep(delay)
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return client.Options{
		Name: name, Servers: []string{server.URL + "/" + name}, MasterKeys: public, CacheDir: filepath.Join(t.TempDir(), "cache"),
		Backoff: 1, Log: testLog(t),
	}, paths, &requests
}

func readPath(t *testing.T, r *client.Repository, path string) {
	t.Helper()
	f, err := r.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// TestScanIsReadAheadOf reads file after file, as tar does.
func TestScanIsReadAheadOf(t *testing.T) {
	for _, tree := range []struct{ dirs, files, enough int }{
		{20, 25, 400},
		{300, 1, 250}, // most directories have a single file in many a tree
		{100, 3, 250},
	} {
		o, paths, requests := manyFiles(t, tree.dirs, tree.files, 2*time.Millisecond)
		r := open(t, o)
		before := requests.Load()
		for _, path := range paths {
			readPath(t, r, path)
		}
		if got := requests.Load() - before; got != int64(len(paths)) {
			t.Errorf("%d requests for %d files", got, len(paths))
		}
		if s := r.Stats(); s.Ahead < int64(tree.enough) {
			t.Errorf("%d directories of %d files: %d were fetched ahead, want %d", tree.dirs, tree.files, s.Ahead, tree.enough)
		}
	}
}

// Whoever asks for it is told what every object is wanted for, be it read ahead of
// or a catalogue.
func TestInfoHeader(t *testing.T) {
	o, paths, _ := manyFiles(t, 4, 25, 2*time.Millisecond)
	base, err := url.Parse(o.Servers[0])
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	said := map[string]int{}
	through := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: base.Scheme, Host: base.Host})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/data/") && !strings.HasSuffix(r.URL.Path, "X") { // a certificate is for the repository
			mu.Lock()
			said[r.Header.Get("Cvmfs-Info")]++
			mu.Unlock()
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	o.Servers, o.Network.SendInfo = []string{server.URL + base.Path}, true
	r := open(t, o)
	for _, path := range paths {
		readPath(t, r, path)
	}
	if s := r.Stats(); s.Ahead < 50 {
		t.Errorf("%d files were fetched ahead", s.Ahead)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range append(paths, "file%20catalog%20at%20"+o.Name+":/%20%28"+r.RootHash().String()+"%29") {
		if said[want] != 1 {
			t.Errorf("%q was given as the reason %d times", want, said[want])
		}
		delete(said, want)
	}
	if len(said) != 0 {
		t.Errorf("other reasons: %v", said)
	}
}

// TestRandomAccessIsNot opens files here and there.
func TestRandomAccessIsNot(t *testing.T) {
	for _, tree := range []struct{ dirs, files int }{{20, 25}, {500, 1}} {
		o, paths, _ := manyFiles(t, tree.dirs, tree.files, 0)
		r := open(t, o)
		random := rand.New(rand.NewPCG(3, 4))
		random.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
		const wanted = 100
		catalogues := r.Stats().Objects
		for _, path := range paths[:wanted] {
			readPath(t, r, path)
		}
		time.Sleep(50 * time.Millisecond) // for what is still under way
		if got := r.Stats().Objects - catalogues; got > wanted*3/2 {
			t.Errorf("%d directories of %d files: %d files were fetched for %d that were wanted, want at most half as many more", tree.dirs, tree.files, got, wanted)
		}
	}
}

// TestWalkThatJumps reads as a boot does: a file of each of some directories in
// order, and then elsewhere. Over and over that must not cost much.
func TestWalkThatJumps(t *testing.T) {
	const dirs, files, inOrder, jumps = 600, 3, 4, 75
	o, paths, _ := manyFiles(t, dirs, files, 0)
	r := open(t, o)
	places := rand.New(rand.NewPCG(7, 8)).Perm(dirs / inOrder)[:jumps]
	catalogues := r.Stats().Objects
	for _, place := range places {
		for d := range inOrder {
			readPath(t, r, paths[(place*inOrder+d)*files])
		}
		time.Sleep(5 * time.Millisecond) // for what is fetched ahead
	}
	time.Sleep(50 * time.Millisecond)
	const wanted, stake = jumps * inOrder, 32
	if got := r.Stats().Objects - catalogues; got > wanted*3/2+stake {
		t.Errorf("%d files were fetched for %d that were wanted, want at most half as many more, and %d", got, wanted, stake)
	} else {
		t.Logf("%d files were fetched for %d that were wanted", got, wanted)
	}
}

// TestChunksAreReadAheadOf reads the pieces of a big file in order, and others
// here and there.
func TestChunksAreReadAheadOf(t *testing.T) {
	const size, chunks = 3 << 20, 30
	tree, storage, keys := t.TempDir(), t.TempDir(), t.TempDir()
	content := make([]byte, size)
	random := rand.New(rand.NewPCG(5, 6))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	if err := os.WriteFile(filepath.Join(tree, "big"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	const name = "many.example.org"
	if err := publish.Create(t.Context(), publish.CreateOptions{Storage: storage, Name: name, Keys: keys}); err != nil {
		t.Fatal(err)
	}
	if _, err := publish.Publish(t.Context(), publish.Options{
		Source: tree, Storage: storage, Name: name, Keys: keys, Chunks: publish.ChunkSizes{Min: size / chunks / 2, Avg: size / chunks, Max: size / chunks * 2},
	}); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(keys, name+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := cvmfs.ParsePublicKeys(pem)
	if err != nil {
		t.Fatal(err)
	}
	read := func(inOrder bool) (objects, ahead int64, pieces int) {
		r := open(t, client.Options{Name: name, Servers: []string{"file://" + storage + "/" + name}, MasterKeys: public, CacheDir: t.TempDir(), Log: testLog(t)})
		f, err := r.Open(t.Context(), "/big")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		list, err := r.Chunks(t.Context(), "/big")
		if err != nil || len(list) < 15 {
			t.Fatalf("%d chunks, %v", len(list), err)
		}
		before := r.Stats().Objects
		for i := range list {
			c := list[i]
			if !inOrder {
				c = list[len(list)-1-i]
				if i == 8 {
					break
				}
			}
			got := make([]byte, c.Size)
			if _, err := f.ReadAt(got, c.Offset); err != nil || !bytes.Equal(got, content[c.Offset:c.Offset+c.Size]) {
				t.Fatalf("chunk at %d: %v", c.Offset, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		return r.Stats().Objects - before, r.Stats().Ahead, len(list)
	}
	if objects, ahead, pieces := read(true); objects != int64(pieces) || ahead < int64(pieces)/2 {
		t.Errorf("%d of %d chunks fetched, %d of them ahead; want all, most of them ahead", objects, pieces, ahead)
	}
	if objects, ahead, _ := read(false); objects != 8 || ahead != 0 {
		t.Errorf("%d chunks fetched backwards, %d ahead; want the 8 that were read", objects, ahead)
	}
}

// TestScanInTheMiddle reads every third file from the middle of a large
// directory, then stops.
func TestScanInTheMiddle(t *testing.T) {
	const files, from, to = 500, 200, 300
	o, paths, _ := manyFiles(t, 1, files, time.Millisecond)
	r := open(t, o)
	catalogues := r.Stats().Objects
	for i := from; i < to; i += 3 {
		readPath(t, r, paths[i])
	}
	time.Sleep(100 * time.Millisecond)
	if got := r.Stats().Objects - catalogues; got < 50 || got > 200 {
		t.Errorf("%d files were fetched; want those between the first and the last, and a window more", got)
	}
}

// publishTree makes a repository of a tree and returns its public keys.
func publishTree(t *testing.T, tree, storage, keys, name string) []*rsa.PublicKey {
	t.Helper()
	if err := publish.Create(t.Context(), publish.CreateOptions{Storage: storage, Name: name, Keys: keys}); err != nil {
		t.Fatal(err)
	}
	if _, err := publish.Publish(t.Context(), publish.Options{Source: tree, Storage: storage, Name: name, Keys: keys}); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(keys, name+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := cvmfs.ParsePublicKeys(pem)
	if err != nil {
		t.Fatal(err)
	}
	return public
}
