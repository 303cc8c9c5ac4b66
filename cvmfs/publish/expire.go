package publish

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/history"
)

// Age is a span of time by the calendar. The zero value is no age at all.
type Age struct {
	Years, Months, Days int
	Rest                time.Duration
}

// maxAge bounds each number of an age, so that none of them wraps.
const maxAge = 10000

// ParseAge reads an age such as "4 weeks ago" or "1 month 12 hours"; nothing is
// the zero age.
//
// Compat: the words that date(1) knows for spans, which is what reads
// CVMFS_AUTO_TAG_TIMESPAN in the original (cvmfs: cvmfs/server/cvmfs_server_util.sh).
// Differs: nothing else that date knows, as names of days.
func ParseAge(text string) (Age, error) {
	var a Age
	words := strings.Fields(strings.ToLower(text))
	if n := len(words); n > 0 && words[n-1] == "ago" {
		words = words[:n-1]
		if n == 1 {
			words = []string{"ago"}
		}
	}
	for len(words) > 0 {
		n, err := strconv.Atoi(words[0])
		if err != nil || n < 0 || n > maxAge || len(words) < 2 || !a.add(n, strings.TrimSuffix(words[1], "s")) {
			return Age{}, fmt.Errorf("%.80q: want numbers of years, months, weeks, days, hours, minutes or seconds, as in \"4 weeks ago\": %w", text, cvmfs.ErrMalformed)
		}
		words = words[2:]
	}
	return a, nil
}

func (a *Age) add(n int, unit string) bool {
	switch unit {
	case "year":
		a.Years += n
	case "month":
		a.Months += n
	case "fortnight":
		a.Days += 14 * n
	case "week":
		a.Days += 7 * n
	case "day":
		a.Days += n
	case "hour":
		a.Rest += time.Duration(n) * time.Hour
	case "minute", "min":
		a.Rest += time.Duration(n) * time.Minute
	case "second", "sec":
		a.Rest += time.Duration(n) * time.Second
	default:
		return false
	}
	return true
}

// Before returns the time that lies so far before another one.
func (a Age) Before(t time.Time) time.Time {
	return t.AddDate(-a.Years, -a.Months, -a.Days).Add(-a.Rest)
}

// generic matches the names that publications give by themselves.
//
// Compat: cvmfs: cvmfs/server/cvmfs_server_publish.sh, filter_auto_tags. Differs:
// the whole name, so that one somebody gave is never taken for another.
var generic = regexp.MustCompile(`^generic(_[0-9]+)?-[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`)

// Expired returns those of the tags that publications made by themselves longer
// ago than an age; none if it is zero.
func Expired(tags []history.Tag, age Age, now time.Time) []history.Tag {
	if age == (Age{}) {
		return nil
	}
	end := age.Before(now)
	var old []history.Tag
	for _, t := range tags {
		if generic.MatchString(t.Name) && t.Time.Before(end) {
			old = append(old, t)
		}
	}
	return old
}
