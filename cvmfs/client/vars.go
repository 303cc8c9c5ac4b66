package client

import (
	"maps"
	"strings"

	"golang.org/x/sys/unix"
)

// variables are what symbolic links may refer to: what the options give, the
// repository's name and the machine's architecture.
//
// Differs: the original replaces every variable of its environment (cvmfs:
// cvmfs/catalog_sql.cc), which lets a repository read it.
func variables(opt Options) map[string]string {
	vars := map[string]string{"CVMFS_FQRN": opt.Name}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		vars["CVMFS_ARCH"] = unix.ByteSliceToString(name.Machine[:])
	}
	maps.Copy(vars, opt.Vars)
	return vars
}

// expand replaces $(NAME) and $(NAME:-default). What is not closed stays as it
// is; values are not expanded again.
func expand(target string, vars map[string]string) string {
	if !strings.Contains(target, "$(") {
		return target
	}
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(target, "$(")
		if !ok {
			break
		}
		inner, after, closed := strings.Cut(rest, ")")
		if !closed {
			break
		}
		out.WriteString(before)
		name, fallback, _ := strings.Cut(inner, ":-")
		if value, set := vars[name]; set {
			out.WriteString(value)
		} else {
			out.WriteString(fallback)
		}
		target = after
	}
	out.WriteString(target)
	return out.String()
}
