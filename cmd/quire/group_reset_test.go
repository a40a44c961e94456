package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func TestParseDatetime(t *testing.T) {
	for text, want := range map[string]int64{
		"2026-01-31T12:00:00":           1769860800000,
		"2026-01-31T12:00:00.5":         1769860800500,
		"2026-01-31T12:00:00.123":       1769860800123,
		"2026-01-31T12:00:00Z":          1769860800000,
		"2026-01-31T12:00:00.250+01:00": 1769857200250,
		"2026-01-31T12:00:00.250+0100":  1769857200250,
		"2026-01-31T12:00:00.250-02":    1769868000250,
		"@1769860800000":                1769860800000,
		"@-1":                           -1,
		"@":                             -1,
		"2026-01-31":                    -1,
		"1969-12-31T00:00:00":           -1,
		"":                              -1,
	} {
		got, ok := parseDatetime(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, ok, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"P1D":                     24 * time.Hour,
		"P1DT2H3M4.5S":            26*time.Hour + 3*time.Minute + 4500*time.Millisecond,
		"pt90m":                   90 * time.Minute,
		"PT0S":                    0,
		"90m":                     90 * time.Minute,
		"P":                       -1,
		"PT":                      -1,
		"P1Y":                     -1,
		"P1M":                     -1,
		"-90m":                    -1,
		"PT-1H":                   -1,
		"PT99999999999999999999H": -1,
		"P99999DT2562047H":        -1, // more than a Duration
		"1 hour":                  -1,
		"":                        -1,
	} {
		got, ok := parseDuration(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, ok, want)
		}
	}
}

// TestResetRule: the arithmetic, in a log that holds 10 to 100.
func TestResetRule(t *testing.T) {
	at := func(n int64) *kadm.Offset { return &kadm.Offset{At: n} }
	for _, c := range []struct {
		rule    resetRule
		current *kadm.Offset
		want    int64
		note    string
	}{
		{resetRule{to: toEarliest}, at(50), 10, ""},
		{resetRule{to: toLatest}, at(50), 100, ""},
		{resetRule{to: toCurrent}, at(50), 50, ""},
		{resetRule{to: toCurrent}, at(3), 3, ""}, // a commit again, wherever it is
		{resetRule{to: toCurrent}, nil, 100, ""},
		{resetRule{to: toTime}, nil, 42, ""},
		{resetRule{toOffset, 10}, nil, 10, ""},
		{resetRule{toOffset, 100}, nil, 100, ""},
		{resetRule{toOffset, 9}, nil, 10, "9 is before the first record, 10 is taken"},
		{resetRule{toOffset, 101}, nil, 100, "101 is beyond the end, 100 is taken"},
		{resetRule{toOffset, -1}, nil, 10, "-1 is before the first record, 10 is taken"},
		{resetRule{to: toGiven}, at(50), 100, "120 is beyond the end, 100 is taken"},
		{resetRule{shiftBy, -7}, at(50), 43, ""},
		{resetRule{shiftBy, 7}, at(50), 57, ""},
		{resetRule{shiftBy, -41}, at(50), 10, "9 is before the first record, 10 is taken"},
		{resetRule{shiftBy, math.MaxInt64}, at(50), 100, "9223372036854775807 is beyond the end, 100 is taken"},
		{resetRule{shiftBy, math.MinInt64}, at(50), 10, "-9223372036854775758 is before the first record, 10 is taken"},
	} {
		got, note, err := c.rule.offset(&partitionState{current: c.current, start: 10, end: 100, at: 42, given: 120})
		if err != nil || got != c.want || note != c.note {
			t.Errorf("%+v from %v: %d, %q, %v; want %d, %q", c.rule, c.current, got, note, err, c.want, c.note)
		}
	}
	if _, _, err := (resetRule{to: shiftBy, n: 1}).offset(&partitionState{}); !errors.Is(err, errNothingCommitted) {
		t.Errorf("a shift of nothing gives %v", err)
	}
}

func TestReadOffsetsCSV(t *testing.T) {
	for text, want := range map[string]string{
		"t,0,5\nt,1,6\n":        "[{ t 0 5} { t 1 6}]",
		"g,t,0,5":               "[{g t 0 5}]",
		"\"g,1\",\"t\", 0, 5\n": "[{g,1 t 0 5}]",
		"":                      "f: no offsets in it",
		"t,0\n":                 "f: line 1 has 2 fields; expected topic,partition,offset or group,topic,partition,offset",
		"t,0,5\n\nt,x,5\n":      `f: line 3: partition "x" is not the number of one`,
		"t,0,5\nt,0,6\n":        "f: line 2: topic t partition 0 a second time",
		"t,0,-5\n":              `f: line 1: offset "-5" is not one`,
		"t,-1,5\n":              `f: line 1: partition "-1" is not the number of one`,
		",t,0,5\n":              "f: line 1: the group is empty",
		"t,0,\"5\n":             `f: parse error on line 1, column 8: extraneous or missing " in quoted-field`,
	} {
		lines, err := readOffsetsCSV("f", strings.NewReader(text))
		got := fmt.Sprint(lines)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestGivenByGroup(t *testing.T) {
	for _, c := range []struct {
		lines []givenOffset
		names []string
		want  string
	}{
		{[]givenOffset{{"", "t", 0, 5}}, []string{"g"}, "map[g:map[t:map[0:5]]]"},
		{[]givenOffset{{"g", "t", 0, 5}, {"h", "t", 0, 6}}, []string{"g", "h"}, "map[g:map[t:map[0:5]] h:map[t:map[0:6]]]"},
		{[]givenOffset{{"", "t", 0, 5}}, []string{"g", "h"}, "f: lines without a group are for one --group, not 2"},
		{[]givenOffset{{"x", "t", 0, 5}}, []string{"g"}, "f: it has the group x, which is not among those to reset"},
	} {
		all, err := givenByGroup("f", c.lines, c.names)
		got := fmt.Sprint(all)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v for %v: %q, want %q", c.lines, c.names, got, c.want)
		}
	}
}

// resetOf is a reset of the group g, which has committed 50 in partition 0 of t
// and 60 in a topic that is gone; t has two partitions with 10 to 100.
func resetOf(rule resetRule) *resetInput {
	return &resetInput{
		rule: rule, names: []string{"g"},
		described: map[string]described{"g": {groupDescription: groupDescription{Group: "g", State: emptyState}}},
		committed: map[string]committed{"g": {offsets: []kadm.Offset{
			{Topic: "gone", Partition: 0, At: 60},
			{Topic: "t", Partition: 0, At: 50, LeaderEpoch: 7, Metadata: "m"},
		}}},
		logs: &logs{topics: kadm.TopicDetails{"t": topicOf("t", 1, 2)}, starts: listed("t", 10, 10), ends: listed("t", 100, 100), byTime: listed("t", 42, 43)},
	}
}

func planText(plan *offsetChanges, errs []error) string {
	var b strings.Builder
	for _, o := range plan.Offsets {
		current := int64(-1)
		if o.Current != nil {
			current = *o.Current
		}
		fmt.Fprintf(&b, "%s/%s/%d: %d>%d epoch %d %q; ", o.Group, o.Topic, o.Partition, current, o.New, o.leaderEpoch, o.metadata)
	}
	for _, n := range plan.Notes {
		b.WriteString("note " + n + "; ")
	}
	for _, s := range plan.Skipped {
		b.WriteString("skipped " + s.Reason + "; ")
	}
	for _, f := range plan.Failed {
		b.WriteString("failed " + f.Reason + "; ")
	}
	for _, err := range errs {
		b.WriteString("error " + err.Error() + "; ")
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func TestPlanReset(t *testing.T) {
	for name, c := range map[string]struct {
		rule   resetRule
		change func(in *resetInput)
		want   string
	}{
		"all topics": {resetRule{to: toEarliest}, func(*resetInput) {},
			`g/t/0: 50>10 epoch -1 ""; skipped group g: topic gone does not exist any more`},
		"unchanged offsets keep what belongs to them": {resetRule{to: toCurrent}, func(in *resetInput) { in.scope = partitionScope{"t": nil} },
			`g/t/0: 50>50 epoch 7 "m"; g/t/1: -1>100 epoch -1 ""`},
		"by time": {resetRule{to: toTime}, func(in *resetInput) { in.scope = partitionScope{"t": {1, 0}} },
			`g/t/0: 50>42 epoch -1 ""; g/t/1: -1>43 epoch -1 ""`},
		"nothing to shift": {resetRule{shiftBy, 1}, func(in *resetInput) { in.scope = partitionScope{"t": nil} },
			`g/t/0: 50>51 epoch -1 ""; error group g, topic t partition 1: no offset is committed, so there is none to shift`},
		"note": {resetRule{toOffset, 7}, func(in *resetInput) { in.scope = partitionScope{"t": {0}} },
			`g/t/0: 50>10 epoch -1 ""; note group g, topic t partition 0: 7 is before the first record, 10 is taken`},
		"given": {resetRule{to: toGiven}, func(in *resetInput) {
			in.given = map[string]map[string]map[int32]int64{"g": {"t": {1: 33}}}
		}, `g/t/1: -1>33 epoch -1 ""`},
		"given topic is gone": {resetRule{to: toGiven}, func(in *resetInput) {
			in.given = map[string]map[string]map[int32]int64{"g": {"gone": {0: 33}}}
		}, `error topic gone does not exist`},
		"no such topic":     {resetRule{to: toLatest}, func(in *resetInput) { in.scope = partitionScope{"x": nil} }, `error topic x does not exist`},
		"no such partition": {resetRule{to: toLatest}, func(in *resetInput) { in.scope = partitionScope{"t": {2}} }, `error topic t has no partition 2`},
		"no leader": {resetRule{to: toLatest}, func(in *resetInput) {
			in.scope = partitionScope{"t": {0}}
			in.logs.ends["t"][0] = kadm.ListedOffset{Err: kerr.LeaderNotAvailable}
		}, `error topic t partition 0: LEADER_NOT_AVAILABLE: `},
		"active": {resetRule{to: toLatest}, func(in *resetInput) {
			in.described["g"] = described{groupDescription: groupDescription{State: "PreparingRebalance"}}
		}, `error group g has active members: stop them first`},
		"undescribed": {resetRule{to: toLatest}, func(in *resetInput) { in.described["g"] = described{err: errors.New("x")} }, `error x`},
		"unread":      {resetRule{to: toLatest}, func(in *resetInput) { in.committed["g"] = committed{err: errors.New("x")} }, `error x`},
		"new group": {resetRule{to: toLatest}, func(in *resetInput) {
			in.described["g"] = described{groupDescription: groupDescription{State: deadState}}
			in.committed["g"], in.scope = committed{}, partitionScope{"t": {0}}
		}, `g/t/0: -1>100 epoch -1 ""`},
		"nothing committed": {resetRule{to: toLatest}, func(in *resetInput) { in.committed["g"] = committed{} },
			`skipped group g: nothing is committed, so --all-topics are none`},
	} {
		in := resetOf(c.rule)
		c.change(in)
		if got := planText(planReset(in)); !strings.HasPrefix(got, c.want) || strings.Count(got, ";") != strings.Count(c.want, ";") {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}
