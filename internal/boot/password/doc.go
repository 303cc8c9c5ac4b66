// Package password sets root's password in a tree that is not running: the
// reset_root_password of the debug shell.
//
// Differs: cernvm-micro set every machine's password to the word "password" under
// DES. Here it is given or made up, hashed by SHA-512 crypt, and the account is
// freed of locks and expiry dates, which would make the new password useless.
package password
