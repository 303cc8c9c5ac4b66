package mount

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// The last lines are kept, the newest first, whatever the log itself leaves out.
func TestLogBuffer(t *testing.T) {
	b := &LogBuffer{now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }}
	if b.String() != "" {
		t.Errorf("at first: %q", b)
	}
	var shown strings.Builder
	log := slog.New(b.Handler(slog.NewTextHandler(&shown, &slog.HandlerOptions{Level: slog.LevelWarn})))
	log.Debug("not for anybody")
	for i := range 2 * keptLines {
		log.With("n", i).Info("line")
	}
	log.Warn("last", "text", strings.Repeat("x", 2*maxLine))
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != keptLines || !strings.HasPrefix(lines[0], "[2 Jan 2026 03:04:05 UTC] level=WARN msg=last text=xxx") || len(lines[0]) > maxLine+100 {
		t.Errorf("%d lines, the first %.80q", len(lines), lines[0])
	}
	for i, line := range lines[1:] {
		if want := fmt.Sprintf("[2 Jan 2026 03:04:05 UTC] level=INFO msg=line n=%d", 2*keptLines-1-i); line != want {
			t.Errorf("line %d is %q, want %q", i+1, line, want)
		}
	}
	log.Warn("switched proxy group", "from", "http://jane:pass%40word@proxy.invalid:3128", "to", "DIRECT")
	if got, want := b.String(), `from=http://***@proxy.invalid:3128 to=DIRECT`; !strings.Contains(got, want) || strings.Contains(got, "jane") {
		t.Errorf("a password is in\n%s", got)
	}
	if got := strings.Count(shown.String(), "\n"); got != 2 || !strings.Contains(shown.String(), "msg=last") {
		t.Errorf("the log itself has %d lines: %.200q", got, shown.String())
	}
}
