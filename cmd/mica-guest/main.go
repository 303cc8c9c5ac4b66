// Command mica-guest is everything Mica runs inside a machine. The name under
// which it is called, or else the first argument, says what it does.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/micavm/mica/internal/boot"
	"github.com/micavm/mica/internal/boot/repository"
	"github.com/micavm/mica/internal/usercontext/amiconfig"
)

func main() { os.Exit(dispatch(os.Args)) }

func dispatch(args []string) int {
	for names := range 2 {
		if len(args) <= names {
			break
		}
		switch name := filepath.Base(args[names]); {
		case name == repository.Argv0:
			return repository.Serve()
		case name == "apply" || slices.Contains(amiconfig.Names(), name):
			return amiconfig.Main(append([]string{name}, args[names+1:]...))
		default:
			for _, c := range boot.Commands() {
				if c.Name == name {
					return c.Run(args[names+1:])
				}
			}
		}
	}
	fmt.Fprintln(os.Stderr, "mica-guest: say what to do: apply, status, hostkeys, reset_root_password, version")
	return 2
}
