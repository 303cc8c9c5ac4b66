package usercontext

import (
	"slices"
	"strings"
)

// Overlay returns the options of both: where both have one, over's. Lists of
// plugins are put together instead, so that what is laid over a context cannot turn
// off by accident what it needs.
//
// Differs: in the original the text of one is appended to the other's, and the last
// list of plugins is the only one (amiconfig: hepix/commands/amiconfig.sh).
func (a *Amiconfig) Overlay(over *Amiconfig) *Amiconfig {
	out := &Amiconfig{
		Headers: slices.Concat(a.Headers, over.Headers),
		Options: slices.Concat(a.Options, over.Options),
		Dropped: slices.Concat(a.Dropped, over.Dropped),
	}
	for _, s := range a.Sections {
		s.Options = slices.Clone(s.Options)
		out.Sections = append(out.Sections, s)
	}
	for _, s := range over.Sections {
		at := slices.IndexFunc(out.Sections, func(t Section) bool { return t.Name == s.Name })
		if at < 0 {
			out.Sections = append(out.Sections, s)
			continue
		}
		for _, o := range s.Options {
			out.Sections[at].put(o)
		}
	}
	return out
}

// put sets one option. An option is in a section once.
func (s *Section) put(o Option) {
	at := slices.IndexFunc(s.Options, func(p Option) bool { return p.Key == o.Key })
	switch {
	case at < 0:
		s.Options = append(s.Options, o)
	case s.Name == amiconfigSection && o.Key == "plugins":
		o.Value = strings.TrimSpace(s.Options[at].Value + " " + o.Value)
		s.Options[at] = o
	default:
		s.Options[at] = o
	}
}
