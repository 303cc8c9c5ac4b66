package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/convert"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

func newContext(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Write, check, explain and convert contexts",
		Long: `A context is the one text file that gives a machine its role: a script, sections
of options, keys for the boot loader, cloud-config, or a MIME mix of them.

All commands read any of these forms, also inside gzip, base64 or an OpenNebula
context.sh, exports of CernVM Online, and CD, disk and floppy images made for a
machine. FILE may be - for standard input.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newContextNew(a), newContextCheck(a), newContextRules(a), newContextExplain(a), newContextInspect(a),
		newContextSimulate(a), newContextDiff(a), newContextConvert(a), newContextMIME(a), newContextSplit(a),
		newContextEncrypt(a), newContextDecrypt(a), newContextPair(a), newContextISO(a), newContextDrive(a), newContextFloppy(a),
	)
	return cmd
}

// readFile reads a file, or standard input for "-", up to the size that a context
// can have in any wrapping: a FAT image has it twice, and sizes that double.
func (a *app) readFile(name string) ([]byte, error) {
	const limit = 4*usercontext.MaxSize + 1
	in := a.In
	if name != "-" {
		f, err := os.Open(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fail.New(fail.NotFound, "reading context: %w", err)
		case err != nil:
			return nil, fmt.Errorf("reading context: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, limit))
	if err != nil {
		return nil, fmt.Errorf("reading context %s: %w", name, err)
	}
	if len(data) == limit {
		return nil, fail.New(fail.Failed, "reading context %s: %w", name, usercontext.ErrTooLarge)
	}
	return data, nil
}

// loadContext reads a context in any form.
func (a *app) loadContext(name string, p *passwordFlag) (convert.Loaded, error) {
	data, err := a.readFile(name)
	if err != nil {
		return convert.Loaded{}, err
	}
	found, _ := delivery.Read(bytes.NewReader(data), int64(len(data))) // what is no medium is a context
	return a.parseContext(name, data, found, p)
}

// parseContext is loadContext for what has been read, and the medium that it is.
// The loader itself reads CD images, also those of other kinds.
func (a *app) parseContext(name string, data []byte, m delivery.Found, p *passwordFlag) (convert.Loaded, error) {
	layer := ""
	if m.Kind != "" && m.System != "iso9660" {
		data, layer = m.UserData, "disk image, "+m.Kind
		if m.Kind == "floppy" {
			layer = "floppy image"
		}
	}
	shown := name
	if name == "-" {
		shown = "stdin"
	}
	l, err := convert.Loader{Password: p.source(a, "Password: ")}.Load(shown, data)
	if err != nil {
		return l, err
	}
	if layer != "" {
		l.Layers = append([]string{layer}, l.Layers...)
	}
	for _, w := range l.Warnings {
		_, _ = fmt.Fprintf(a.Err, "warning: %s: %s\n", shown, w)
	}
	return l, nil
}

// writeContext writes what may hold secrets: to standard output, or to a file that
// only the owner can read.
func (a *app) writeContext(name string, data []byte, force bool) error {
	if name == "" || name == "-" {
		_, err := a.Out.Write(data)
		return err
	}
	if _, err := os.Lstat(name); err == nil && !force {
		return fail.New(fail.Conflict, "writing %s: it exists", name).Hint("pass --force to replace it")
	}
	return atomicfile.Write(name, data, 0o600)
}

// outFlags adds --out and --force.
func outFlags(cmd *cobra.Command, out *string, force *bool) {
	cmd.Flags().StringVar(out, "out", "", "file to write instead of standard output, for the owner only")
	cmd.Flags().BoolVar(force, "force", false, "replace a file that exists")
}

// passwordFlag says where a password comes from; never the command line, which
// everybody on the computer can see.
type passwordFlag struct{ file string }

func (p *passwordFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "password-file", "", "file with the password of an encrypted context; default: MICA_CONTEXT_PASSWORD, or asked for")
}

func (p *passwordFlag) source(a *app, prompt string) func() (string, error) {
	return func() (string, error) {
		if p.file != "" {
			data, err := os.ReadFile(p.file)
			if err != nil {
				return "", fail.New(fail.Usage, "reading the password: %w", err)
			}
			return strings.TrimRight(string(data), "\r\n"), nil
		}
		if v := a.Env("MICA_CONTEXT_PASSWORD"); v != "" {
			return v, nil
		}
		if !isTerminal(a.In) {
			return "", fail.New(fail.Usage, "a password is needed, and there is no terminal to ask at").
				Hint("pass --password-file, or set MICA_CONTEXT_PASSWORD")
		}
		return a.askPassword(prompt)
	}
}

// askPassword reads a line from the terminal without showing it.
func (a *app) askPassword(prompt string) (string, error) {
	f, ok := a.In.(*os.File)
	if !ok || !isTerminal(a.In) {
		return "", fail.New(fail.Usage, "no terminal to ask for a password")
	}
	_, _ = fmt.Fprint(a.Err, prompt)
	data, err := term.ReadPassword(int(f.Fd()))
	_, _ = fmt.Fprintln(a.Err)
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	return string(data), nil
}

// question puts one and returns the answer, or the suggestion for an empty one.
func (a *app) question(in *bufio.Reader, question, suggestion string) (string, error) {
	if suggestion != "" {
		question += " [" + suggestion + "]"
	}
	_, _ = fmt.Fprint(a.Err, question+": ")
	answer, err := in.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading an answer: %w", err)
	}
	if answer = strings.TrimSpace(answer); answer == "" {
		return suggestion, nil
	}
	return answer, nil
}
