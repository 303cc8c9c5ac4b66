package amiconfig

import (
	"bytes"
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
//
// Compat: options of extra user data come last, and win (amiconfig:
// hepix/commands/amiconfig.sh). Differs: it is no text behind the other, so a
// script in it never runs, nor does the other's script run into it.
func readContext(in Input, warn func(format string, args ...any)) view {
	v := parseContext("user-data", in.UserData, warn)
	if len(in.Extra) == 0 {
		return v
	}
	extra := parseContext("extra-user-data", in.Extra, warn)
	if extra.script.Present {
		warn("the script in the extra user data is not run: only that of the user data is")
	}
	v.ami = v.ami.Overlay(extra.ami)
	return v
}

func parseContext(name string, data []byte, warn func(format string, args ...any)) view {
	c, err := usercontext.Parse(name, data)
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

// joined is the context as one text, as scripts of the original find it.
func (in Input) joined() []byte {
	if len(in.Extra) == 0 {
		return in.UserData
	}
	text := bytes.Clone(in.UserData)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return append(text, in.Extra...)
}
