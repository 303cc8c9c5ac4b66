package libvirt

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/micavm/mica/internal/fail"
)

// upload fills a volume.
func (p *pool) upload(ctx context.Context, vol rpc.StorageVol, r io.Reader, size int64) error {
	limit := longPatience + time.Duration(size>>20)*time.Second // a megabyte a second is slow
	what := "uploading " + vol.Name
	from, end, err := p.c.flow.beginUpload(ctx, reader{ctx, r})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	sent := &lastPiece{Reader: from}
	err = p.c.call(ctx, limit, what, func() error { return p.c.StorageVolUpload(vol, sent, 0, uint64(size), 0) })
	if failed := end(); failed != nil {
		return p.full(explain(what, failed))
	}
	if err := cmp.Or(err, ctx.Err()); err != nil {
		return err
	}
	return p.arrived(ctx, vol, sent)
}

// arrived sees that the volume holds the last that was sent to it. libvirt 9.0
// says that all is well when its disk was full before it had written what it had
// taken; it writes in order, and nothing more after that.
func (p *pool) arrived(ctx context.Context, vol rpc.StorageVol, sent *lastPiece) error {
	if len(sent.data) == 0 {
		return nil
	}
	var there bytes.Buffer
	if err := p.download(ctx, vol, &there, sent.at, int64(len(sent.data))); err != nil {
		return err
	}
	if bytes.Equal(there.Bytes(), sent.data) {
		return nil
	}
	return p.full(fmt.Errorf("uploading %s: its end did not reach the disk: No space left on device", vol.Name))
}

// full gives the error of a pool without space its remedy.
func (p *pool) full(err error) error {
	if err == nil || !strings.Contains(err.Error(), "No space left on device") {
		return err
	}
	return fail.New(fail.Failed, "storage pool %q is full: %w", p.name, err).
		Hint("free some space there: 'virsh -c %s pool-info %s' shows how much there is", p.c.uri, p.name).
		Hint("or name a pool on a larger disk with --option pool=NAME; 'virsh -c %s pool-list' shows them", p.c.uri)
}

// lastPiece remembers the last of what is read through it that is not zeros,
// which a new volume is made of.
type lastPiece struct {
	io.Reader
	at   int64
	data []byte

	read int64
}

const maxPiece = 512

// Read implements io.Reader.
func (l *lastPiece) Read(b []byte) (int, error) {
	n, err := l.Reader.Read(b)
	if kept := bytes.TrimRight(b[:n], "\x00"); len(kept) > 0 {
		from := max(0, len(kept)-maxPiece)
		l.at, l.data = l.read+int64(from), append(l.data[:0], kept[from:]...)
	}
	l.read += int64(n)
	return n, err
}

func (p *pool) download(ctx context.Context, vol rpc.StorageVol, w io.Writer, offset, length int64) error {
	return p.c.ask(ctx, "reading volume "+vol.Name, func() error {
		return p.c.StorageVolDownload(vol, w, uint64(offset), uint64(length), 0)
	})
}
