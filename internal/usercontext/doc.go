// Package usercontext holds a context as a value: the one text file from which
// a machine takes its role.
//
// Three agents look at the same bytes and each takes what it understands: the
// boot loader reads one block of keys, amiconfig reads a leading script and
// sections of options, cloud-init reads cloud-config, scripts and MIME. They
// differ in how they read, so this package has one reader for each, bit for bit
// the original's, and beside it the reading that Mica uses, which forgives what
// the originals drop in silence and says so as a [Problem].
//
//   - [ParseBlock] and [Block.BootKeys]: the boot loader (cernvm-micro:
//     packages.d/extras/src/parse_user_data.cc and scripts.d).
//   - [ParseAmiconfig]: sections and options (amiconfig: rpath/amiconfig/userdata.py
//     on top of Python 2's ConfigParser).
//   - [ParseScript]: the leading script (amiconfig: hepix/commands/amiconfig.sh).
//   - [Unwrap]: gzip and base64 around the whole.
//   - [Parse]: all of it at once, MIME parts and older containers included.
//
// What it does not do: judge values (package lint), tell people what will happen
// (package explain), or act (package amiconfig). It is linked into the guest, so
// it knows no YAML and no network.
//
// Invariants: no reader panics or runs anything, whatever the bytes; nothing
// grows beyond [MaxSize]; lines and columns count from 1, columns in bytes.
//
// Hazards: a context is code that runs as root, and it holds passwords. Values
// kept here are in the clear; who prints them masks them.
package usercontext
