package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/micavm/mica/internal/fail"
)

const (
	quitKey    = 0x1d // Ctrl-]
	quietAfter = time.Second
	enough     = 10 * time.Second
)

func newConsole(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "console NAME",
		Short: "Talk to a machine's serial console",
		Long: `Connect the terminal with the machine's serial console; Ctrl-] ends it.

Without a terminal, standard input goes to the console and what the console
says to standard output, until the input has ended and the console has been
quiet for a second, or ten seconds have passed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			conn, err := fleet.Console(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			return a.converse(cmd.Context(), conn, args[0])
		},
	}
}

// converse carries bytes both ways until the console closes, the user quits, or
// input and output have ended.
func (a *app) converse(ctx context.Context, conn io.ReadWriteCloser, name string) error {
	raw, restore, err := a.rawTerminal(name)
	if err != nil {
		return err
	}
	defer restore()
	spoke := make(chan struct{}, 1) // the console said something
	over := make(chan error, 1)     // the console closed
	typed := make(chan error, 1)    // the input ended, nil; or the user quit, errQuit
	go func() { over <- copyOut(a.Out, conn, spoke) }()
	// Reading a terminal cannot be cut short: this one ends with the program.
	go func() { typed <- copyIn(conn, a.In, raw) }()
	var quiet, late <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return fail.New(fail.Interrupted, "the console of %q: %w", name, ctx.Err())
		case err := <-over:
			return err
		case err := <-typed:
			if errors.Is(err, errQuit) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("writing to the console of %q: %w", name, err)
			}
			typed, quiet, late = nil, time.After(quietAfter), time.After(enough)
		case <-spoke:
			if quiet != nil {
				quiet = time.After(quietAfter)
			}
		case <-quiet:
			return nil
		case <-late:
			return nil
		}
	}
}

// rawTerminal takes a terminal's own treatment of keys away, if there is one.
func (a *app) rawTerminal(name string) (raw bool, restore func(), err error) {
	f, ok := a.In.(*os.File)
	if !ok || !isTerminal(a.In) {
		return false, func() {}, nil
	}
	before, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return false, nil, fmt.Errorf("preparing the terminal: %w", err)
	}
	_, _ = fmt.Fprintf(a.Err, "connected to %s; Ctrl-] ends it\r\n", name)
	return true, func() {
		_ = term.Restore(int(f.Fd()), before)
		_, _ = fmt.Fprintln(a.Err)
	}, nil
}

var errQuit = errors.New("quit")

func copyIn(conn io.Writer, in io.Reader, raw bool) error {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		data := buf[:n]
		quit := false
		if raw {
			for i, b := range data {
				if b == quitKey {
					data, quit = data[:i], true
					break
				}
			}
		}
		if _, werr := conn.Write(data); werr != nil {
			return werr
		}
		switch {
		case quit:
			return errQuit
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func copyOut(out io.Writer, conn io.Reader, spoke chan<- struct{}) error {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if _, werr := out.Write(buf[:n]); werr != nil {
				return werr
			}
			select {
			case spoke <- struct{}{}:
			default:
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
