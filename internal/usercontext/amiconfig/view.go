package amiconfig

import (
	"errors"

	"github.com/micavm/mica/internal/usercontext"
)

// view is a context as this agent reads it.
type view struct {
	ami    *usercontext.Amiconfig
	script usercontext.Script
	pilot  *usercontext.Glidein // of a glideinWMS pilot, nil mostly
}

// readContext takes a context apart. What cannot be read is left out with a
// warning; a machine gets what there is.
func readContext(data []byte, warn func(format string, args ...any)) view {
	c, err := usercontext.Parse("user-data", data)
	if err != nil {
		warn("%v", err)
		if errors.Is(err, usercontext.ErrEncrypted) { // noise, not options
			return view{ami: &usercontext.Amiconfig{}}
		}
	}
	v := view{ami: c.Amiconfig(), script: c.Script(), pilot: c.Glidein}
	if use := c.Block().Keys["useglideinwms"]; use == "0" {
		v.pilot = nil
	}
	return v
}
