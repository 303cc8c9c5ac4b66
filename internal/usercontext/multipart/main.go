package multipart

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/micavm/mica/internal/fail"
)

// Join reads FILE:TYPE arguments and puts the files together. The type is behind
// the last colon, so that a file's name may have one, too.
func Join(args []string, keepOrder bool) ([]byte, error) {
	var parts []Part
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
		parts = append(parts, Part{Type: typ, Filename: arg[:at], Data: data})
	}
	return Write(parts, keepOrder, rand.Reader)
}

// Main answers as the original amiconfig-mime does: FILE:TYPE arguments behind the
// program's name, the message on standard output, 1 for any failure and for no
// arguments.
//
// Compat: amiconfig: rpath/extra/amiconfig-mime.
//
// Differs: bodies stay unencoded whatever is in them, as the original only wrote
// them under Python 2; no mailbox line comes first; the boundary has no "=", which
// would make it an option of amiconfig's; the file's path is not in the message; a
// wrong argument is explained instead of a traceback.
func Main(out, errs io.Writer, args []string) int {
	name := "amiconfig-mime"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	if len(args) == 0 {
		_, _ = fmt.Fprintf(out, "Usage: %s FILE:TYPE [FILE:TYPE ...] > OUT\n\nTypes: cloud-config, amiconfig-user-data, ucernvm, x-shellscript\n", name)
		return 1
	}
	message, err := Join(args, true)
	if err == nil {
		_, err = out.Write(message)
	}
	if err != nil {
		_, _ = fmt.Fprintf(errs, "%s: %v\n", name, err)
		for _, hint := range fail.Hints(err) {
			_, _ = fmt.Fprintf(errs, "hint: %s\n", hint)
		}
		return 1
	}
	return 0
}
