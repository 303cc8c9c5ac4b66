package download

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzAnswer reads what servers, and whoever wrote a part's notes, say.
func FuzzAnswer(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	f.Add(int64(5), "bytes 5-9/10", "text/html; charset=utf-8", `{"url_sha256":"", "etag":"W/1"}`)
	f.Add(int64(0), "bytes 0-9/*", "application/octet-stream", sum+"  f.iso\n")
	f.Add(int64(5), "bytes 6-9/10", ";;", strings.ToUpper(sum))
	f.Add(int64(-1), "bytes -1--1/-1", "", sum+"0")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, asked int64, contentRange, kind, text string) {
		resp := &http.Response{StatusCode: http.StatusPartialContent, ContentLength: asked, Header: http.Header{
			"Content-Range": {contentRange}, "Content-Type": {kind}, "Content-Encoding": {kind},
		}}
		if from, err := begins(resp, asked); err == nil && from != asked {
			t.Errorf("begins(%q) = %d, asked for %d", contentRange, from, asked)
		}
		_ = new(Client).refuse(Request{URL: text, Max: 10}, resp, asked)
		if sum, ok := firstDigest([]byte(text)); ok && (!isDigest(sum) || !strings.EqualFold(sum, text[:64])) {
			t.Errorf("firstDigest(%q) = %q", text, sum)
		}
		if name := BaseName(text); name != "" && (name != filepath.Base(name) || name == "." || name == "..") {
			t.Errorf("BaseName(%q) = %q", text, name)
		}
		p := part{path: filepath.Join(dir, "part"), url: "u"}
		if err := os.WriteFile(p.notes(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if v := p.known().validator(); strings.HasPrefix(v, "W/") {
			t.Errorf("the validator is %q, a weak one", v)
		}
		_ = Shown(text)
	})
}
