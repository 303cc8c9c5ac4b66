package cli

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/convert"
)

func newContextMIME(a *app) *cobra.Command {
	var out string
	var force, keep bool
	cmd := &cobra.Command{
		Use:   "mime FILE:TYPE...",
		Short: "Put files together into one MIME context",
		Long: `Put files together into one MIME message that the boot loader, amiconfig and
cloud-init can all read. TYPE is what stands behind text/: cloud-config,
amiconfig-user-data, ucernvm, x-shellscript, and so on.

amiconfig's part comes last, because amiconfig takes everything behind it for
options; --keep-order leaves the order alone. Called as amiconfig-mime, the
program takes the same arguments, keeps the order and prints the message.`,
		Example: "  mica context mime setup.yaml:cloud-config cernvm.ini:amiconfig-user-data > user-data",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			message, err := joinParts(args, keep)
			if err != nil {
				return err
			}
			return a.writeContext(out, message, force)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-order", false, "do not move amiconfig's part to the end")
	outFlags(cmd, &out, &force)
	return cmd
}

// joinParts reads FILE:TYPE arguments. The type is behind the last colon, so that
// a file's name may have one, too.
func joinParts(args []string, keep bool) ([]byte, error) {
	var parts []convert.Part
	for _, arg := range args {
		at := strings.LastIndexByte(arg, ':')
		if at <= 0 || at == len(arg)-1 {
			return nil, fail.New(fail.Usage, "%q is not FILE:TYPE", arg).Hint("write such as setup.yaml:cloud-config")
		}
		typ := strings.TrimPrefix(arg[at+1:], "text/")
		if strings.Trim(typ, "abcdefghijklmnopqrstuvwxyz0123456789-.+") != "" {
			return nil, fail.New(fail.Usage, "%q is not a type", typ).Hint("use cloud-config, amiconfig-user-data, ucernvm or x-shellscript")
		}
		data, err := os.ReadFile(arg[:at])
		if err != nil {
			return nil, fail.New(fail.NotFound, "reading part: %w", err)
		}
		parts = append(parts, convert.Part{Type: typ, Filename: arg[:at], Data: data})
	}
	return convert.MIME(parts, keep, rand.Reader)
}

// amiconfigMIME answers as the original amiconfig-mime does: FILE:TYPE arguments,
// the message on standard output, 1 for any failure and for no arguments.
//
// Compat: amiconfig: rpath/extra/amiconfig-mime.
//
// Differs: bodies stay unencoded whatever is in them, as the original only wrote
// them under Python 2; no mailbox line comes first; the file's path is not in the
// message.
func amiconfigMIME(stdio IO, args []string) int {
	if len(args) < 2 {
		_, _ = fmt.Fprintf(stdio.Out, "Usage: %s FILE:TYPE [FILE:TYPE ...] > OUT\n\nTypes: cloud-config, amiconfig-user-data, ucernvm, x-shellscript\n", args[0])
		return 1
	}
	message, err := joinParts(args[1:], true)
	if err == nil {
		_, err = stdio.Out.Write(message)
	}
	if err != nil {
		reportMIME(stdio.Err, args[0], err)
		return 1
	}
	return 0
}

func reportMIME(w io.Writer, program string, err error) {
	_, _ = fmt.Fprintf(w, "%s: %v\n", program, err)
	for _, hint := range fail.Hints(err) {
		_, _ = fmt.Fprintf(w, "hint: %s\n", hint)
	}
}
