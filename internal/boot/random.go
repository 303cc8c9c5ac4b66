package boot

import (
	"context"
	"time"

	"github.com/micavm/mica/internal/boot/entropy"
	"github.com/micavm/mica/internal/fail"
)

// randomPatience is how long the kernel may take to fill its pool by itself.
const randomPatience = time.Second

// gatherRandomness makes sure that what follows does not wait for random numbers
// for ever: a machine without any source of them would hang at its first DHCP
// request, and say nothing.
func gatherRandomness(ctx context.Context, _ *state, _ *report) error {
	patient, cancel := context.WithTimeout(ctx, randomPatience)
	defer cancel()
	if entropy.Wait(patient) {
		return nil
	}
	if err := entropy.Seed(ctx); err != nil {
		return fail.New(fail.HostLacks, "the machine has no source of random numbers: %w", err).
			Hint("give the machine a virtio-rng device, or a processor with RDRAND")
	}
	return warned(fail.New(fail.HostLacks, "the machine has no source of random numbers; the jitter of its clock was used").
		Hint("give the machine a virtio-rng device"))
}
