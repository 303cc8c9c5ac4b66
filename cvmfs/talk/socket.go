package talk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	socketPrefix   = "cvmfs_io."
	besideMark     = "@" // no name of a repository has it
	maxBeside      = 100
	maxCommand     = 512
	maxReply       = 64 << 20 // a list of a million objects
	dialTimeout    = 30 * time.Second
	talkTimeout    = 10 * time.Second // for a command to arrive, and for a reply to leave
	commandTimeout = time.Minute
)

// ErrInUse says that another process answers the socket.
var ErrInUse = errors.New("another process answers the control socket")

// Listener is a control socket that was made.
type Listener struct {
	socket *net.UnixListener
	file   string
}

// Listen makes the control socket of the named repository in dir. One that was
// left behind is replaced; ErrInUse says that somebody still answers it. With "."
// for dir the process may change its root to the working directory afterwards.
func Listen(dir, name string) (*Listener, error) { return listen(dir, name, 1) }

// ListenBeside is Listen for one of several mounts that share a cache directory. The
// first of a repository has its name; a later one, as long as another has that, the
// name with @2, @3 and so on behind it. Differs: the original does not mount a
// repository twice from one workspace.
func ListenBeside(dir, name string) (*Listener, error) { return listen(dir, name, maxBeside) }

func listen(dir, name string, most int) (*Listener, error) {
	wrap := func(err error) error {
		return fmt.Errorf("making the control socket of %s in %s: %w", name, dir, err)
	}
	parent, err := os.Open(dir)
	if err != nil {
		return nil, wrap(err)
	}
	defer func() { _ = parent.Close() }()
	// Between the look at an old socket and the new one in its place nobody else
	// may do the same.
	if err := unix.Flock(int(parent.Fd()), unix.LOCK_EX); err != nil {
		return nil, wrap(err)
	}
	var file string
	for i := 1; ; i++ {
		file = Socket(dir, name)
		if i > 1 {
			file += besideMark + strconv.Itoa(i)
		}
		if err = removeDead(parent, file); err == nil {
			break
		}
		if !errors.Is(err, ErrInUse) || i == most {
			return nil, wrap(err)
		}
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: short(parent, file), Net: "unix"})
	if err != nil {
		return nil, wrap(err)
	}
	socket.SetUnlinkOnClose(false) // its short name ends with this function
	l := &Listener{socket: socket, file: file}
	if err := os.Chmod(file, 0o660); err != nil {
		return nil, errors.Join(wrap(err), l.Close())
	}
	return l, nil
}

// removeDead removes a socket that nobody answers.
func removeDead(parent *os.File, file string) error {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", short(parent, file))
	switch {
	case err == nil:
		_ = conn.Close()
		return ErrInUse
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(file)
	case errors.Is(err, syscall.EAGAIN): // its queue is full
		return ErrInUse
	}
	return err
}

// short returns a name for a file in an open directory that fits into the address
// of a socket, which has room for 107 bytes (unix(7)).
func short(parent *os.File, file string) string {
	if len(file) <= 100 {
		return file
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", parent.Fd(), filepath.Base(file))
}

// Close removes the socket and ends Serve once the command it is at is answered.
func (l *Listener) Close() error {
	// In this order: a socket without anybody behind it could be replaced by
	// another process's, which would be removed then.
	err := os.Remove(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.socket.Close())
}

// Serve answers until the listener is closed. ctx ends the command it is at.
func (l *Listener) Serve(ctx context.Context, log *slog.Logger, answer func(ctx context.Context, command string) string) {
	for {
		conn, err := l.socket.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				log.Warn("control socket", "err", err)
			}
			return
		}
		if err := converse(ctx, conn, answer); err != nil {
			log.Debug("control socket", "err", err)
		}
	}
}

func converse(ctx context.Context, conn net.Conn, answer func(ctx context.Context, command string) string) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	if err := conn.SetReadDeadline(time.Now().Add(talkTimeout)); err != nil {
		return err
	}
	buf := make([]byte, maxCommand)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	command, _, _ := strings.Cut(string(buf[:n]), "\x00")
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	reply := answer(ctx, strings.TrimRight(command, "\r\n"))
	if !strings.HasSuffix(reply, "\n") {
		reply += "\n"
	}
	if err := conn.SetWriteDeadline(time.Now().Add(talkTimeout)); err != nil {
		return err
	}
	_, err = io.WriteString(conn, reply)
	return err
}

// Sockets returns the control sockets in a cache directory, in order. Behind one
// whose process was killed is nobody.
func Sockets(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), socketPrefix) && e.Type() == fs.ModeSocket {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list, nil
}

// SocketsOf returns the control sockets of one repository in a cache directory, that
// of the first mount first.
func SocketsOf(dir, name string) ([]string, error) {
	all, err := Sockets(dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s string) bool { return RepositoryOf(s) != name }), nil
}

// RepositoryOf returns the name of the repository that a control socket is of.
func RepositoryOf(socket string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(socket), socketPrefix), besideMark)
	return name
}

// Socket returns the control socket of a repository with its cache in dir.
func Socket(dir, name string) string { return filepath.Join(dir, socketPrefix+name) }

// Send sends one command to a socket and returns the reply without its last line
// break. It waits for the reply until ctx ends.
func Send(ctx context.Context, socket, command string) (string, error) {
	if len(command) > maxCommand-1 {
		return "", fmt.Errorf("a command of %d bytes is too long, %d is the limit", len(command), maxCommand-1)
	}
	parent, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return "", err
	}
	defer func() { _ = parent.Close() }()
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", short(parent, socket))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := io.WriteString(conn, command); err != nil {
		return "", err
	}
	reply, err := io.ReadAll(io.LimitReader(conn, maxReply+1))
	if err == nil && len(reply) > maxReply {
		return "", fmt.Errorf("the reply is longer than %d bytes", maxReply)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", err
	}
	return strings.TrimSuffix(string(reply), "\n"), nil
}
