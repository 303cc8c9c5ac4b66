package sparse

import (
	"io"
	"os"
)

// Writer writes a new file from its beginning and leaves out what is nothing but
// zeros, a Write at a time. The file has its whole length after Flush only.
type Writer struct {
	File *os.File // empty, and not written to by others

	at int64
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	if zero(p) {
		w.at += int64(len(p))
		return len(p), nil
	}
	n, err := w.File.WriteAt(p, w.at)
	w.at += int64(n)
	return n, err
}

// Flush gives the file its length and leaves its offset at the end.
func (w *Writer) Flush() error {
	if err := w.File.Truncate(w.at); err != nil {
		return err
	}
	_, err := w.File.Seek(0, io.SeekEnd)
	return err
}
