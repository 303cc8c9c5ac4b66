// Package entropy makes sure that a booting machine has random numbers: without
// them every key, and every call that asks for one, waits, some for ever.
//
// Kernels fill their pool by themselves where there is a random number generator
// (of the processor, or virtio-rng), or a cycle counter whose jitter they can
// measure. A virtual machine may have neither: then Seed measures the jitter of
// memory and hashing with the clock that there is, and credits it.
//
// The method is that of jitterentropy (S. Müller, "CPU Time Jitter Based
// Non-Physical True Random Number Generator"), with its stuck test and a far higher
// oversampling: 64 samples that pass for each bit credited. It is a last resort, and
// whoever uses it says so.
package entropy
