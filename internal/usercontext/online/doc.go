// Package online reads contexts of CernVM Online, the web site where contexts were
// kept: definitions exported as JSON, rendered contexts that are encrypted, and
// contexts fetched by their ID or by a pairing number.
//
// It reads only. The encryption of the site derives its key with MD5 and has no
// integrity check, and a pairing number has six digits: Mica fetches over a
// verified TLS connection alone, and writes another form (package convert). The
// site stored definitions as Python pickles; those are not read.
//
// Formats after cernvm-online: src/cvmo (rendering, field names, the download) and
// cernvm-online-guest: usr/sbin/cernvm-online.sh (checksum, decryption).
package online
