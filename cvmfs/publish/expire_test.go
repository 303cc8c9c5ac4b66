package publish_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/history"
	"github.com/micavm/mica/cvmfs/publish"
)

func TestParseAge(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                           now,
		"4 weeks ago":                time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC),
		"1 month":                    time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC), // as date(1) has it: there is no 31 February
		"1 Year 2 days 12 HOURS ago": time.Date(2025, 3, 29, 0, 0, 0, 0, time.UTC),
		"1 fortnight 90 min 30 secs": time.Date(2026, 3, 17, 10, 29, 30, 0, time.UTC),
	} {
		if a, err := publish.ParseAge(text); err != nil || !a.Before(now).Equal(want) {
			t.Errorf("ParseAge(%q) = %+v, %v, before %v it is %v, want %v", text, a, err, now, a.Before(now), want)
		}
	}
	for _, text := range []string{"ago", "4", "weeks", "4 weeks 3", "-4 weeks", "4 moons ago", "1.5 days", "yesterday", "99999999999 years", "4 weeks ago ago"} {
		if a, err := publish.ParseAge(text); !errors.Is(err, cvmfs.ErrMalformed) {
			t.Errorf("ParseAge(%q) = %+v, %v, want ErrMalformed", text, a, err)
		}
	}
}

// Tags that publications made by themselves are removed when they are too old, and
// no others, whether something changed or not.
func TestExpiredTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := func() (names []string) {
		info, err := publish.ReadInfo(t.Context(), w.storage, name, nil, w.clock)
		must(t, err)
		for _, tag := range info.Tags {
			names = append(names, tag.Name)
		}
		slices.Sort(names)
		return names
	}
	w.write(t, "file", "1")
	first := w.publish(t, func(o *publish.Options) { o.Tag = "generic-mine" })
	w.now = w.now.AddDate(0, 0, 10)
	w.write(t, "file", "22")
	second := w.publish(t, nil)
	age := publish.Age{Days: 11}
	keep := w.publish(t, func(o *publish.Options) { o.TagAge = age })
	if !keep.Unchanged || len(keep.Expired) != 0 {
		t.Errorf("after ten days: %+v, want nothing to happen", keep)
	}
	w.now = w.now.AddDate(0, 0, 2)
	r := w.publish(t, func(o *publish.Options) { o.TagAge = age })
	if want := first.Tags[1:2]; !r.Unchanged || !slices.Equal(r.Expired, want) {
		t.Errorf("after twelve days %q were removed of %+v, want %q", r.Expired, r, want)
	}
	want := []string{second.Tags[1], "generic-mine", "trunk", "trunk-previous"}
	if got := all(); !slices.Equal(got, want) {
		t.Errorf("tags = %q, want %q", got, want)
	}
	clean(t, w.check(t))
	w.now = w.now.AddDate(1, 0, 0)
	w.write(t, "file", "333")
	third := w.publish(t, func(o *publish.Options) { o.TagAge = age })
	want = []string{third.Tags[1], "generic-mine", "trunk", "trunk-previous"}
	if got := all(); !slices.Equal(got, want) || !slices.Equal(third.Expired, second.Tags[1:2]) {
		t.Errorf("tags = %q, removed %q, want %q", got, third.Expired, want)
	}
	clean(t, w.check(t))
}

func TestExpired(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	var tags []history.Tag
	for _, name := range []string{"generic-2026-01-01T00:00:00Z", "generic_12-2026-01-01T00:00:00Z", "generic-2026-01-01T00:00:00Z-kept", "my-generic-2026-01-01T00:00:00Z", "generic", "trunk"} {
		tags = append(tags, history.Tag{Name: name, Time: now.AddDate(0, -2, 0)})
	}
	tags = append(tags, history.Tag{Name: "generic-2026-01-02T00:00:00Z", Time: now.AddDate(0, -1, 0)})
	got := publish.Expired(tags, publish.Age{Months: 1}, now)
	if len(got) != 2 || got[0].Name != tags[0].Name || got[1].Name != tags[1].Name {
		t.Errorf("Expired = %+v, want the first two", got)
	}
	if got := publish.Expired(tags, publish.Age{}, now); got != nil {
		t.Errorf("Expired of no age = %+v", got)
	}
}
