package storage

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/micavm/mica/internal/atomicfile"
)

// A lock is one that can be written again, or none. What is said of it is one short
// line that does nothing to a terminal.
func FuzzClaim(f *testing.F) {
	good, err := json.Marshal(claim{Holder: "process 7 of host", Nonce: "N", Expires: time.Unix(1e9, 0).UTC()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"holder":"\u001b[2J\n","nonce":"","expires":"9999-12-31T23:59:59Z"}`))
	f.Add([]byte(`{"expires":"0000-01-01T00:00:00+23:59"}`))
	f.Add([]byte("null"))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseClaim(data)
		if err == nil {
			again, err := json.Marshal(c)
			if err != nil {
				t.Fatalf("%+v cannot be written: %v", c, err)
			}
			if c2, err := parseClaim(again); err != nil || c2.Nonce != c.Nonce || !c2.Expires.Equal(c.Expires) {
				t.Errorf("%+v is read again as %+v, %v", c, c2, err)
			}
		}
		for _, until := range []time.Time{{}, c.Expires} {
			said := c.taken("s3://bucket/", until)
			if !errors.Is(said, atomicfile.ErrLocked) || len(said.Error()) > 1000 || strings.ContainsFunc(said.Error(), unicode.IsControl) {
				t.Errorf("said %q", said)
			}
		}
	})
}
