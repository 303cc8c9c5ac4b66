package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// monitor is one connection to QEMU's machine protocol (QMP). It is used by
// one goroutine.
type monitor struct {
	conn *net.UnixConn
	in   *bufio.Reader
}

// maxReply bounds one line of QMP; the replies asked for here are far smaller.
const maxReply = 4 << 20

// commandError is QEMU's refusal of a command.
type commandError struct {
	Command string
	Class   string `json:"class"`
	Desc    string `json:"desc"`
}

func (e *commandError) Error() string { return fmt.Sprintf("qemu: %s: %s", e.Command, e.Desc) }

// connect opens the monitor at socket in dir and negotiates. Until ctx ends it
// waits for a socket that is not there yet and for a client that is.
func connect(ctx context.Context, dir, socket string) (*monitor, error) {
	for {
		conn, err := dial(ctx, dir, socket)
		if err == nil {
			m := &monitor{conn: conn, in: bufio.NewReader(conn)}
			if err = m.greet(ctx); err == nil {
				return m, nil
			}
			m.close()
		}
		if ctx.Err() != nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
			return nil, fmt.Errorf("talking to qemu: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("talking to qemu: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// dial connects to a socket in dir, however long dir's path is.
func dial(ctx context.Context, dir, socket string) (*net.UnixConn, error) {
	path, done, err := shortPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(path, socket))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

func (m *monitor) close() { _ = m.conn.Close() }

func (m *monitor) greet(ctx context.Context) error {
	stop := m.bound(ctx)
	defer stop()
	var hello struct{ QMP *json.RawMessage }
	if err := m.read(&hello); err != nil {
		return withContext(ctx, err)
	}
	if hello.QMP == nil {
		return errors.New("whoever listens there is not qemu")
	}
	return m.call(ctx, "qmp_capabilities", nil, nil)
}

// bound makes reads and writes end with ctx.
func (m *monitor) bound(ctx context.Context) func() {
	deadline, _ := ctx.Deadline()
	_ = m.conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = m.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

func withContext(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

func (m *monitor) read(v any) error {
	var line []byte
	for {
		part, err := m.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxReply:
			return errors.New("a reply without end")
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("reading %.80q: %w", line, err)
		}
		return nil
	}
}

// call runs one command; result, unless nil, takes what it returns. Events in
// between are dropped: states are asked for, not guessed from events.
func (m *monitor) call(ctx context.Context, command string, arguments, result any) error {
	return m.send(ctx, command, arguments, result, nil)
}

// send is call with an open file passed along (for getfd).
func (m *monitor) send(ctx context.Context, command string, arguments, result any, file *os.File) error {
	stop := m.bound(ctx)
	defer stop()
	data, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return fmt.Errorf("encoding %s: %w", command, err)
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	if _, _, err := m.conn.WriteMsgUnix(append(data, '\n'), rights, nil); err != nil {
		return withContext(ctx, fmt.Errorf("qemu: %s: %w", command, err))
	}
	for {
		var reply struct {
			Return json.RawMessage
			Error  *commandError
			Event  string
		}
		if err := m.read(&reply); err != nil {
			return withContext(ctx, fmt.Errorf("qemu: %s: %w", command, err))
		}
		switch {
		case reply.Error != nil:
			reply.Error.Command = command
			return reply.Error
		case reply.Return == nil:
			continue // an event
		case result == nil:
			return nil
		}
		if err := json.Unmarshal(reply.Return, result); err != nil {
			return fmt.Errorf("qemu: %s: reading the reply: %w", command, err)
		}
		return nil
	}
}

// status asks for QEMU's run state.
func (m *monitor) status(ctx context.Context) (string, error) {
	var reply struct{ Status string }
	err := m.call(ctx, "query-status", nil, &reply)
	return reply.Status, err
}
