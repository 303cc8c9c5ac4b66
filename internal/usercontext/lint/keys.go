package lint

import (
	"bytes"
	"regexp"
)

// checkKeys looks for keys and tokens that should not be in a context.
func (k *checker) checkKeys() {
	for _, p := range []struct {
		what    string
		pattern *regexp.Regexp
	}{
		{"a private key", regexp.MustCompile(`-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----`)},
		{"an access key of AWS", regexp.MustCompile(`\b(?:AKIA|ASIA)[0-9A-Z]{16}\b`)},
		{"a bearer token", regexp.MustCompile(`(?i)authorization:[ \t]*bearer[ \t]+[A-Za-z0-9._~+/-]{20,}`)},
		{"a token of GitHub", regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9]{36}\b`)},
		{"a private key", regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/]{0,16}(?:UFJJVkFURSBLRVk|BSSVZBVEUgS0VZ|QUklWQVRFIEtFW)`)}, // the same in base64
	} {
		for _, at := range p.pattern.FindAllIndex(k.context.Text, -1) {
			before := k.context.Text[:at[0]]
			k.add("X001", 1+bytes.Count(before, []byte("\n")), at[0]-bytes.LastIndexByte(before, '\n'), "hand it over by another way than the context", "%s in clear text", p.what)
		}
	}
}
