package plugins_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
)

// siteArchive is the context of a site, as its metadata service hands it out.
func siteArchive() string {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	t := tar.NewWriter(z)
	for name, text := range map[string]string{"prolog.sh": "echo prolog $1\n"} {
		_ = t.WriteHeader(&tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o755})
		_, _ = t.Write([]byte(text))
	}
	_ = t.Close()
	_ = z.Close()
	return buf.String()
}
