package libvirt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/micavm/mica/internal/machine/drivers/libvirt"
)

// The protocol's numbers: virnetprotocol.x and remote_protocol.x.
const (
	program       = 0x20008086
	procUpload    = 208
	procDownload  = 209
	kindReply     = 1
	kindStream    = 3
	statusOK      = 0
	statusError   = 1
	statusMore    = 2
	errOperation  = 38
	packetHeadLen = 28
)

// message is a packet of a daemon.
func message(proc, kind, serial, status uint32, body []byte) []byte {
	var b bytes.Buffer
	for _, v := range []uint32{uint32(packetHeadLen + len(body)), program, 1, proc, kind, serial, status} {
		_ = binary.Write(&b, binary.BigEndian, v)
	}
	b.Write(body)
	return b.Bytes()
}

// remoteError is a remote_error in XDR, as far as a client looks at it.
func remoteError(text string) []byte {
	var b bytes.Buffer
	for _, v := range []uint32{errOperation, 0, 1, uint32(len(text))} {
		_ = binary.Write(&b, binary.BigEndian, v)
	}
	b.WriteString(text)
	b.Write(make([]byte, -len(text)&3))
	return append(b.Bytes(), make([]byte, 64)...)
}

// daemon answers each packet of a client with what reply returns.
func daemon(t *testing.T, reply func(proc, kind, serial, status uint32, body []byte) []byte) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close(); server.Close() })
	go func() {
		for {
			var head [7]uint32
			if err := binary.Read(server, binary.BigEndian, &head); err != nil {
				return
			}
			body := make([]byte, head[0]-packetHeadLen)
			if _, err := io.ReadFull(server, body); err != nil {
				return
			}
			answer := reply(head[3], head[4], head[5], head[6], body)
			if len(answer) == 0 {
				continue
			}
			if _, err := server.Write(answer); err != nil {
				return
			}
		}
	}()
	return client
}

// within fails the test when do takes much longer than it can.
func within(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it has locked up")
	}
}

// TestStreams is about the orders in which libvirtd sends what belongs to a
// download: some data before the answer, and an error right after the end, which
// is one. Other calls go on.
func TestStreams(t *testing.T) {
	for name, early := range map[string]int{"in order": 0, "data early": 1, "all data early": 2, "end early": 3, "all early": 4} {
		t.Run(name, func(t *testing.T) {
			pipe := daemon(t, func(proc, _, serial, _ uint32, _ []byte) []byte {
				answer := message(proc, kindReply, serial, statusOK, make([]byte, 4))
				if proc != procDownload {
					return answer
				}
				parts := [][]byte{
					message(proc, kindStream, serial, statusMore, []byte("some ")),
					message(proc, kindStream, serial, statusMore, []byte("data")),
					message(proc, kindStream, serial, statusMore, nil),
					message(proc, kindStream, serial, statusError, remoteError("stream had unexpected termination")),
				}
				return bytes.Join(slices.Insert(parts, early, answer), nil)
			})
			c, _ := libvirt.Connected(pipe)
			within(t, func() {
				if err := c.ConnectToURI("test:///default"); err != nil {
					t.Error(err)
				}
				for range 1000 {
					var b bytes.Buffer
					if err := c.StorageVolDownload(rpc.StorageVol{}, &b, 0, 9, 0); err != nil || b.String() != "some data" {
						t.Errorf("StorageVolDownload = %q, %v", b.String(), err)
						return
					}
				}
			})
		})
	}
}

// endless is what never ends by itself.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestUploadFails is about a daemon that cannot take what it is sent: all of it
// had been sent, or there would be no end of it. The next one succeeds.
func TestUploadFails(t *testing.T) {
	const full = "cannot write data: No space left on device"
	failed := map[uint32]bool{} // by serial; of a stream that has failed no more is heard
	pipe := daemon(t, func(proc, kind, serial, status uint32, body []byte) []byte {
		switch {
		case proc != procUpload || kind != kindStream:
			return message(proc, kindReply, serial, statusOK, make([]byte, 4))
		case failed[serial]:
		case len(failed) < 2 && (status == statusOK || len(body) > 1<<10):
			failed[serial] = true
			return message(proc, kindStream, serial, statusError, remoteError(full))
		case status == statusOK:
			return message(proc, kindStream, serial, statusOK, nil)
		}
		return nil
	})
	c, begin := libvirt.Connected(pipe)
	upload := func(r io.Reader) error {
		from, end, err := begin(t.Context(), r)
		if err != nil {
			return err
		}
		err = c.StorageVolUpload(rpc.StorageVol{}, from, 0, 0, 0)
		return errors.Join(err, end())
	}
	within(t, func() {
		if err := c.ConnectToURI("test:///default"); err != nil {
			t.Error(err)
		}
		for _, r := range []io.Reader{endless{}, strings.NewReader("short")} {
			var e rpc.Error
			if err := upload(r); !errors.As(err, &e) || e.Code != errOperation || e.Message != full {
				t.Errorf("upload = %v, want the daemon's %q", err, full)
			}
		}
		if err := upload(strings.NewReader("short")); err != nil {
			t.Errorf("the upload after that: %v", err)
		}
		_, end, _ := begin(t.Context(), nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, _, err := begin(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for another upload until ctx ends = %v", err)
		}
		_ = end()
	})
}
