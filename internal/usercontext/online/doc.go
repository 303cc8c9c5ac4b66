// Package online reads what people exported from CernVM Online, the former web
// site where contexts were kept: definitions as JSON, and rendered contexts that
// are encrypted.
//
// It imports only. The encryption of the site derives its key with MD5 and has no
// integrity check, so Mica writes another form (package convert). The site stored
// definitions as Python pickles; those are not read.
//
// Formats after cernvm-online: src/cvmo (rendering, field names) and
// cernvm-online-guest: usr/sbin/cernvm-online.sh (decryption).
package online
