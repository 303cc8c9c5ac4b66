package libvirt

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/micavm/mica/internal/machine"
)

// part is a piece of a console log, as virtlogd cuts it.
type part struct {
	mark string // tells it from others; empty for the one that grows
	size int64
	read func(ctx context.Context, offset, length int64) ([]byte, error)
}

// logs are the logs that somebody has read here.
type logs struct {
	mu  sync.Mutex
	all map[string]*tail // by machine id
}

// tail is what is known of a log whose oldest part goes when there are too many:
// readers count bytes, and are to go on where they were.
type tail struct {
	cut  []part // all but the one that grows, the oldest first, when last looked at
	base int64  // bytes that went before them
	// readers tells, by the offset that a reader will ask for next, how far off
	// the log's true beginning it counts from.
	readers map[int64]int64
}

// Log implements machine.Logger. Whoever reads along goes on though older parts
// are gone; who comes later begins with the oldest part that is there.
func (d *Driver) Log(ctx context.Context, i machine.Instance, offset int64) ([]byte, error) {
	p, there, err := placeOf(i.Spec.Dir)
	if err != nil || !there {
		return nil, err
	}
	var c *conn
	if p.Pool != "" {
		if c, err = d.connect(ctx, p.URI); err != nil {
			return nil, err
		}
		defer c.close()
	}
	files := d.storeOf(c, p)
	for {
		parts, err := files.logParts(ctx, i.Spec)
		if err != nil {
			return nil, err
		}
		t, at := d.logs.find(p.ID, parts, offset)
		data, err := readParts(ctx, parts, at-t.base)
		if err != nil || len(data) == 0 {
			return nil, err
		}
		// Where it has been cut meanwhile the names mean other parts.
		again, err := files.logParts(ctx, i.Spec)
		if err != nil {
			return nil, err
		}
		if slices.EqualFunc(parts, again, func(a, b part) bool { return a.mark == b.mark }) {
			d.logs.goOn(p.ID, offset, at, int64(len(data)))
			return data, nil
		}
		if err := wait(ctx, poll); err != nil {
			return nil, err
		}
	}
}

// readParts reads from an offset into the parts on.
func readParts(ctx context.Context, parts []part, offset int64) ([]byte, error) {
	var b bytes.Buffer
	for _, p := range parts {
		if length := min(p.size-offset, int64(maxLog-b.Len())); length > 0 {
			data, err := p.read(ctx, offset, length)
			if err != nil {
				return nil, err
			}
			b.Write(data)
		}
		offset = max(0, offset-p.size)
	}
	return b.Bytes(), nil
}

// find looks at the parts of a log, and returns what is known of it and where a
// reader that asks for an offset is, counted from the true beginning.
func (l *logs) find(id string, parts []part, offset int64) (tail, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[string]*tail{}
	}
	t := l.all[id]
	cut := parts[:max(0, len(parts)-1)]
	if t == nil || len(cut) == 0 && len(t.cut) > 0 { // it has begun anew
		t = &tail{readers: map[int64]int64{}}
		l.all[id] = t
	}
	for len(t.cut) > 0 && t.cut[0].mark != cut[0].mark {
		t.base += t.cut[0].size
		t.cut = t.cut[1:]
	}
	t.cut = cut
	from, known := t.readers[offset]
	if !known {
		from = t.base
	}
	return *t, max(offset+from, t.base)
}

// goOn notes where a reader will go on that has read n bytes from at on, which it
// knows as offset.
func (l *logs) goOn(id string, offset, at, n int64) {
	const most = 64 // readers; who is forgotten counts from the oldest part
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.all[id]
	if t == nil {
		return
	}
	if offset > 0 {
		delete(t.readers, offset)
	}
	if len(t.readers) >= most {
		clear(t.readers)
	}
	t.readers[offset+n] = at - offset
}

// forget drops what is known of a log that begins anew.
func (l *logs) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, id)
}
