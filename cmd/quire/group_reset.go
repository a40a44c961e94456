package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/twmb/franz-go/pkg/kadm"
)

type groupResetVerb struct {
	clientFlags
	groupFlags
	Topic      []string `sep:"none" placeholder:"TOPIC[:P,P]" help:"Topic, or some of its partitions; repeatable."`
	AllTopics  bool     `help:"All partitions that a group has committed."`
	ToEarliest bool     `xor:"to" help:"To the first record."`
	ToLatest   bool     `xor:"to" help:"To the end."`
	ToCurrent  bool     `xor:"to" help:"To what is committed, or to the end where nothing is."`
	ToOffset   *int64   `xor:"to" placeholder:"OFFSET" help:"To this offset."`
	ShiftBy    *signed  `xor:"to" placeholder:"N" help:"By so many offsets; back if negative."`
	ToDatetime string   `xor:"to" placeholder:"TIME" help:"To the first record at or after 2026-01-31T12:00:00.000, with Z or +01:00 or else in UTC, or @ and milliseconds since 1970."`
	ByDuration string   `xor:"to" placeholder:"TIME" help:"To the first record of the last P1DT2H3M4S, or 26h3m4s."`
	FromFile   string   `xor:"to" placeholder:"FILE" help:"To the offsets of a CSV file with lines of topic,partition,offset or group,topic,partition,offset."`
	DryRun     bool     `xor:"do" help:"Only show the plan; that is so without --execute."`
	Execute    bool     `xor:"do" help:"Commit the new offsets."`
	JSON       bool     `name:"json" help:"Print JSON."`
}

// signed is a number that may begin with a hyphen, which a command line
// otherwise takes for a flag.
type signed int64

func (s *signed) Decode(ctx *kong.DecodeContext) error {
	text := fmt.Sprint(ctx.Scan.Pop().Value)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%s is not a whole number", text)
	}
	*s = signed(n)
	return nil
}

// resetTo is where offsets go.
type resetTo uint8

const (
	toEarliest resetTo = iota + 1
	toLatest
	toCurrent
	toOffset // n
	shiftBy  // n
	toTime   // n, ms since 1970
	toGiven  // what a file has for the partition
)

// resetRule gives a new offset for every partition.
type resetRule struct {
	to resetTo
	n  int64
}

// rule reads the flags.
func (v *groupResetVerb) rule(now time.Time) (resetRule, error) {
	switch {
	case v.ToEarliest:
		return resetRule{to: toEarliest}, nil
	case v.ToLatest:
		return resetRule{to: toLatest}, nil
	case v.ToCurrent:
		return resetRule{to: toCurrent}, nil
	case v.ToOffset != nil:
		return resetRule{toOffset, *v.ToOffset}, nil
	case v.ShiftBy != nil:
		return resetRule{shiftBy, int64(*v.ShiftBy)}, nil
	case v.ToDatetime != "":
		ms, ok := parseDatetime(v.ToDatetime)
		if !ok {
			return resetRule{}, fmt.Errorf("--to-datetime %s: expected a time as 2026-01-31T12:00:00.000 or @milliseconds", v.ToDatetime)
		}
		return resetRule{toTime, ms}, nil
	case v.ByDuration != "":
		d, ok := parseDuration(v.ByDuration)
		if !ok || now.Add(-d).UnixMilli() < 0 {
			return resetRule{}, fmt.Errorf("--by-duration %s: expected a time as P1DT2H3M4S or 26h3m4s, after 1970", v.ByDuration)
		}
		return resetRule{toTime, now.Add(-d).UnixMilli()}, nil
	case v.FromFile != "":
		return resetRule{to: toGiven}, nil
	}
	return resetRule{}, errors.New("nothing says where to: give --to-earliest, --to-latest, --to-current, --to-offset, --shift-by, --to-datetime, --by-duration or --from-file")
}

// parseDatetime reads a time of Kafka's tools, which is UTC unless it has a
// zone, or @ and milliseconds since 1970.
func parseDatetime(s string) (ms int64, ok bool) {
	if text, at := strings.CutPrefix(s, "@"); at {
		n, err := strconv.ParseInt(text, 10, 64)
		return n, err == nil && n >= 0
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05.999", "2006-01-02T15:04:05.999Z0700", "2006-01-02T15:04:05.999Z07"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixMilli(), t.UnixMilli() >= 0
		}
	}
	return 0, false
}

var isoDuration = regexp.MustCompile(`^P(?:([0-9]{1,5})D)?(?:T((?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+(?:\.[0-9]+)?S)?))?$`)

// parseDuration reads a duration of ISO 8601 without years and months, or of Go.
func parseDuration(s string) (time.Duration, bool) {
	m := isoDuration.FindStringSubmatch(strings.ToUpper(s))
	if m == nil {
		d, err := time.ParseDuration(s)
		return d, err == nil && d >= 0
	}
	if m[1] == "" && m[2] == "" {
		return 0, false
	}
	var d time.Duration
	if m[1] != "" {
		days, _ := strconv.Atoi(m[1]) // five digits
		d = time.Duration(days) * 24 * time.Hour
	}
	if m[2] != "" {
		clock, err := time.ParseDuration(strings.ToLower(m[2]))
		if err != nil {
			return 0, false
		}
		d += clock
	}
	return d, d >= 0
}

// partitionState is what a rule needs to know of a partition.
type partitionState struct {
	current    *kadm.Offset // nil: nothing is committed
	start, end int64
	at         int64 // toTime: the offset of that time
	given      int64 // toGiven
}

// errNothingCommitted: there is nothing to shift.
var errNothingCommitted = errors.New("no offset is committed, so there is none to shift")

// offset is the new offset. As in Kafka's tools an offset that the log does not
// hold becomes the nearest that it does; note says so.
func (r resetRule) offset(s *partitionState) (offset int64, note string, err error) {
	switch r.to {
	case toEarliest:
		return s.start, "", nil
	case toLatest:
		return s.end, "", nil
	case toCurrent:
		if s.current == nil {
			return s.end, "", nil
		}
		return s.current.At, "", nil
	case toTime:
		return s.at, "", nil
	case toOffset:
		offset = r.n
	case toGiven:
		offset = s.given
	case shiftBy:
		if s.current == nil {
			return 0, "", errNothingCommitted
		}
		offset = s.current.At + r.n
		if r.n > 0 && s.current.At > math.MaxInt64-r.n {
			offset = math.MaxInt64
		}
	}
	switch {
	case offset < s.start:
		return s.start, fmt.Sprintf("%d is before the first record, %d is taken", offset, s.start), nil
	case offset > s.end:
		return s.end, fmt.Sprintf("%d is beyond the end, %d is taken", offset, s.end), nil
	}
	return offset, "", nil
}

// givenOffset is a line of a file for --from-file.
type givenOffset struct {
	group     string // "" where the line has none
	topic     string
	partition int32
	offset    int64
}

// readOffsetsCSV reads the file that kafka-consumer-groups --export prints.
func readOffsetsCSV(name string, r io.Reader) ([]givenOffset, error) {
	var all []givenOffset
	seen := map[givenOffset]bool{}
	lines := csv.NewReader(r)
	lines.FieldsPerRecord = -1
	lines.TrimLeadingSpace = true
	for {
		fields, err := lines.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		line, _ := lines.FieldPos(0)
		var g givenOffset
		switch len(fields) {
		case 4:
			g.group, fields = fields[0], fields[1:]
			if g.group == "" {
				return nil, fmt.Errorf("%s: line %d: the group is empty", name, line)
			}
		case 3:
		default:
			return nil, fmt.Errorf("%s: line %d has %d fields; expected topic,partition,offset or group,topic,partition,offset", name, line, len(fields))
		}
		g.topic = fields[0]
		partition, err := strconv.ParseInt(fields[1], 10, 32)
		if err != nil || partition < 0 {
			return nil, fmt.Errorf("%s: line %d: partition %q is not the number of one", name, line, fields[1])
		}
		g.partition = int32(partition)
		if seen[g] {
			return nil, fmt.Errorf("%s: line %d: topic %s partition %d a second time", name, line, g.topic, g.partition)
		}
		seen[g] = true
		if g.offset, err = strconv.ParseInt(fields[2], 10, 64); err != nil || g.offset < 0 {
			return nil, fmt.Errorf("%s: line %d: offset %q is not one", name, line, fields[2])
		}
		all = append(all, g)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no offsets in it", name)
	}
	return all, nil
}

// givenByGroup spreads the lines of a file over groups. A line without a group
// is for the only one; names are the groups chosen.
func givenByGroup(file string, lines []givenOffset, names []string) (map[string]map[string]map[int32]int64, error) {
	all := map[string]map[string]map[int32]int64{}
	for _, l := range lines {
		switch {
		case l.group == "" && len(names) != 1:
			return nil, fmt.Errorf("%s: lines without a group are for one --group, not %d", file, len(names))
		case l.group == "":
			l.group = names[0]
		case !slices.Contains(names, l.group):
			return nil, fmt.Errorf("%s: it has the group %s, which is not among those to reset", file, cell(l.group))
		}
		if all[l.group] == nil {
			all[l.group] = map[string]map[int32]int64{}
		}
		if all[l.group][l.topic] == nil {
			all[l.group][l.topic] = map[int32]int64{}
		}
		all[l.group][l.topic][l.partition] = l.offset
	}
	return all, nil
}

// resetInput is all that planning a reset needs.
type resetInput struct {
	rule      resetRule
	names     []string
	scope     partitionScope                        // nil: what is committed, or given
	given     map[string]map[string]map[int32]int64 // toGiven: by group
	described map[string]described
	committed map[string]committed
	logs      *logs
}

// planReset decides the new offsets. All groups and partitions must be fine for
// any to change: a reset of half of what was meant is worse than none.
func planReset(in *resetInput) (*offsetChanges, []error) {
	plan := &offsetChanges{Offsets: []offsetChange{}}
	var errs []error
	for _, name := range in.names {
		d, c := in.described[name], in.committed[name]
		switch {
		case d.err != nil:
			errs = append(errs, d.err)
			continue
		case d.active():
			errs = append(errs, errActive(name))
			continue
		case c.err != nil:
			errs = append(errs, c.err)
			continue
		}
		before := len(plan.Offsets)
		for _, topic := range slices.Sorted(maps.Keys(in.wanted(name))) {
			if err := in.planTopic(plan, name, topic, in.wanted(name)[topic], &c); err != nil {
				errs = append(errs, err)
			}
		}
		if in.scope == nil && in.given == nil && len(plan.Offsets) == before && len(errs) == 0 {
			plan.skip(name, "nothing is committed, so --all-topics are none")
		}
	}
	return plan, errs
}

// wanted is the partitions to reset for a group.
func (in *resetInput) wanted(group string) partitionScope {
	wanted := partitionScope{}
	switch {
	case in.scope != nil:
		return in.scope
	case in.given != nil:
		for topic, partitions := range in.given[group] {
			wanted[topic] = slices.Sorted(maps.Keys(partitions))
		}
	default:
		c := in.committed[group]
		for _, o := range c.offsets {
			wanted[o.Topic] = append(wanted[o.Topic], o.Partition)
		}
	}
	return wanted
}

func (in *resetInput) planTopic(plan *offsetChanges, group, topic string, partitions []int32, c *committed) error {
	t, ok := in.logs.topics[topic]
	switch {
	case !ok && in.scope == nil && in.given == nil:
		plan.skip(group, "topic %s does not exist any more", topic)
		return nil
	case !ok:
		return fmt.Errorf("topic %s does not exist", topic)
	case t.Err != nil:
		return explain(topic, t.Err, "")
	}
	if partitions == nil {
		partitions = t.Partitions.Numbers()
	}
	for _, n := range slices.Sorted(slices.Values(partitions)) {
		if !slices.Contains(t.Partitions.Numbers(), n) {
			return fmt.Errorf("topic %s has no partition %d", topic, n)
		}
		start, _ := in.logs.starts.Lookup(topic, n)
		end, _ := in.logs.ends.Lookup(topic, n)
		at, _ := in.logs.byTime.Lookup(topic, n)
		if err := errors.Join(start.Err, end.Err, at.Err); err != nil {
			return explain(fmt.Sprintf("%s partition %d", topic, n), err, "")
		}
		state := partitionState{start: start.Offset, end: end.Offset, at: at.Offset, given: in.given[group][topic][n]}
		change := offsetChange{Group: group, Topic: topic, Partition: n, leaderEpoch: -1}
		if o, ok := c.lookup(topic, n); ok {
			state.current, change.Current = o, &o.At
		}
		offset, note, err := in.rule.offset(&state)
		if err != nil {
			return fmt.Errorf("group %s, topic %s partition %d: %w", cell(group), topic, n, err)
		}
		if note != "" {
			plan.note("group %s, topic %s partition %d: %s", cell(group), topic, n, note)
		}
		change.New = offset
		if state.current != nil && state.current.At == offset {
			change.leaderEpoch, change.metadata = state.current.LeaderEpoch, state.current.Metadata
		}
		plan.Offsets = append(plan.Offsets, change)
	}
	return nil
}

func (v *groupResetVerb) Run(p *process) error {
	if err := v.check(); err != nil {
		return err
	}
	rule, err := v.rule(time.Now())
	if err != nil {
		return err
	}
	in := &resetInput{rule: rule}
	var lines []givenOffset
	chosen := len(v.Topic) > 0 || v.AllTopics
	switch {
	case rule.to == toGiven && chosen:
		return errors.New("--from-file says which partitions: --topic and --all-topics do not go with it")
	case rule.to == toGiven:
		if lines, err = readOffsetsFile(v.FromFile); err != nil {
			return err
		}
	case len(v.Topic) > 0 && v.AllTopics:
		return errors.New("--topic and --all-topics exclude each other")
	case !chosen:
		return errors.New("no topic is named: give --topic or --all-topics")
	case !v.AllTopics:
		if in.scope, err = parseScope(v.Topic); err != nil {
			return err
		}
	}
	return v.groups(p, func(c *groupClient) error { return v.reset(p, c, in, lines) })
}

func readOffsetsFile(name string) ([]givenOffset, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--from-file %s cannot be read: %w", name, unwrapPath(err))
	}
	defer f.Close()
	return readOffsetsCSV(name, f)
}

func (v *groupResetVerb) reset(p *process, c *groupClient, in *resetInput, lines []givenOffset) (err error) {
	if in.names, err = v.names(c); err != nil {
		return err
	}
	if lines != nil {
		if in.given, err = givenByGroup(v.FromFile, lines, in.names); err != nil {
			return err
		}
	}
	if in.described, err = c.describe(in.names); err != nil {
		return err
	}
	if in.committed, err = c.committed(in.names); err != nil {
		return err
	}
	topics := map[string]bool{}
	for _, name := range in.names {
		for topic := range in.wanted(name) {
			topics[topic] = true
		}
	}
	milli := int64(-1)
	if in.rule.to == toTime {
		milli = in.rule.n
	}
	if in.logs, err = c.logs(slices.Sorted(maps.Keys(topics)), milli); err != nil {
		return err
	}
	plan, errs := planReset(in)
	if len(errs) > 0 {
		return summarize(p, errs, "things are in the way, so nothing is reset")
	}
	if v.Execute {
		plan.execute(c)
	}
	if err := plan.print(p, v.JSON); err != nil {
		return err
	}
	if !v.Execute && !v.JSON {
		fmt.Fprintln(p.stderr, "this is a plan: --execute commits it")
	}
	return nil
}
