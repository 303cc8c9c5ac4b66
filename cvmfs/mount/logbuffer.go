package mount

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/micavm/mica/cvmfs/client"
)

const (
	keptLines = 10
	maxLine   = 1 << 10 // bytes of one
)

// LogBuffer keeps the last lines of a log, so that users who cannot read it see what
// a mount had to say. The zero value is ready for use. It is safe for concurrent
// use.
type LogBuffer struct {
	now func() time.Time // nil means time.Now

	mu    sync.Mutex // guards lines
	lines []string   // the newest last
}

// Handler keeps what a log gets, from level info on, and passes all on to next.
func (b *LogBuffer) Handler(next slog.Handler) slog.Handler {
	own := slog.NewTextHandler((*lineWriter)(b), &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey { // the line has it in front
			return slog.Attr{}
		}
		return a
	}})
	return slog.NewMultiHandler(own, next)
}

// lineWriter enters the lines of a slog.TextHandler, which come one a Write. Differs:
// whoever sees a mount can read its attributes, so that these show no user and no
// password of a proxy; the original's do.
type lineWriter LogBuffer

func (b *lineWriter) Write(line []byte) (int, error) {
	now := time.Now
	if b.now != nil {
		now = b.now
	}
	text := client.Masked(strings.TrimSuffix(string(line), "\n"))
	text = strings.ToValidUTF8(text[:min(len(text), maxLine)], "")
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) == keptLines {
		copy(b.lines, b.lines[1:])
		b.lines = b.lines[:keptLines-1]
	}
	b.lines = append(b.lines, "["+now().UTC().Format("2 Jan 2006 15:04:05")+" UTC] "+text+"\n")
	return len(line), nil
}

// String returns the lines, the newest first as in the original.
func (b *LogBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text strings.Builder
	for i := len(b.lines) - 1; i >= 0; i-- {
		text.WriteString(b.lines[i])
	}
	return text.String()
}
