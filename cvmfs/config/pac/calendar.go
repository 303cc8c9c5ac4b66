package pac

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// zone takes a last argument GMT away.
func zone(now time.Time, args []string) (time.Time, []string) {
	if n := len(args); n > 0 && args[n-1] == "GMT" {
		return now.UTC(), args[:n-1]
	}
	return now, args
}

// within compares from and to, which are inclusive. A range whose end comes
// before its beginning goes round.
func within(now, from, to []int) bool {
	if slices.Compare(from, to) <= 0 {
		return slices.Compare(from, now) <= 0 && slices.Compare(now, to) <= 0
	}
	return slices.Compare(from, now) <= 0 || slices.Compare(now, to) <= 0
}

func index(names, name string) (int, bool) {
	i := strings.Index(names, strings.ToUpper(name))
	return i / 3, len(name) == 3 && i >= 0 && i%3 == 0
}

func weekdayRange(now time.Time, args []string) bool {
	now, args = zone(now, args)
	var days [2]int
	if len(args) == 0 || len(args) > 2 {
		return false
	}
	for i := range days {
		day, ok := index("SUNMONTUEWEDTHUFRISAT", args[min(i, len(args)-1)])
		if !ok {
			return false
		}
		days[i] = day
	}
	return within([]int{int(now.Weekday())}, days[:1], days[1:])
}

// dateRange knows days, months and years, alone or in pairs of equal form, such
// as day and month, day and month.
func dateRange(now time.Time, args []string) bool {
	now, args = zone(now, args)
	half := (len(args) + 1) / 2
	if len(args) == 0 || len(args) > 6 || len(args) > 1 && len(args)%2 != 0 {
		return false
	}
	// The parts in order of weight: year, month, day.
	read := func(args []string) (values, present [3]int, ok bool) {
		for _, a := range args {
			at, value := 2, 0
			if month, isMonth := index("JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC", a); isMonth {
				at, value = 1, month+1
			} else if n, err := strconv.Atoi(a); err != nil || n < 1 {
				return values, present, false
			} else if value = n; n > 31 {
				at = 0
			}
			if present[at] != 0 {
				return values, present, false
			}
			values[at], present[at] = value, 1
		}
		return values, present, true
	}
	from, has, ok := read(args[:half])
	to, has2, ok2 := read(args[len(args)-half:])
	if !ok || !ok2 || has != has2 {
		return false
	}
	today := [3]int{now.Year(), int(now.Month()), now.Day()}
	for i := range today {
		if has[i] == 0 {
			today[i] = 0
		}
	}
	return within(today[:], from[:], to[:])
}

// timeRange knows hours, minutes and seconds in the same way.
func timeRange(now time.Time, args []string) bool {
	now, args = zone(now, args)
	var n []int
	for _, a := range args {
		v, err := strconv.Atoi(a)
		if err != nil {
			return false
		}
		n = append(n, v)
	}
	clock := []int{now.Hour(), now.Minute(), now.Second()}
	switch len(n) {
	case 1:
		return n[0] == clock[0]
	case 2, 4, 6:
		return within(clock[:len(n)/2], n[:len(n)/2], n[len(n)/2:])
	}
	return false
}
