package libvirt

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// The library's streams lock up in two places, from which it does not recover,
// nor do other calls on the connection (go-libvirt#241):
//
//   - A packet to a stream that has just ended waits for a reader, under the lock
//     that the reader needs to leave. libvirtd sends one: after the empty packet that
//     ends a download it notices that its own pipe has hung up, and says so.
//   - An upload that fails after all has been sent waits for the sender to take
//     notice, who has gone.
//
// So the library never sees the first, and of the second that it has ended well;
// the error comes past it.
type streams struct {
	net.Conn
	in    *bufio.Reader
	head  []byte          // what remains of a packet's head
	body  int64           // bytes of its body that follow
	ended map[uint32]bool // serials of streams that have ended and may get a packet more

	turn   chan struct{} // one upload at a time, so that an error is known to be its
	failed chan error    // of the upload
}

// procUpload is REMOTE_PROC_STORAGE_VOL_UPLOAD of remote_protocol.x.
const procUpload = 208

func newStreams(c net.Conn) *streams {
	return &streams{Conn: c, in: bufio.NewReader(c), ended: map[uint32]bool{}, turn: make(chan struct{}, 1), failed: make(chan error, 1)}
}

// Read hands on whole packets, but those that would lock up the library.
func (s *streams) Read(p []byte) (int, error) {
	for len(s.head) == 0 && s.body == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	if len(s.head) > 0 {
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	n, err := s.in.Read(p[:min(int64(len(p)), s.body)])
	s.body -= int64(n)
	return n, err
}

// next reads the head of a packet, and decides what becomes of it.
func (s *streams) next() error {
	head := make([]byte, packetHeader)
	if _, err := io.ReadFull(s.in, head); err != nil {
		return err
	}
	field := func(n int) uint32 { return binary.BigEndian.Uint32(head[4*n:]) }
	size := field(0)
	if size < packetHeader || size > maxPacket {
		return errors.New("what comes is not libvirt's protocol") // and the library would believe the size
	}
	s.head, s.body = head, int64(size-packetHeader)
	if field(1) != remoteProgram || field(4) != typeStream {
		return nil
	}
	serial, status := field(5), field(6)
	switch {
	case s.ended[serial]:
		delete(s.ended, serial)
		_, err := io.CopyN(io.Discard, s.in, s.body)
		s.head, s.body = nil, 0
		return err
	case status == statusError && field(3) == procUpload:
		body := make([]byte, s.body)
		if _, err := io.ReadFull(s.in, body); err != nil {
			return err
		}
		select {
		case s.failed <- readError(body):
		default: // the first says why
		}
		s.body = 0
		binary.BigEndian.PutUint32(head, packetHeader)
		binary.BigEndian.PutUint32(head[4*6:], statusOK)
	case status == statusContinue && s.body == 0:
		s.ended[serial] = true
	}
	return nil
}

// beginUpload waits for its turn. What is uploaded is read from the reader it
// returns; end, which has to be called, tells whether the daemon could not take it.
func (s *streams) beginUpload(ctx context.Context, r io.Reader) (from io.Reader, end func() error, err error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	_ = s.failure() // of a call that nobody waited for
	return untilFailed{r, s}, func() error {
		defer func() { <-s.turn }()
		return s.failure()
	}, nil
}

func (s *streams) failure() error {
	select {
	case err := <-s.failed:
		return err
	default:
		return nil
	}
}

// untilFailed ends when the upload has failed.
type untilFailed struct {
	io.Reader
	s *streams
}

func (u untilFailed) Read(p []byte) (int, error) {
	if len(u.s.failed) > 0 {
		return 0, io.EOF
	}
	return u.Reader.Read(p)
}
