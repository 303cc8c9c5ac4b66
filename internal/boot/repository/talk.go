package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/internal/fail"
)

const (
	socketPrefix = "cvmfs_io."
	maxCommand   = 512
	maxReply     = 1 << 20
	talkTimeout  = 30 * time.Second
	// Compat: what scripts of the original compare with; the newest whose
	// commands are answered here.
	compatVersion = "2.12.0.0"
)

// listen makes the control socket in the working directory.
func listen(name string) (*net.UnixListener, error) {
	file := socketPrefix + name
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing an old control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: file, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("making the control socket: %w", err)
	}
	l.SetUnlinkOnClose(true)
	if err := os.Chmod(file, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("making the control socket: %w", err), l.Close())
	}
	return l, nil
}

// answer serves the control socket, one connection at a time, as the original
// does.
func (p *process) answer(l *net.UnixListener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.log.Warn("control socket", "err", err)
			}
			return
		}
		if err := p.converse(conn); err != nil {
			p.log.Debug("control socket", "err", err)
		}
	}
}

func (p *process) converse(conn net.Conn) error {
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(talkTimeout)); err != nil {
		return err
	}
	buf := make([]byte, maxCommand)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	command, _, _ := strings.Cut(string(buf[:n]), "\x00")
	reply := p.command(strings.TrimRight(command, "\r\n"))
	if !strings.HasSuffix(reply, "\n") {
		reply += "\n"
	}
	_, err = io.WriteString(conn, reply)
	return err
}

// command answers one request. Compat: words and replies are those of
// cvmfs/talk.cc, except "status json", "profile" and "quit", which are
// new.
func (p *process) command(line string) string {
	ctx, cancel := context.WithTimeout(context.Background(), talkTimeout)
	defer cancel()
	argument := func(prefix string) (string, bool) {
		rest, ok := strings.CutPrefix(line, prefix+" ")
		return strings.TrimSpace(rest), ok
	}
	switch line {
	case "status json":
		text, err := json.Marshal(p.state())
		if err != nil {
			return err.Error()
		}
		return string(text)
	case "profile":
		return string(p.repo.Recorded().Text())
	case "pid":
		return strconv.Itoa(os.Getpid())
	case "version":
		return compatVersion + " (CernVM-FS Fuse Module)\n" + compatVersion + " (Loader)"
	case "version patchlevel":
		return "0"
	case "revision":
		return strconv.FormatUint(p.repo.Revision(), 10)
	case "mountpoint":
		return p.config.Mountpoint
	case "remount", "remount sync":
		return "Catalog up to date" // the revision of a machine's root never changes
	case "host info":
		return p.hostInfo()
	case "proxy info":
		return p.proxyInfo()
	case "nameserver get":
		if list := p.repo.Nameservers(); len(list) > 0 {
			host, _, err := net.SplitHostPort(list[0])
			if err != nil {
				host = list[0]
			}
			return "DNS server address: " + host
		}
		return "no DNS server address set"
	case "cache size":
		bytes, _ := p.repo.CacheUsage()
		return fmt.Sprintf("Current cache size is %dMB (%d Bytes), pinned: 0MB (0 Bytes)", bytes>>20, bytes)
	case "cache limit get":
		_, quota := p.repo.CacheUsage()
		return fmt.Sprintf("%dMB", quota>>20)
	case "detach nested catalogs":
		p.repo.DetachCatalogs()
		return "OK"
	case "tear down to read-only":
		p.repo.StopWriting()
		p.log.Info("no more writing to the cache")
		return "In read-only mode"
	case "quit":
		// After the reply; the process would be gone before it otherwise.
		time.AfterFunc(50*time.Millisecond, func() { p.quit(errors.New("told to quit")) })
		return "OK"
	}
	if ip, ok := argument("nameserver set"); ok {
		if net.ParseIP(ip) == nil {
			return "Failed"
		}
		p.repo.SetNameservers([]string{ip})
		return "DNS address set to " + ip
	}
	if path, ok := argument("pin"); ok {
		if err := p.repo.Pin(ctx, path); err != nil {
			p.log.Info("not pinned", "path", path, "err", err)
			return "No such regular file or pinning failed"
		}
		return "OK"
	}
	if text, ok := argument("cleanup"); ok {
		megabytes, err := strconv.ParseInt(text, 10, 32)
		if err != nil || megabytes < 0 {
			return "Failed"
		}
		if err := p.repo.EvictCache(ctx, megabytes<<20); err != nil {
			return "Not fully cleaned (there might be pinned chunks)"
		}
		return "OK"
	}
	return "unknown command"
}

func (p *process) state() Status {
	stats := p.repo.Stats()
	return Status{
		RootHash: p.repo.RootHash().String(), Tag: p.repo.Tag(), Revision: p.repo.Revision(),
		Objects: stats.Objects, Bytes: stats.Bytes, Sliced: stats.Sliced, Ahead: stats.Ahead, PeakMemory: p.peakMemory(),
		Profile: p.prefetched.Load(),
	}
}

// peakMemory is VmHWM, 0 if it cannot be told. The limit of getrusage would
// include what the parent had in use when it started this process.
func (p *process) peakMemory() int64 {
	if p.status == nil {
		return 0
	}
	buf := make([]byte, 8<<10)
	n, err := p.status.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0
	}
	for line := range strings.Lines(string(buf[:n])) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

func (p *process) hostInfo() string {
	servers, active := p.repo.Servers()
	var b strings.Builder
	for i, s := range servers {
		fmt.Fprintf(&b, "  [%d] %s (unprobed)\n", i, s)
	}
	fmt.Fprintf(&b, "Active host %d: %s\n", active, servers[active])
	return b.String()
}

func (p *process) proxyInfo() string {
	groups, active := p.repo.Proxies()
	var b strings.Builder
	b.WriteString("Load-balance groups:\n")
	for i, g := range groups {
		fmt.Fprintf(&b, "[%d] %s\n", i, strings.Join(g, ", "))
	}
	group := slices.IndexFunc(groups, func(g []string) bool { return slices.Contains(g, active) })
	fmt.Fprintf(&b, "Active proxy: [%d] %s\n", group, active)
	return b.String()
}

// Talk sends one command to the process that serves the cache directory and
// returns its reply without the last line break.
func Talk(ctx context.Context, cacheDir, command string) (string, error) {
	if len(command) > maxCommand-1 {
		return "", fmt.Errorf("asking the repository process: a command of %d bytes is too long", len(command))
	}
	sockets, err := filepath.Glob(filepath.Join(escapeGlob(cacheDir), socketPrefix+"*"))
	if err != nil || len(sockets) == 0 {
		return "", fail.New(fail.NotFound, "no repository process serves %s", cacheDir).Hint("mount the repository first")
	}
	var all error
	for _, socket := range sockets { // more than one only if a process was killed
		reply, err := talk(ctx, socket, command)
		if err == nil {
			return reply, nil
		}
		all = errors.Join(all, err)
	}
	return "", fmt.Errorf("asking the repository process: %w", all)
}

func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}

func talk(ctx context.Context, socket, command string) (string, error) {
	// A socket's name has 108 bytes at most; a descriptor makes any name short.
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return "", err
	}
	defer func() { _ = dir.Close() }()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket))
	conn, err := (&net.Dialer{Timeout: talkTimeout}).DialContext(ctx, "unix", short)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := io.WriteString(conn, command); err != nil {
		return "", err
	}
	reply, err := io.ReadAll(io.LimitReader(conn, maxReply))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", err
	}
	return strings.TrimSuffix(string(reply), "\n"), nil
}

// ReadStatus asks the process that serves the cache directory.
func ReadStatus(ctx context.Context, cacheDir string) (Status, error) {
	reply, err := Talk(ctx, cacheDir, "status json")
	if err != nil {
		return Status{}, err
	}
	var s Status
	if err := json.Unmarshal([]byte(reply), &s); err != nil {
		return Status{}, fmt.Errorf("asking the repository process: it answered %.200q: %w", reply, err)
	}
	return s, nil
}

// TearDown makes the process stop writing to the cache, so that the file system
// below it can be remounted read-only while reading goes on.
func TearDown(ctx context.Context, cacheDir string) error {
	reply, err := Talk(ctx, cacheDir, "tear down to read-only")
	if err == nil && reply != "In read-only mode" {
		err = fmt.Errorf("asking the repository process to stop writing: it answered %.200q", reply)
	}
	return err
}
