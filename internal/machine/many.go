package machine

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/micavm/mica/internal/fail"
)

// maxCount bounds how many machines one command makes.
const maxCount = 1000

var numberPattern = regexp.MustCompile(`\{n+\}`)

// Numbered returns the names of count machines: the pattern with {n} replaced
// by 1 to count, with as many digits as there are letters n. A count of one
// needs no {n}.
func Numbered(pattern string, count int) ([]string, error) {
	field := numberPattern.FindString(pattern)
	switch {
	case count < 1 || count > maxCount:
		return nil, fail.New(fail.Usage, "cannot make %d machines at once", count).Hint("use --count 1 to %d", maxCount)
	case field == "" && count > 1:
		return nil, fail.New(fail.Usage, "%d machines cannot all be named %q", count, pattern).
			Hint("put {n} where their numbers shall be, as in '%s-{n}'", pattern)
	case field == "":
		return []string{pattern}, CheckName(pattern)
	}
	names := make([]string, count)
	for i := range names {
		digits := strconv.Itoa(i + 1)
		if missing := len(field) - 2 - len(digits); missing > 0 {
			digits = strings.Repeat("0", missing) + digits
		}
		names[i] = numberPattern.ReplaceAllLiteralString(pattern, digits)
		if err := CheckName(names[i]); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// AtOnce is how many machines of that size it makes sense to start at the same
// time on this computer: one a processor, as far as the memory goes.
func AtOnce(s Spec) int {
	n := max(1, runtime.NumCPU()/max(1, s.CPUs))
	if free, ok := memoryFree(); ok && s.MemoryMiB > 0 {
		n = min(n, max(1, int(free/(int64(s.MemoryMiB)*mebi))))
	}
	return n
}

// TooMuch says that count machines of that size, if all of them run, want more
// memory than the computer has, and is empty where they do not. That is no
// error: they need not run at the same time.
func TooMuch(s Spec, count int) string {
	total, ok := memoryTotal()
	if !ok {
		return ""
	}
	return tooMuch(s, count, total)
}

func tooMuch(s Spec, count int, total int64) string {
	const gibi = 1 << 30
	each := float64(s.MemoryMiB) * mebi
	want := each * float64(count)
	switch {
	case want <= float64(total):
		return ""
	case count == 1:
		return fmt.Sprintf("%.1f GiB of memory are more than the %.1f GiB this computer has", want/gibi, float64(total)/gibi)
	}
	return fmt.Sprintf("%d machines with %d MiB of memory each want %.1f GiB, and this computer has %.1f GiB: about %d of them can run at a time",
		count, s.MemoryMiB, want/gibi, float64(total)/gibi, max(1, int(float64(total)/each)))
}

// Each runs do for every name, at most atOnce at a time, each name in its turn.
// It goes on past failures, but begins nothing new once ctx has ended. The error
// says which names it belongs to, and is Partial where others succeeded.
func Each(ctx context.Context, names []string, atOnce int, do func(ctx context.Context, name string) error) error {
	if len(names) == 1 {
		return do(ctx, names[0])
	}
	var (
		mu   sync.Mutex // guards errs
		errs = make(map[string]error)
		g    errgroup.Group
	)
	g.SetLimit(max(1, atOnce))
	for _, name := range names {
		g.Go(func() error {
			err := ctx.Err()
			if err == nil {
				err = do(ctx, name)
			}
			if err != nil {
				mu.Lock()
				errs[name] = err
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait() // errors are gathered in errs
	return gathered(names, errs)
}

func gathered(names []string, errs map[string]error) error {
	var failed []string
	var all []error
	said := map[string]bool{}
	for _, name := range names {
		err := errs[name]
		if err == nil {
			continue
		}
		failed = append(failed, name)
		if !said[err.Error()] { // twenty machines without QEMU have one cause
			all = append(all, err)
		}
		said[err.Error()] = true
	}
	switch len(failed) {
	case 0:
		return nil
	case len(names):
		return fail.New(fail.ClassOf(all[0]), "%w", errors.Join(all...))
	}
	class := fail.Partial
	if i := slices.IndexFunc(all, func(err error) bool { return fail.Is(err, fail.Interrupted) }); i >= 0 {
		class = fail.Interrupted
	}
	return fail.New(class, "not done for %s: %w", strings.Join(failed, ", "), errors.Join(all...))
}

// HasLabels reports whether the machine has all of the labels.
func (m Machine) HasLabels(labels []string) bool {
	for _, label := range labels {
		if m.Record == nil || !slices.Contains(m.Record.spec().Labels, label) {
			return false
		}
	}
	return true
}

// Choice says which machines a command is for.
type Choice struct {
	Names  []string
	Labels []string // those that have all of these
	All    bool     // every one, with Labels every one that has them
	Live   bool     // of All without Labels only those that run
}

// Choose returns the names of the machines that are meant, sorted unless they
// were named. Labels that no machine has are an error; All may be none.
func (f *Fleet) Choose(ctx context.Context, c Choice) ([]string, error) {
	many := c.All || len(c.Labels) > 0
	switch {
	case many && len(c.Names) > 0:
		return nil, fail.New(fail.Usage, "name machines, or choose them with --all and --label, not both")
	case !many && len(c.Names) == 0:
		return nil, fail.New(fail.Usage, "which machine?").Hint("name one or more, or pass --all or --label")
	case !many:
		return unique(c.Names), nil
	}
	machines, err := f.List(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range machines {
		if m.HasLabels(c.Labels) && (!c.Live || len(c.Labels) > 0 || m.State.Live()) {
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 && len(c.Labels) > 0 {
		return nil, fail.New(fail.NotFound, "no machine has label %s", strings.Join(c.Labels, " and ")).Hint("'mica list -o wide' shows labels")
	}
	return names, nil
}

// unique drops names that stand there twice: two goroutines on one machine
// would wait for each other.
func unique(names []string) []string {
	var kept []string
	for _, name := range names {
		if !slices.Contains(kept, name) {
			kept = append(kept, name)
		}
	}
	return kept
}
