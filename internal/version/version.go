// Package version holds the version of Mica, one number for the host command,
// the guest binary and the images that carry it.
package version

// Number follows semantic versioning; images add the build inputs' digests.
const Number = "0.1.0"
