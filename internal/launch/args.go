package launch

import (
	"os"
	"slices"
	"strings"
)

// options is what create and import were told.
type options struct {
	noStart bool
	wait    bool
	values  map[string]string // configuration keys; an empty value is not there
	files   []string          // what is not an option, at most two
}

// scan reads the arguments of create and import from left to right. Each option
// takes the next argument, whatever it looks like; of two the last counts.
// acknowledge is called for each file as it is met.
//
// Compat: cernvm-launch: src/main.cpp.
//
// Differs: what looks like an option and is none is refused unless a file of that
// name exists; the original takes it for a file in any case. --option=value is
// understood, and --wait.
func scan(args, valued []string, acknowledge func(n int, file string)) (options, error) {
	o := options{values: map[string]string{}}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, value, joined := strings.Cut(arg, "=")
		switch {
		case arg == "--no-start":
			o.noStart = true
			continue
		case arg == optWait && !isFile(arg):
			o.wait = true
			continue
		case strings.HasPrefix(name, "--") && slices.Contains(valued, name[2:]):
			if !joined {
				if i++; i == len(args) {
					return o, usage("Missing value for option %s", arg)
				}
				value = args[i]
			}
			key := name[2:]
			if key == "iso" {
				key = keyISO
			}
			if o.values[key] = value; value == "" {
				delete(o.values, key)
			}
			continue
		case strings.HasPrefix(arg, "--") && !isFile(arg):
			return o, usage("Unknown option: %s", arg)
		case len(o.files) == 2:
			return o, usage("Extra parameter given: %s", arg)
		}
		acknowledge(len(o.files), arg)
		o.files = append(o.files, arg)
	}
	return o, nil
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (o options) file(n int) string {
	if n < len(o.files) {
		return o.files[n]
	}
	return ""
}
