// Package clock sets the time of a booting guest by SNTP, within a small budget:
// a machine whose clock is years behind cannot check the expiry of a signature.
//
// Every server is asked at once and the first plausible answer counts. The time
// is unauthenticated, so it is bounded from below by the moment at which the
// boot image was built; there is no bound from above. The clock is stepped only if
// it is off by more than a second. Followed: RFC 4330.
package clock
