package libvirt

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// The library takes the packets of a stream in an order and a number that libvirtd
// does not keep to, and locks up then, for good, with all other calls on the
// connection (go-libvirt#241 is one of these):
//
//   - libvirtd may send the first data before it says that the call went well, which
//     the library takes for one another.
//   - A packet to a stream that has just ended waits for a reader, under the lock
//     that the reader needs to leave. libvirtd sends one: after the empty packet that
//     ends a download it notices that its own pipe has hung up, and says so.
//   - An upload that fails after all has been sent waits for the sender to take
//     notice, who has gone.
//
// So the library is handed the answer first, nothing after the end, and of a failed
// upload that it has ended well; its error comes past it.
type streams struct {
	net.Conn
	in   *bufio.Reader
	out  []byte // what the library is to read next
	open map[uint32]*stream
	held int // bytes of packets that came before their answer

	turn   chan struct{} // one upload at a time, so that an error is known to be its
	failed chan error    // of the upload
}

// stream is one, by the serial number of the call that began it.
type stream struct {
	answered, ended bool
	early           []byte // packets that came before the answer
}

const (
	// Those of remote_protocol.x that begin a stream here.
	procUpload     = 208
	procDownload   = 209
	procScreenshot = 211

	maxHeld    = 64 << 20
	maxStreams = 256 // remembered; what is to come after an end comes soon
)

func newStreams(c net.Conn) *streams {
	return &streams{Conn: c, in: bufio.NewReader(c), open: map[uint32]*stream{}, turn: make(chan struct{}, 1), failed: make(chan error, 1)}
}

// Read hands on whole packets.
func (s *streams) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// next reads a packet, and decides what becomes of it.
func (s *streams) next() error {
	var size [4]byte
	if _, err := io.ReadFull(s.in, size[:]); err != nil {
		return err
	}
	rest := int64(binary.BigEndian.Uint32(size[:])) - int64(len(size))
	if rest < packetHeader-int64(len(size)) || rest > maxPacket {
		return errors.New("what comes is not libvirt's protocol") // and the library would believe the size
	}
	packet := bytes.NewBuffer(size[:])
	if n, err := io.CopyN(packet, s.in, rest); err != nil || n != rest {
		return cmp.Or(err, io.ErrUnexpectedEOF)
	}
	data := packet.Bytes()
	field := func(n int) uint32 { return binary.BigEndian.Uint32(data[4*n:]) }
	proc, kind, serial := field(3), field(4), field(5)
	switch {
	case field(1) != remoteProgram:
		s.out = data
	case kind == typeStream:
		return s.part(serial, data)
	case kind == typeReply && (proc == procUpload || proc == procDownload || proc == procScreenshot):
		s.answer(serial, data)
	default:
		s.out = data
	}
	return nil
}

// stream finds or begins one.
func (s *streams) stream(serial uint32) *stream {
	one := s.open[serial]
	if one == nil {
		if len(s.open) >= maxStreams {
			for old, other := range s.open {
				if other.ended {
					delete(s.open, old)
				}
			}
		}
		one = &stream{}
		s.open[serial] = one
	}
	return one
}

// answer hands on the answer to a call, and what came before it.
func (s *streams) answer(serial uint32, data []byte) {
	one := s.stream(serial)
	s.out = append(data, one.early...)
	s.held -= len(one.early)
	one.answered, one.early = true, nil
	if binary.BigEndian.Uint32(data[4*6:]) != statusOK { // there is no stream
		delete(s.open, serial)
	}
}

// part hands on a packet of a stream, unless it comes too early or too late.
func (s *streams) part(serial uint32, data []byte) error {
	one := s.stream(serial)
	if one.ended {
		if one.answered {
			delete(s.open, serial)
		}
		return nil
	}
	proc, status := binary.BigEndian.Uint32(data[4*3:]), binary.BigEndian.Uint32(data[4*6:])
	if status == statusError && proc == procUpload {
		select {
		case s.failed <- readError(data[packetHeader:]):
		default: // the first says why
		}
		data = data[:packetHeader]
		binary.BigEndian.PutUint32(data, packetHeader)
		binary.BigEndian.PutUint32(data[4*6:], statusOK)
	}
	one.ended = status != statusContinue || len(data) == packetHeader
	if one.answered {
		s.out = data
		return nil
	}
	if s.held += len(data); s.held > maxHeld {
		return errors.New("libvirt's daemon sends much, but no answer")
	}
	one.early = append(one.early, data...)
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
