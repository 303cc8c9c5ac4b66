package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/cli"
)

// Serving says where, answers there, and ends with code 0 when interrupted.
func TestRepoServe(t *testing.T) {
	repo := cvmfstest.Small(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	reader, writer := io.Pipe()
	var errors bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- cli.Main(ctx, cli.IO{In: strings.NewReader(""), Out: writer, Err: &errors, Env: func(string) string { return "" }},
			[]string{"mica", "repo", "serve", filepath.Dir(repo.Dir), "--listen", "127.0.0.1:0"})
		_ = writer.Close()
	}()
	line, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil {
		t.Fatalf("no address: %v, %s", err, errors.String())
	}
	url := strings.TrimSpace(line)
	if !strings.HasSuffix(url, "/cvmfs/"+cvmfstest.Name) {
		t.Errorf("address = %q", url)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/"+cvmfs.ManifestFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || !bytes.Equal(data, repo.Read(t, cvmfs.ManifestFile)) {
		t.Errorf("GET %s = %d bytes, %v, want the manifest", request.URL, len(data), err)
	}
	interrupt()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d, %s", got, errors.String())
	}
}
