package serve_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/serve"
)

type answer struct {
	status int
	header http.Header
	body   string
}

func ask(t *testing.T, server *httptest.Server, method, path string, header http.Header) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Opaque = "//" + r.URL.Host + path // as it is, not cleaned
	r.Header = header
	if header == nil {
		r.Header = http.Header{"Accept-Encoding": {"gzip"}}
	}
	response, err := server.Client().Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(data)}
}

func start(t *testing.T) (*httptest.Server, cvmfstest.Repo) {
	t.Helper()
	repo := cvmfstest.Small(t)
	server := httptest.NewServer(serve.New(serve.Options{Storage: []string{t.TempDir(), filepath.Dir(repo.Dir)}}))
	t.Cleanup(server.Close)
	return server, repo
}

const base = "/cvmfs/" + cvmfstest.Name + "/"

func TestFiles(t *testing.T) {
	server, repo := start(t)
	root, err := cvmfs.ParseHash(cvmfstest.RootHashes[3])
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ file, life, kind string }{
		{cvmfs.ManifestFile, "max-age=61", "application/x-cvmfs"},
		{cvmfs.WhitelistFile, "max-age=61", "application/x-cvmfs"},
		{root.ObjectPath(cvmfs.SuffixCatalog), "max-age=259200, immutable", "application/octet-stream"},
	} {
		want := string(repo.Read(t, test.file))
		a := ask(t, server, http.MethodGet, base+test.file, nil)
		if a.status != http.StatusOK || a.body != want {
			t.Errorf("GET %s = %d, %d bytes, want its %d", test.file, a.status, len(a.body), len(want))
		}
		if got := a.header.Get("Cache-Control"); got != test.life {
			t.Errorf("Cache-Control of %s = %q, want %q", test.file, got, test.life)
		}
		if got := a.header.Get("Content-Type"); got != test.kind {
			t.Errorf("Content-Type of %s = %q, want %q", test.file, got, test.kind)
		}
		if got := a.header.Get("Content-Encoding"); got != "" {
			t.Errorf("Content-Encoding of %s = %q, want none: hashes are over stored bytes", test.file, got)
		}
		h := ask(t, server, http.MethodHead, base+test.file, nil)
		if h.status != http.StatusOK || h.body != "" || h.header.Get("Content-Length") != a.header.Get("Content-Length") || h.header.Get("Content-Length") == "" {
			t.Errorf("HEAD %s = %d, length %q", test.file, h.status, h.header.Get("Content-Length"))
		}
		since := http.Header{"If-Modified-Since": {time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}}
		if a := ask(t, server, http.MethodGet, base+test.file, since); a.status != http.StatusNotModified {
			t.Errorf("GET %s if modified since = %d, want 304", test.file, a.status)
		}
	}
}

func TestNothingElse(t *testing.T) {
	server, repo := start(t)
	parent := filepath.Dir(repo.Dir)
	for path, content := range map[string]string{
		filepath.Join(repo.Dir, ".cvmfspublished.prev"):    "secret",
		filepath.Join(repo.Dir, "data/txn/mica-1/object"):  "secret",
		filepath.Join(parent, "plain.example.org", "file"): "secret",
		filepath.Join(parent, "secret"):                    "secret",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := strings.Repeat("a", 38)
	if err := os.Symlink("../../../secret", filepath.Join(repo.Dir, "data/aa", link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/", "/cvmfs", "/cvmfs/", base, base + "data", base + "data/", base + "data/aa", base + "data/aa/", base + "data/aa/" + link,
		base + ".cvmfspublished.prev", base + "data/txn/mica-1/object", base + "data/txn/", base + "data/zz/" + link, base + "data/aa/" + link[1:],
		base + "../secret", base + "data/aa/../../../secret", base + "..%2fsecret", base + "data%2faa%2f..%2f..%2f..%2fsecret", "/cvmfs/../secret", "/secret",
		"/cvmfs/.tree.lock", "/cvmfs/plain.example.org/file", "/cvmfs/plain.example.org/.cvmfspublished", "/cvmfs/other.example.org/.cvmfspublished",
		"/cvmfs/keys/" + cvmfstest.Name + ".masterkey", base + "data/aa/" + link + "/x", base + ".cvmfspublished/", base + "/.cvmfspublished", "/cvmfs/info/v1/", "/cvmfs/info",
	} {
		if a := ask(t, server, http.MethodGet, path, nil); a.status != http.StatusNotFound || strings.Contains(a.body, "secret") {
			t.Errorf("GET %s = %d, %q, want 404", path, a.status, a.body)
		} else if a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("GET %s: a proxy may remember that it is missing", path)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		if a := ask(t, server, method, base+cvmfs.ManifestFile, nil); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s = %d, want 405", method, a.status)
		}
	}
}

func TestInfo(t *testing.T) {
	server, _ := start(t)
	a := ask(t, server, http.MethodGet, "/cvmfs/info/v1/repositories.json", nil)
	var document struct {
		Schema       int
		Repositories []struct{ Name, URL string }
		Replicas     []any
	}
	if err := json.Unmarshal([]byte(a.body), &document); err != nil {
		t.Fatal(err)
	}
	if document.Schema != 1 || len(document.Repositories) != 1 || document.Repositories[0].Name != cvmfstest.Name || document.Repositories[0].URL != "/cvmfs/"+cvmfstest.Name || document.Replicas == nil {
		t.Errorf("repositories.json = %s", a.body)
	}
	if a := ask(t, server, http.MethodGet, "/cvmfs/info/v1/meta.json", nil); a.status != http.StatusOK || !json.Valid([]byte(a.body)) {
		t.Errorf("meta.json = %d, %q", a.status, a.body)
	}
}

func TestGeo(t *testing.T) {
	server, _ := start(t)
	for path, want := range map[string]string{
		"api/v1.0/geo/uuid/a.example.org,b.example.org,c.example.org": "1,2,3\n",
		"api/v1.0/geo/proxy/one":            "1\n",
		"api/v1.0/geo/proxy/a,b+PXYSEP+p,q": "1,2\n",
	} {
		if a := ask(t, server, http.MethodGet, base+path, nil); a.status != http.StatusOK || a.body != want {
			t.Errorf("GET %s = %d, %q, want %q", path, a.status, a.body, want)
		}
	}
	for _, path := range []string{"api/v1.0/geo/", "api/v1.0/geo/x", "api/v1.0/geo/x/", "api/v1.0/geo/x/" + strings.Repeat("a,", 200)} {
		if a := ask(t, server, http.MethodGet, base+path, nil); a.status != http.StatusBadRequest {
			t.Errorf("GET %s = %d, want 400", path, a.status)
		}
	}
}
