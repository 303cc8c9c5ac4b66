package disk

import "context"

// Roots are where the kernel's views are: "/sys" and "/dev" if empty.
type Roots struct {
	Sys string // as mounted on /sys
	Dev string // as mounted on /dev
}

// Scan describes every block device of the machine, disks before their
// partitions, in natural order of their names. A device that cannot be read is
// listed with its problem; the error is for a /sys that cannot be read at all.
func Scan(ctx context.Context, roots Roots) ([]Device, error) {
	return scan(ctx, roots)
}
