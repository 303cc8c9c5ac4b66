// Package test holds the stories told end to end: real machines boot the real
// image in QEMU and are looked at from outside. The files are tests of the vm
// tier; scripts/demo-assets.sh makes what they boot. See docs/testing.md.
package test
