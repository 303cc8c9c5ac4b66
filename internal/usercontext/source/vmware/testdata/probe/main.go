// Command probe is the first process of a machine: it asks at the backdoor, says
// what it heard and turns the machine off.
package main

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/usercontext/source/vmware"
)

func main() {
	version, err := vmware.Version(vmware.Open())
	fmt.Printf("PROBE version %d, %v\n", version, err)
	value, found, err := vmware.New(vmware.Open()).Get(context.Background(), "guestinfo.userdata")
	fmt.Printf("PROBE value %q, %v, %v\n", value, found, err)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
