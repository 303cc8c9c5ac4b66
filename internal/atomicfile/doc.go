// Package atomicfile replaces files so that a reader, or a machine that loses
// power, sees the old content or the new and never a part: a temporary file in
// the same directory, fsync, rename, fsync of the directory. It also holds the
// advisory locks that keep two commands off one object.
package atomicfile
