package progress

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// Lines returns a sink for output that is not a terminal: one line when a phase
// begins and, for work that reports sizes, one when it ends.
func Lines(w io.Writer) Sink {
	return &lines{w: w, phase: map[string]string{}, began: map[string]time.Time{}}
}

type lines struct {
	w     io.Writer
	mu    sync.Mutex // guards the maps and the writer
	phase map[string]string
	began map[string]time.Time
}

func (l *lines) Emit(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.phase[e.ID] != e.Phase && !e.Finished {
		l.phase[e.ID], l.began[e.ID] = e.Phase, time.Now()
		_, _ = fmt.Fprintf(l.w, "%s: %s\n", e.ID, e.Phase)
	}
	if e.Finished {
		took := ""
		if began, ok := l.began[e.ID]; ok {
			took = fmt.Sprintf(" in %.1f s", time.Since(began).Seconds())
		}
		_, _ = fmt.Fprintf(l.w, "%s: %s%s%s\n", e.ID, e.Phase, amount(e), took)
		delete(l.phase, e.ID)
		delete(l.began, e.ID)
	}
}

// JSON returns a sink that writes one JSON object a line.
func JSON(w io.Writer) Sink { return &jsonLines{enc: json.NewEncoder(w)} }

type jsonLines struct {
	mu  sync.Mutex // guards enc
	enc *json.Encoder
}

func (j *jsonLines) Emit(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_ = j.enc.Encode(e)
}

// Bars is a sink for a terminal: a bar for each piece of work that knows its
// size, a spinner for the others. Call Wait when the work is over.
type Bars struct {
	p    *mpb.Progress
	mu   sync.Mutex // guards bars
	bars map[string]*bar
}

type bar struct {
	*mpb.Bar
	phase atomic.Pointer[string] // read by the goroutine that draws
	total int64
}

// NewBars draws on w.
func NewBars(w io.Writer) *Bars {
	return &Bars{p: mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithRefreshRate(150*time.Millisecond)), bars: map[string]*bar{}}
}

// Emit shows e.
func (b *Bars) Emit(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.bars[e.ID]
	if one == nil {
		one = &bar{}
		one.phase.Store(&e.Phase)
		name := decor.Any(func(decor.Statistics) string { return e.ID + ": " + *one.phase.Load() + " " })
		one.Bar = b.p.AddBar(0, mpb.PrependDecorators(name), mpb.AppendDecorators(sizes(e.Unit), decor.Elapsed(decor.ET_STYLE_GO, decor.WC{W: 6})))
		b.bars[e.ID] = one
	}
	one.phase.Store(&e.Phase)
	if e.Total > 0 && e.Total != one.total {
		one.total = e.Total
		one.SetTotal(e.Total, false)
	}
	one.SetCurrent(e.Done)
	if e.Finished {
		one.SetTotal(-1, true)
		delete(b.bars, e.ID)
	}
}

// Wait ends every bar and leaves the last state on the screen.
func (b *Bars) Wait() {
	b.mu.Lock()
	for _, one := range b.bars {
		one.Abort(false)
	}
	b.mu.Unlock()
	b.p.Wait()
}

func sizes(u Unit) decor.Decorator {
	if u == Bytes {
		return decor.CountersKiloByte("% .1f / % .1f ")
	}
	return decor.CountersNoUnit("%d / %d ")
}

func amount(e Event) string {
	switch {
	case e.Done == 0:
		return ""
	case e.Unit == Bytes:
		return ": " + Size(e.Done)
	}
	return fmt.Sprintf(": %d %s", e.Done, e.Unit)
}

// Size writes a number of bytes with a decimal unit, as disks and downloads are
// labelled: 17.8 MB is 17.8 million bytes.
func Size(n int64) string {
	const kilo = 1000
	if n < kilo {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"kB", "MB", "GB", "TB", "PB", "EB"} {
		if f /= kilo; f < kilo {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
