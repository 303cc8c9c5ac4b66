package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/profile"
)

// Options say what is served.
type Options struct {
	// Storage are directories of repositories: STORAGE/NAME/.cvmfspublished.
	// A name in two of them is served from the first.
	Storage []string
	Log     *slog.Logger // one line a request at debug level; nil discards
}

// Handler serves repositories. It may be used by several goroutines.
type Handler struct {
	storage []string
	log     *slog.Logger
}

// New returns a handler. Repositories that are created later are served too.
func New(o Options) *Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{storage: slices.Clone(o.Storage), log: o.Log}
}

// Repositories returns the names of what is served now, in order.
func (h *Handler) Repositories() ([]string, error) {
	var names []string
	for _, root := range h.storage {
		entries, err := os.ReadDir(root)
		if err != nil {
			return nil, fmt.Errorf("listing repositories: %w", err)
		}
		for _, e := range entries {
			if cvmfs.CheckName(e.Name()) != nil {
				continue
			}
			if fi, err := os.Stat(filepath.Join(root, e.Name(), cvmfs.ManifestFile)); err == nil && fi.Mode().IsRegular() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Lifetimes of what is served, in seconds.
const (
	rootLife   = "max-age=61"
	objectLife = "max-age=259200, immutable"
)

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status := &recorder{ResponseWriter: w, status: http.StatusOK}
	h.serve(status, r)
	h.log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", status.status, "bytes", status.bytes)
}

type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/cvmfs/")
	if !ok {
		refuse(w, http.StatusNotFound)
		return
	}
	name, file, _ := strings.Cut(rest, "/")
	switch {
	case name == "info":
		h.info(w, r, file)
	case cvmfs.CheckName(name) != nil:
		refuse(w, http.StatusNotFound)
	case strings.HasPrefix(file, "api/v1.0/geo/"):
		geo(w, r, strings.TrimPrefix(file, "api/v1.0/geo/"))
	case isRootFile(file):
		h.file(w, r, name, file, rootLife)
	case isObject(file):
		h.file(w, r, name, file, objectLife)
	default:
		refuse(w, http.StatusNotFound)
	}
}

// refuse answers without a body worth keeping: proxies must not remember that
// an object is missing, it may come with the next publication.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, http.StatusText(status), status)
}

// isRootFile tells the files of the format at the root of a repository from
// what else lies there, such as the manifest before this one.
func isRootFile(file string) bool {
	switch file {
	case cvmfs.ManifestFile, cvmfs.WhitelistFile, cvmfs.WhitelistFile + ".pkcs7", cvmfs.ReflogFile,
		".cvmfs_master_replica", ".cvmfs_last_snapshot", ".cvmfs_is_snapshotting", ".cvmfs_status.json", profile.Name:
		return true
	}
	return false
}

// isObject reports whether a path is exactly that of an object: staging areas
// and anything with dots in it are not.
func isObject(file string) bool {
	rest, ok := strings.CutPrefix(file, "data/")
	if !ok || len(rest) < 4 || rest[2] != '/' {
		return false
	}
	text := rest[:2] + rest[3:]
	if last := text[len(text)-1]; last >= 'A' && last <= 'Z' {
		text = text[:len(text)-1]
	}
	_, err := cvmfs.ParseHash(text)
	return err == nil
}

// file serves one file of a repository, found without following symbolic links.
func (h *Handler) file(w http.ResponseWriter, r *http.Request, name, file, life string) {
	for _, root := range h.storage {
		dir := filepath.Join(root, name)
		if _, err := os.Lstat(filepath.Join(dir, cvmfs.ManifestFile)); err != nil {
			continue // no repository, or none yet
		}
		f, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(file)), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ELOOP) {
				h.log.Warn("cannot serve", "repository", name, "file", file, "error", err)
			}
			refuse(w, http.StatusNotFound)
			return
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil || !fi.Mode().IsRegular() {
			refuse(w, http.StatusNotFound)
			return
		}
		w.Header().Set("Cache-Control", life)
		w.Header().Set("Content-Type", contentType(file))
		http.ServeContent(w, r, "", fi.ModTime(), f)
		return
	}
	refuse(w, http.StatusNotFound)
}

func contentType(file string) string {
	if strings.HasSuffix(file, ".json") {
		return "application/json"
	}
	if strings.HasPrefix(file, ".cvmfs") {
		return "application/x-cvmfs"
	}
	return "application/octet-stream"
}

// info answers what is served here.
func (h *Handler) info(w http.ResponseWriter, r *http.Request, file string) {
	type repository struct {
		Name string `json:"name"`
		URL  string `json:"url"`
	}
	var document any
	switch file {
	case "v1/repositories.json":
		names, err := h.Repositories()
		if err != nil {
			h.log.Warn("cannot list repositories", "error", err)
			refuse(w, http.StatusInternalServerError)
			return
		}
		list := make([]repository, 0, len(names))
		for _, name := range names {
			list = append(list, repository{name, "/cvmfs/" + name})
		}
		document = map[string]any{"schema": 1, "repositories": list, "replicas": []repository{}}
	case "v1/meta.json":
		document = map[string]any{"administrator": "", "email": "", "organisation": "", "custom": map[string]any{}}
	default:
		refuse(w, http.StatusNotFound)
		return
	}
	data, err := json.Marshal(document)
	if err != nil {
		refuse(w, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", rootLife)
	w.Header().Set("Content-Type", "application/json")
	body(w, r, append(data, '\n'))
}

// maxServers bounds the answer of geo.
const maxServers = 100

// geo orders servers for a reader: we know nothing of places, so as given.
func geo(w http.ResponseWriter, r *http.Request, query string) {
	_, list, ok := strings.Cut(query, "/")
	list = strings.Split(list, "+PXYSEP+")[0]
	servers := strings.Split(list, ",")
	if !ok || list == "" || len(servers) > maxServers {
		refuse(w, http.StatusBadRequest)
		return
	}
	order := make([]string, len(servers))
	for i := range servers {
		order[i] = strconv.Itoa(i + 1)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain")
	body(w, r, []byte(strings.Join(order, ",")+"\n"))
}

func body(w http.ResponseWriter, r *http.Request, data []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(data) // the reader has gone
}
