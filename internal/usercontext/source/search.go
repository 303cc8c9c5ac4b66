package source

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Budgets of the network sources together.
const (
	budgetKnown   = 20 * time.Second // the platform is known, so it has a service to wait for
	budgetUnknown = 5 * time.Second
)

// errNothing says that a source has no context. It is not a failure.
var errNothing = errors.New("nothing")

// search is one search: the environment, and what several sources share.
type search struct {
	Env
	platform string
	media    []medium
	looked   bool // media were read
}

func newSearch(env Env) *search {
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	if env.Sleep == nil {
		env.Sleep = sleep
	}
	s := &search{Env: env, platform: env.Platform}
	if s.platform == "" {
		s.platform = env.DMI.Platform()
	}
	return s
}

func (s *search) find(ctx context.Context, network bool) (Found, error) {
	var best Found
	var tried []Attempt
	consider := func(src source, f Found, err error) (done bool) {
		f.Source = src.name
		result := "found"
		switch {
		case errors.Is(err, errNothing):
			result = "nothing"
		case err != nil:
			result = err.Error()
			s.Log.Warn("context source failed", "source", src.name, "error", err)
		case !f.Present:
			result = "metadata only"
		}
		tried = append(tried, Attempt{src.name, result})
		if err == nil && (best.Source == "" || f.Present) {
			best = f
		}
		return err == nil && f.Present
	}
	finish := func() (Found, error) {
		best.Tried = tried
		return best, nil
	}
	for _, src := range sources() {
		if src.network {
			continue
		}
		if why := s.skip(src); why != "" {
			tried = append(tried, Attempt{src.name, "skipped: " + why})
			continue
		}
		f, err := src.find(ctx, s)
		if ctx.Err() != nil {
			return Found{}, context.Cause(ctx)
		}
		if consider(src, f, err) {
			return finish()
		}
	}
	if !network {
		return finish()
	}
	answers, err := s.race(ctx, &tried)
	if err != nil {
		return Found{}, err
	}
	for _, a := range answers {
		if consider(a.source, a.found, a.err) {
			break
		}
	}
	return finish()
}

type answer struct {
	source source
	found  Found
	err    error
}

// race asks all the network sources that apply, at once, and returns their
// answers in the order of the list. It waits for the first that has user data
// and those before it, and gives up the others.
func (s *search) race(ctx context.Context, tried *[]Attempt) ([]answer, error) {
	budget := budgetKnown
	if s.platform == "" {
		budget = budgetUnknown
	}
	inner, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	var list []source
	for _, src := range sources() {
		if !src.network {
			continue
		}
		if why := s.skip(src); why != "" {
			*tried = append(*tried, Attempt{src.name, "skipped: " + why})
			continue
		}
		list = append(list, src)
	}
	answers := make([]answer, len(list))
	done := make([]chan struct{}, len(list))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before waiting for those that are not needed any more
	for i, src := range list {
		done[i] = make(chan struct{})
		wg.Go(func() {
			defer close(done[i])
			f, err := src.find(inner, s)
			answers[i] = answer{src, f, err}
		})
	}
	for i := range list {
		<-done[i] // ends with inner at the latest
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if answers[i].err == nil && answers[i].found.Present {
			return slices.Clone(answers[:i+1]), nil
		}
	}
	return answers, nil
}

// skip says why a source does not apply to this machine; empty if it does.
func (s *search) skip(src source) string {
	if len(src.platforms) == 0 || slices.Contains(src.platforms, s.platform) {
		return ""
	}
	if s.platform != "" {
		return "the platform is " + s.platform
	}
	if !src.network {
		return "the platform is not known to be " + strings.Join(src.platforms, " or ")
	}
	return ""
}

// word returns the value of a word of the kernel command line; the last wins.
func (s *search) word(name string) string {
	value := ""
	for _, w := range strings.Fields(s.Cmdline) {
		if v, ok := strings.CutPrefix(w, name+"="); ok {
			value = strings.Trim(v, `"`)
		}
	}
	return value
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
