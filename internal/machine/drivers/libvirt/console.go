package libvirt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// A console is a stream in both directions, which the library does not have. It
// gets a connection of its own, on which the five calls it takes are spoken
// here: virnetprotocol.x (packets), remote_protocol.x (procedures).
const (
	remoteProgram = 0x20008086
	remoteVersion = 1

	procConnectOpen = 1
	procAuthList    = 66
	procAuthPolkit  = 70
	procOpenConsole = 201

	typeCall, typeReply, typeStream = 0, 1, 3
	statusOK, statusError           = 0, 1
	statusContinue                  = 2

	authPolkit = 2

	packetHeader = 28
	maxPacket    = 32 << 20 // VIR_NET_MESSAGE_MAX
	maxChunk     = 64 << 10 // of what is typed
)

// wire is a connection as packets.
type wire struct {
	net.Conn
	mu     sync.Mutex // guards writing
	serial uint32
}

type packet struct {
	proc, kind, serial, status uint32
	body                       []byte
}

func (w *wire) send(p packet) error {
	data := make([]byte, packetHeader, packetHeader+len(p.body))
	for n, v := range []uint32{uint32(packetHeader + len(p.body)), remoteProgram, remoteVersion, p.proc, p.kind, p.serial, p.status} {
		binary.BigEndian.PutUint32(data[4*n:], v)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.Write(append(data, p.body...))
	return err
}

// receive returns the next packet of the remote program.
func (w *wire) receive() (packet, error) { return readPacket(w.Conn) }

func readPacket(r io.Reader) (packet, error) {
	for {
		var head [packetHeader]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return packet{}, err
		}
		field := func(n int) uint32 { return binary.BigEndian.Uint32(head[4*n:]) }
		size := field(0)
		if size < packetHeader || size > maxPacket {
			return packet{}, fmt.Errorf("a packet of %d bytes is not libvirt's", size)
		}
		p := packet{proc: field(3), kind: field(4), serial: field(5), status: field(6)}
		var err error
		if p.body, err = io.ReadAll(io.LimitReader(r, int64(size-packetHeader))); err != nil {
			return packet{}, err
		}
		if len(p.body) != int(size-packetHeader) {
			return packet{}, io.ErrUnexpectedEOF
		}
		if field(1) == remoteProgram { // else it is about keeping the connection alive
			return p, nil
		}
	}
}

// call sends a call and returns the answer to it.
func (w *wire) call(proc uint32, args []byte) ([]byte, error) {
	w.serial++
	if err := w.send(packet{proc: proc, kind: typeCall, serial: w.serial, body: args}); err != nil {
		return nil, err
	}
	for {
		p, err := w.receive()
		if err != nil {
			return nil, err
		}
		if p.kind != typeReply || p.serial != w.serial {
			continue
		}
		if p.status == statusError {
			return nil, readError(p.body)
		}
		return p.body, nil
	}
}

// readError reads a remote_error as far as its message.
func readError(body []byte) error {
	const upToText = 16 // code, domain, that there is a message, its length
	if len(body) < upToText || binary.BigEndian.Uint32(body[8:]) != 1 {
		return errors.New("libvirt answers with an error that has no message")
	}
	n := binary.BigEndian.Uint32(body[12:])
	if uint64(n) > uint64(len(body)-upToText) {
		return errors.New("libvirt answers with a damaged error")
	}
	return rpc.Error{Code: binary.BigEndian.Uint32(body), Message: string(body[upToText : upToText+n])}
}

// xdrString appends a string as XDR has it (RFC 4506, 4.11).
func xdrString(data []byte, s string) []byte {
	data = binary.BigEndian.AppendUint32(data, uint32(len(s)))
	data = append(data, s...)
	return append(data, make([]byte, -len(s)&3)...)
}

// openConsole opens the first serial console of a domain.
func (w *wire) openConsole(uri string, dom rpc.Domain) error {
	kinds, err := w.call(procAuthList, nil)
	if err != nil {
		return err
	}
	for n := 4; n+4 <= len(kinds); n += 4 {
		if binary.BigEndian.Uint32(kinds[n:]) != authPolkit {
			continue
		}
		if _, err := w.call(procAuthPolkit, nil); err != nil {
			return err
		}
	}
	var flags [4]byte
	open := xdrString([]byte{0, 0, 0, 1}, uri) // an optional string that is there
	if _, err := w.call(procConnectOpen, append(open, flags[:]...)); err != nil {
		return err
	}
	args := xdrString(nil, dom.Name)
	args = append(args, dom.UUID[:]...)
	args = binary.BigEndian.AppendUint32(args, uint32(dom.ID))
	args = append(args, 0, 0, 0, 0) // no device is named: the first
	_, err = w.call(procOpenConsole, append(args, flags[:]...))
	return err
}

// Console implements machine.Consoler.
func (d *Driver) Console(ctx context.Context, i machine.Instance) (io.ReadWriteCloser, error) {
	c, p, dom, err := d.need(ctx, i)
	if err != nil {
		return nil, err
	}
	c.close()
	e, err := parseURI(p.URI, os.Geteuid())
	if err != nil {
		return nil, err
	}
	dialling, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	pipe, err := d.dial(dialling, e)
	if err != nil {
		return nil, err
	}
	cut := context.AfterFunc(dialling, func() { _ = pipe.Close() })
	w := &wire{Conn: pipe}
	err = w.openConsole(e.open, dom)
	if !cut() {
		err = ctx.Err()
	}
	if err != nil {
		if s, ok := pipe.(*sshPipe); ok {
			err = s.explain(err)
		}
		_ = pipe.Close()
		return nil, consoleRefused(i.Spec, err)
	}
	con := &console{wire: w, closed: make(chan struct{})}
	con.out, con.in = io.Pipe()
	go con.receive()
	return con, nil
}

func consoleRefused(s machine.Spec, err error) error {
	switch {
	case strings.Contains(err.Error(), "Active console session exists"):
		return fail.New(fail.Conflict, "the console of %q is open elsewhere: %w", s.Name, err).
			Hint("close it there, or read along with 'mica logs --raw --follow %s'", s.Name)
	case is(err, rpc.ErrOperationInvalid):
		return fail.New(fail.Conflict, "%q does not run: %w", s.Name, err)
	}
	return explain("opening console", err)
}

// console is an open console.
type console struct {
	wire   *wire
	out    *io.PipeReader
	in     *io.PipeWriter
	closed chan struct{} // closed when nothing comes any more
	once   sync.Once
	err    error
}

// receive hands on what the guest writes. After the reader has gone it goes on
// taking, until the daemon has confirmed the end.
func (c *console) receive() {
	defer close(c.closed)
	for {
		p, err := c.wire.receive()
		if err != nil {
			_ = c.in.CloseWithError(err)
			return
		}
		if p.proc != procOpenConsole || p.kind != typeStream {
			continue
		}
		switch {
		case p.status == statusError:
			_ = c.in.CloseWithError(readError(p.body))
			return
		case p.status == statusOK || len(p.body) == 0: // both mean the end
			_ = c.in.Close()
			return
		}
		_, _ = c.in.Write(p.body)
	}
}

// Read reads what the guest writes; io.EOF when it has ended.
func (c *console) Read(p []byte) (int, error) { return c.out.Read(p) }

// Write types.
func (c *console) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += maxChunk {
		chunk := p[n:min(n+maxChunk, len(p))]
		err := c.wire.send(packet{proc: procOpenConsole, kind: typeStream, serial: c.wire.serial, status: statusContinue, body: chunk})
		if err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// Close gives the console free for others before it returns.
func (c *console) Close() error {
	c.once.Do(func() {
		_ = c.out.Close()
		_ = c.wire.send(packet{proc: procOpenConsole, kind: typeStream, serial: c.wire.serial, status: statusOK})
		select {
		case <-c.closed:
		case <-time.After(2 * time.Second):
		}
		c.err = c.wire.Close()
		<-c.closed
	})
	return c.err
}
