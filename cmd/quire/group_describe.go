package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
)

type groupDescribeVerb struct {
	clientFlags
	groupFlags
	Offsets bool `xor:"what" help:"Committed offsets, ends of the logs and lag; what is shown if nothing else is asked for."`
	Members bool `xor:"what" help:"Members and how many partitions each has."`
	State   bool `xor:"what" help:"State, coordinator and assignor."`
	Verbose bool `help:"More columns: leader epochs; epochs and assignments of members; epochs of groups."`
	JSON    bool `name:"json" help:"Print JSON."`
}

// offsetRow is one partition of a group: what is committed, what there is to
// read, and who reads it. What is not known is nil.
type offsetRow struct {
	Topic       string `json:"topic"`
	Partition   int32  `json:"partition"`
	Current     *int64 `json:"currentOffset"`
	LeaderEpoch *int32 `json:"leaderEpoch,omitempty"`
	Metadata    string `json:"metadata,omitempty"`
	End         *int64 `json:"logEndOffset"`
	Lag         *int64 `json:"lag"`
	MemberID    string `json:"consumerId,omitempty"`
	Host        string `json:"host,omitempty"`
	ClientID    string `json:"clientId,omitempty"`
}

// offsetRows joins the partitions that a group has committed with those that
// its members are assigned, in the order of topics and partitions.
func offsetRows(d *groupDescription, c *committed, ends kadm.ListedOffsets) []offsetRow {
	rows := []offsetRow{}
	for i := range c.offsets {
		o := &c.offsets[i]
		row := offsetRow{Topic: o.Topic, Partition: o.Partition, Current: &o.At, Metadata: o.Metadata}
		if o.LeaderEpoch >= 0 {
			row.LeaderEpoch = &o.LeaderEpoch
		}
		rows = append(rows, row)
	}
	for i := range d.Members {
		m := &d.Members[i]
		for _, t := range m.Assignment {
			for _, n := range t.Partitions {
				at, ok := slices.BinarySearchFunc(rows, offsetRow{Topic: t.Topic, Partition: n}, compareRows)
				if !ok {
					rows = slices.Insert(rows, at, offsetRow{Topic: t.Topic, Partition: n})
				}
				rows[at].MemberID, rows[at].Host, rows[at].ClientID = m.MemberID, m.Host, m.ClientID
			}
		}
	}
	for i := range rows {
		row := &rows[i]
		end, ok := ends.Lookup(row.Topic, row.Partition)
		if !ok || end.Err != nil {
			continue
		}
		row.End = &end.Offset
		if row.Current != nil {
			// Below zero if the commit is beyond the end: worth seeing.
			lag := end.Offset - *row.Current
			row.Lag = &lag
		}
	}
	return rows
}

func compareRows(a, b offsetRow) int {
	return compareOffsets(kadm.Offset{Topic: a.Topic, Partition: a.Partition}, kadm.Offset{Topic: b.Topic, Partition: b.Partition})
}

func (v *groupDescribeVerb) Run(p *process) error {
	return v.chosen(p, &v.clientFlags, func(c *groupClient, names []string) error {
		descriptions, err := c.describe(names)
		if err != nil {
			return err
		}
		var groups []groupDescription
		var failed []error
		for _, name := range names {
			switch d := descriptions[name]; {
			case d.err != nil:
				failed = append(failed, d.err)
			case d.State == deadState:
				failed = append(failed, fmt.Errorf("group %s does not exist", cell(name)))
			default:
				groups = append(groups, d.groupDescription)
			}
		}
		switch {
		case v.Members:
			err = v.printMembers(p, groups)
		case v.State:
			err = v.printStates(p, groups)
		default:
			var unknown []error
			unknown, err = v.printOffsets(p, c, groups)
			failed = append(failed, unknown...)
		}
		if err != nil {
			return err
		}
		return summarize(p, failed, "groups could not be described")
	})
}

// groupWithOffsets is a group of describe --json.
type groupWithOffsets struct {
	groupDescription
	Offsets []offsetRow `json:"offsets"`
}

func (v *groupDescribeVerb) printOffsets(p *process, c *groupClient, groups []groupDescription) (failed []error, err error) {
	var names []string
	for i := range groups {
		names = append(names, groups[i].Group)
	}
	commits, err := c.committed(names)
	if err != nil {
		return nil, err
	}
	var topics []string
	for i := range groups {
		for _, m := range groups[i].Members {
			for _, t := range m.Assignment {
				topics = append(topics, t.Topic)
			}
		}
		for _, o := range commits[groups[i].Group].offsets {
			topics = append(topics, o.Topic)
		}
	}
	slices.Sort(topics)
	l, err := c.logs(slices.Compact(topics), -1)
	if err != nil {
		return nil, err
	}
	all := []groupWithOffsets{}
	for i := range groups {
		commit := commits[groups[i].Group]
		if commit.err != nil {
			failed = append(failed, commit.err)
		}
		all = append(all, groupWithOffsets{groups[i], offsetRows(&groups[i], &commit, l.ends)})
	}
	if v.JSON {
		return failed, printJSON(p.stdout, all)
	}
	for i := range all {
		separate(p.stdout, i)
		if !all[i].active() {
			fmt.Fprintf(p.stderr, "group %s has no active members\n", cell(all[i].Group))
		}
		if err := writeOffsets(p.stdout, &all[i], v.Verbose); err != nil {
			return failed, err
		}
	}
	return failed, nil
}

func writeOffsets(out io.Writer, g *groupWithOffsets, verbose bool) error {
	header := []string{"GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID", "HOST", "CLIENT-ID"}
	if verbose {
		header = slices.Insert(header, 3, "LEADER-EPOCH")
	}
	w := newTable(out, header...)
	for i := range g.Offsets {
		o := &g.Offsets[i]
		cells := []any{g.Group, o.Topic, o.Partition, o.Current, o.End, o.Lag, o.MemberID, o.Host, o.ClientID}
		if verbose {
			cells = slices.Insert(cells, 3, any(o.LeaderEpoch))
		}
		w.row(cells...)
	}
	return w.Flush()
}

func (v *groupDescribeVerb) printMembers(p *process, groups []groupDescription) error {
	if v.JSON {
		return printJSON(p.stdout, notNil(groups))
	}
	for i := range groups {
		separate(p.stdout, i)
		if len(groups[i].Members) == 0 {
			fmt.Fprintf(p.stderr, "group %s has no active members\n", cell(groups[i].Group))
		}
		if err := writeMembers(p.stdout, &groups[i], v.Verbose); err != nil {
			return err
		}
	}
	return nil
}

func writeMembers(out io.Writer, g *groupDescription, verbose bool) error {
	header := []string{"GROUP", "CONSUMER-ID", "GROUP-INSTANCE-ID", "HOST", "CLIENT-ID", "#PARTITIONS"}
	if verbose {
		header = append(header, "CURRENT-EPOCH", "CURRENT-ASSIGNMENT", "TARGET-ASSIGNMENT")
	}
	w := newTable(out, header...)
	for i := range g.Members {
		m := &g.Members[i]
		n := 0
		for _, t := range m.Assignment {
			n += len(t.Partitions)
		}
		cells := []any{g.Group, m.MemberID, m.InstanceID, m.Host, m.ClientID, n}
		if verbose {
			cells = append(cells, m.Epoch, assignmentText(m.Assignment), assignmentText(m.Target))
		}
		w.row(cells...)
	}
	return w.Flush()
}

// assignmentText is topic:0,1;other:0.
func assignmentText(topics []assignedTopic) string {
	texts := make([]string, len(topics))
	for i, t := range topics {
		numbers := make([]string, len(t.Partitions))
		for j, n := range t.Partitions {
			numbers[j] = strconv.Itoa(int(n))
		}
		texts[i] = t.Topic + ":" + strings.Join(numbers, ",")
	}
	return strings.Join(texts, ";")
}

// printStates prints one table of all groups: there is a line of each.
func (v *groupDescribeVerb) printStates(p *process, groups []groupDescription) error {
	if v.JSON {
		return printJSON(p.stdout, notNil(groups))
	}
	return writeStates(p.stdout, groups, v.Verbose)
}

func writeStates(out io.Writer, groups []groupDescription, verbose bool) error {
	header := []string{"GROUP", "COORDINATOR (ID)", "ASSIGNMENT-STRATEGY", "STATE", "#MEMBERS"}
	if verbose {
		header = append(header, "TYPE", "GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH")
	}
	w := newTable(out, header...)
	for i := range groups {
		g := &groups[i]
		coordinator := fmt.Sprintf("%s:%d (%d)", g.Coordinator.Host, g.Coordinator.Port, g.Coordinator.ID)
		cells := []any{g.Group, coordinator, g.Assignor, g.State, len(g.Members)}
		if verbose {
			cells = append(cells, g.Type, g.Epoch, g.AssignmentEpoch)
		}
		w.row(cells...)
	}
	return w.Flush()
}

// separate puts an empty line between the tables of groups.
func separate(w io.Writer, i int) {
	if i > 0 {
		fmt.Fprintln(w)
	}
}

// notNil makes JSON say [] and not null.
func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
