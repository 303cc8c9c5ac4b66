//go:build ignore

// turns runs commands side by side, in turn, and tells what each took: the time
// of the whole process, its processor time, and the most memory that it or one of
// its children had. What the commands leave running is not in it.
//
//	go run bench/turns.go ROUNDS <plan
//
// A plan has a command a line: STEP|WHO|COMMAND. Each round goes through the
// steps in the order in which they first appear; within a step every WHO has a
// turn, another one first each round. COMMAND goes to sh, with the number of the
// round in $n. A step named "-" is carried out and not reported. The ratios are
// medians of the rounds' own ratios to the first WHO of the step, so that what
// else the computer does meanwhile counts on both sides.
//
// A command of the first WHO that fails ends it all; the failures of others are
// counted, shown with what they said, and left out. The first signal to end is
// obeyed after the round that is under way, with a report of those that are done.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// turn is one command of the plan, and what it took in each round.
type turn struct {
	who, command    string
	ms, cpu, memory []float64 // of each round; of one that failed, NaN
}

type step struct {
	name  string
	turns []*turn
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "turns:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: turns ROUNDS <plan")
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil || rounds < 1 {
		return fmt.Errorf("%q is no number of rounds", args[0])
	}
	steps, err := read(in)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for n := 0; n < rounds && ctx.Err() == nil; n++ {
		for _, s := range steps {
			for i := range s.turns {
				at := (i + n) % len(s.turns)
				err := s.turns[at].take(n + 1)
				if err == nil {
					continue
				}
				err = fmt.Errorf("round %d: %s: %w", n+1, s.name, err)
				if at == 0 {
					return err
				}
				fmt.Fprintln(os.Stderr, "turns:", err)
			}
		}
	}
	return report(out, steps)
}

func read(in io.Reader) ([]*step, error) {
	var steps []*step
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(line, "|", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("%q is not STEP|WHO|COMMAND", line)
		}
		// steps without a report stay where they stand
		at := slices.IndexFunc(steps, func(s *step) bool { return s.name == f[0] && f[0] != "-" })
		if at < 0 {
			at = len(steps)
			steps = append(steps, &step{name: f[0]})
		}
		steps[at].turns = append(steps[at].turns, &turn{who: f[1], command: f[2]})
	}
	return steps, lines.Err()
}

func (t *turn) take(n int) error {
	var said bytes.Buffer
	cmd := exec.Command("sh", "-c", t.command)
	cmd.Env = append(os.Environ(), fmt.Sprintf("n=%d", n))
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	// a file, not a pipe: a pipe would be waited for as long as what the command
	// leaves running has it open
	errs, err := os.CreateTemp("", "turns")
	if err != nil {
		return err
	}
	defer os.Remove(errs.Name()) //nolint:errcheck // a leftover in the temporary folder
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = null, errs
	began := time.Now()
	err = cmd.Run()
	took := float64(time.Since(began).Microseconds()) / 1e3
	used := cmd.ProcessState
	if err != nil {
		t.ms, t.cpu, t.memory = append(t.ms, math.NaN()), append(t.cpu, math.NaN()), append(t.memory, math.NaN())
		if _, err := errs.Seek(0, io.SeekStart); err == nil {
			_, _ = io.Copy(&said, errs)
		}
		return fmt.Errorf("%s: %w\n%s", t.command, err, said.String())
	}
	peak := used.SysUsage().(*syscall.Rusage).Maxrss //nolint:forcetypeassert // what Linux gives
	t.ms = append(t.ms, took)
	t.cpu = append(t.cpu, float64((used.UserTime()+used.SystemTime()).Microseconds())/1e3)
	t.memory = append(t.memory, float64(peak)/1024)
	return nil
}

func report(out io.Writer, steps []*step) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "%-20s %-14s %9s %19s %8s %7s   %s\n", "step", "by", "median ms", "middle half", "cpu ms", "MiB", "times the first")
	for _, s := range steps {
		if s.name == "-" {
			continue
		}
		for i, t := range s.turns {
			name := s.name
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(w, "%-20s %-14s %9.1f %9.1f-%-9.1f %8.1f %7.1f", name, t.who,
				at(t.ms, 0.5), at(t.ms, 0.25), at(t.ms, 0.75), at(t.cpu, 0.5), at(t.memory, 1))
			if i > 0 {
				ratios := make([]float64, len(t.ms))
				for n := range ratios {
					ratios[n] = t.ms[n] / s.turns[0].ms[n]
				}
				fmt.Fprintf(w, "   %.2f (%.2f-%.2f)", at(ratios, 0.5), at(ratios, 0.25), at(ratios, 0.75))
			}
			if failed := len(t.ms) - len(good(t.ms)); failed > 0 {
				fmt.Fprintf(w, "   %d of %d failed", failed, len(t.ms))
			}
			fmt.Fprintln(w)
		}
	}
	return w.Flush()
}

// good leaves out what failed.
func good(values []float64) []float64 { return slices.DeleteFunc(slices.Clone(values), math.IsNaN) }

// at is a quantile, between the two nearest values where there is none.
func at(values []float64, q float64) float64 {
	v := good(values)
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	x := q * float64(len(v)-1)
	low := int(x)
	if low+1 == len(v) {
		return v[low]
	}
	return v[low] + (x-float64(low))*(v[low+1]-v[low])
}
