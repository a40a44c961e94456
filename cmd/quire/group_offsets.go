package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// offsetChange is one committed offset that changes.
type offsetChange struct {
	Group       string `json:"group"`
	Topic       string `json:"topic"`
	Partition   int32  `json:"partition"`
	Current     *int64 `json:"currentOffset"` // nil: nothing is committed
	New         int64  `json:"newOffset"`
	leaderEpoch int32
	metadata    string
}

// unchanged is something that was asked for and is not done.
type unchanged struct {
	Group  string `json:"group"`
	Reason string `json:"reason"`
}

// offsetChanges is a plan, and after execute what became of it.
type offsetChanges struct {
	Executed bool           `json:"executed"`
	Offsets  []offsetChange `json:"offsets"`
	Notes    []string       `json:"notes,omitempty"`
	Skipped  []unchanged    `json:"skipped,omitempty"`
	Failed   []unchanged    `json:"failed,omitempty"`
}

func (c *offsetChanges) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

func (c *offsetChanges) skip(group, format string, args ...any) {
	c.Skipped = append(c.Skipped, unchanged{group, fmt.Sprintf("group %s: ", cell(group)) + fmt.Sprintf(format, args...)})
}

func (c *offsetChanges) fail(group string, err error) {
	c.Failed = append(c.Failed, unchanged{group, err.Error()})
}

// execute commits the offsets, group by group. Those that the server does not
// take move to the failures; a signal leaves the rest undone, which is one more.
func (c *offsetChanges) execute(client *groupClient) {
	planned := c.Offsets
	c.Executed, c.Offsets = true, []offsetChange{}
	for len(planned) > 0 {
		group := planned[0].Group
		if client.ctx.Err() != nil {
			c.fail(group, fmt.Errorf("%w before group %s and those after it", errInterrupted, cell(group)))
			return
		}
		n := 0
		var offsets []kadm.Offset
		for n < len(planned) && planned[n].Group == group {
			o := &planned[n]
			offsets = append(offsets, kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: o.New, LeaderEpoch: o.leaderEpoch, Metadata: o.metadata})
			n++
		}
		failed := client.commit(group, offsets)
		for _, o := range planned[:n] {
			if _, ok := failed.Lookup(o.Topic, o.Partition); !ok {
				c.Offsets = append(c.Offsets, o)
			}
		}
		for _, err := range explainCommit(group, len(offsets), failed) {
			c.fail(group, err)
		}
		planned = planned[n:]
	}
}

// explainCommit words the failures of a commit of n offsets: once if it is the
// same for all, else by partition.
func explainCommit(group string, n int, failed kadm.OffsetResponses) []error {
	sorted := failed.Sorted()
	if len(sorted) == 0 {
		return nil
	}
	same := func(o kadm.OffsetResponse) bool { return o.Err.Error() == sorted[0].Err.Error() }
	ofTopic := errors.Is(sorted[0].Err, kerr.UnknownTopicOrPartition) || errors.Is(sorted[0].Err, kerr.OffsetMetadataTooLarge)
	if len(sorted) == n && !ofTopic && !slices.ContainsFunc(sorted, func(o kadm.OffsetResponse) bool { return !same(o) }) {
		return []error{explainGroup(group, sorted[0].Err, "")}
	}
	errs := make([]error, len(sorted))
	for i, o := range sorted {
		errs[i] = explainGroup(fmt.Sprintf("%s, topic %s partition %d", group, o.Topic, o.Partition), o.Err, "")
	}
	return errs
}

// print writes the plan or what was done: offsets to standard output, the rest
// to standard error. Failures are returned.
func (c *offsetChanges) print(p *process, asJSON bool) error {
	if asJSON {
		c.Offsets = notNil(c.Offsets)
		if err := printJSON(p.stdout, c); err != nil {
			return err
		}
	} else {
		for _, note := range c.Notes {
			fmt.Fprintf(p.stderr, "note: %s\n", note)
		}
		for _, s := range c.Skipped {
			fmt.Fprintf(p.stderr, "skipped: %s\n", s.Reason)
		}
		if err := writeChanges(p.stdout, c.Offsets); err != nil {
			return err
		}
	}
	var failed []error
	for _, f := range c.Failed {
		failed = append(failed, errors.New(f.Reason))
	}
	return summarize(p, failed, "failures")
}

func writeChanges(out io.Writer, changes []offsetChange) error {
	w := newTable(out, "GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "NEW-OFFSET")
	for i := range changes {
		o := &changes[i]
		w.row(o.Group, o.Topic, o.Partition, o.Current, &o.New)
	}
	return w.Flush()
}

// partitionScope is topics and some of their partitions; nil means all.
type partitionScope map[string][]int32

// parseScope reads the --topic flags, each TOPIC or TOPIC:0,1.
func parseScope(flags []string) (partitionScope, error) {
	scope := partitionScope{}
	for _, flag := range flags {
		topic, list, some := strings.Cut(flag, ":")
		if topic == "" {
			return nil, fmt.Errorf("--topic %s: expected TOPIC or TOPIC:PARTITION,PARTITION", flag)
		}
		before, again := scope[topic]
		if !some || again && before == nil {
			scope[topic] = nil
			continue
		}
		for text := range strings.SplitSeq(list, ",") {
			n, err := strconv.ParseInt(text, 10, 32)
			if err != nil || n < 0 {
				return nil, fmt.Errorf("--topic %s: %q is not the number of a partition", flag, text)
			}
			if !slices.Contains(scope[topic], int32(n)) {
				scope[topic] = append(scope[topic], int32(n))
			}
		}
	}
	return scope, nil
}
