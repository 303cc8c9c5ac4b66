// Package multipart puts files together into one MIME message that the boot loader,
// amiconfig and cloud-init can all read, and is the program amiconfig-mime.
//
// It does not read messages: package usercontext does. The form is the one that
// agents agree on which scan the message line by line without knowing MIME: bodies
// unencoded, line feeds, amiconfig's part at the end.
//
// Compat: amiconfig: rpath/extra/amiconfig-mime; what cloud-init reads:
// cloudinit/user_data.py.
package multipart
