package main

import (
	"fmt"
	"maps"
	"slices"
)

type groupImportVerb struct {
	clientFlags
	File   string   `arg:"" help:"File of group export; - reads standard input."`
	Group  []string `sep:"none" placeholder:"GROUP" help:"Only this group of the file; repeatable."`
	DryRun bool     `help:"Only show the plan."`
	JSON   bool     `name:"json" help:"Print JSON."`
}

func (v *groupImportVerb) Run(p *process) error {
	file, err := readGroupsFile(v.File, p.stdin)
	if err != nil {
		return err
	}
	if err := file.only(v.Group); err != nil {
		return err
	}
	return v.groups(p, func(c *groupClient) error {
		in := &importInput{file: file}
		var names []string
		topics := map[string]bool{}
		for i := range file.Groups {
			names = append(names, file.Groups[i].Group)
			for j := range file.Groups[i].Topics {
				topics[file.Groups[i].Topics[j].Topic] = true
			}
		}
		var err error
		if in.described, err = c.describe(names); err != nil {
			return err
		}
		if in.committed, err = c.committed(names); err != nil {
			return err
		}
		if in.logs, err = c.logs(slices.Sorted(maps.Keys(topics)), -1); err != nil {
			return err
		}
		plan := planImport(in)
		if !v.DryRun {
			plan.execute(c)
		}
		err = plan.print(p, v.JSON)
		if !v.JSON {
			verb := "imported"
			if v.DryRun {
				verb = "would import"
			}
			groups := map[string]bool{}
			for i := range plan.Offsets {
				groups[plan.Offsets[i].Group] = true
			}
			fmt.Fprintf(p.stderr, "%s %d offsets of %d groups; skipped %d, failed %d\n", verb, len(plan.Offsets), len(groups), len(plan.Skipped), len(plan.Failed))
		}
		return err
	})
}

// importInput is all that planning an import needs.
type importInput struct {
	file      *groupsFile
	described map[string]described
	committed map[string]committed
	logs      *logs
}

// planImport decides what to commit. A group with members fails, since it would
// overwrite what is imported; topics and partitions that are not here are
// skipped, since groups keep offsets of what they have read long ago.
func planImport(in *importInput) *offsetChanges {
	plan := &offsetChanges{Offsets: []offsetChange{}}
	for i := range in.file.Groups {
		g := &in.file.Groups[i]
		d, c := in.described[g.Group], in.committed[g.Group]
		switch {
		case d.err != nil:
			plan.fail(g.Group, d.err)
			continue
		case d.active():
			plan.fail(g.Group, errActive(g.Group))
			continue
		case c.err != nil:
			plan.fail(g.Group, c.err)
			continue
		}
		for j := range g.Topics {
			in.planTopic(plan, g.Group, &g.Topics[j], &c)
		}
	}
	return plan
}

func (in *importInput) planTopic(plan *offsetChanges, group string, from *exportedTopic, c *committed) {
	t, ok := in.logs.topics[from.Topic]
	switch {
	case !ok:
		plan.skip(group, "topic %s does not exist here", from.Topic)
		return
	case t.Err != nil:
		plan.fail(group, fmt.Errorf("group %s: %w", cell(group), explain(from.Topic, t.Err, "")))
		return
	}
	// A leader epoch tells a client which history of a log its offset belongs to.
	// Epochs of another cluster tell it nonsense: it would refuse metadata with
	// lower ones as old, or find the log truncated and go back (KIP-320).
	sameLog := from.TopicID != "" && from.TopicID == topicIDText(t.ID)
	for i := range from.Partitions {
		p := &from.Partitions[i]
		n := *p.Partition
		if _, ok := t.Partitions[n]; !ok {
			plan.skip(group, "topic %s has no partition %d here", from.Topic, n)
			continue
		}
		change := offsetChange{Group: group, Topic: from.Topic, Partition: n, New: *p.Offset, leaderEpoch: -1, metadata: p.Metadata}
		if p.MetadataBase64 != nil {
			change.metadata = string(p.MetadataBase64)
		}
		if sameLog && p.LeaderEpoch != nil {
			change.leaderEpoch = *p.LeaderEpoch
		}
		if o, ok := c.lookup(from.Topic, n); ok {
			change.Current = &o.At
		}
		// The offset stays as it is: records may still be on their way here.
		if held, ok := in.outside(from.Topic, n, change.New); ok {
			plan.note("group %s, topic %s partition %d: offset %d is not in what it holds here, %s; copy the records before the group starts", cell(group), from.Topic, n, change.New, held)
		}
		plan.Offsets = append(plan.Offsets, change)
	}
}

// outside reports that a log does not hold an offset, and what it does.
func (in *importInput) outside(topic string, partition int32, offset int64) (held string, outside bool) {
	start, ok := in.logs.starts.Lookup(topic, partition)
	end, ok2 := in.logs.ends.Lookup(topic, partition)
	if !ok || !ok2 || start.Err != nil || end.Err != nil {
		return "", false
	}
	return fmt.Sprintf("%d to %d", start.Offset, end.Offset), offset < start.Offset || offset > end.Offset
}
