package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
)

type groupDeleteOffsetsVerb struct {
	clientFlags
	groupFlags
	Topic []string `sep:"none" required:"" placeholder:"TOPIC[:P,P]" help:"Topic that no member subscribes to, or some of its partitions; repeatable."`
}

func (v *groupDeleteOffsetsVerb) Run(p *process) error {
	scope, err := parseScope(v.Topic)
	if err != nil {
		return err
	}
	return v.chosen(p, &v.clientFlags, func(c *groupClient, names []string) error {
		commits, err := c.committed(names)
		if err != nil {
			return err
		}
		w := newTable(p.stdout, "GROUP", "TOPIC", "PARTITION", "DELETED-OFFSET")
		var failed []error
		for _, name := range names {
			commit := commits[name]
			offsets, err := scope.committed(name, &commit)
			if err != nil {
				failed = append(failed, err)
				continue
			}
			refused := c.deleteOffsets(name, offsets)
			for i := range offsets {
				o := &offsets[i]
				if err, ok := refused.Lookup(o.Topic, o.Partition); ok {
					failed = append(failed, explainGroup(fmt.Sprintf("%s, topic %s partition %d", name, o.Topic, o.Partition), err, ""))
					continue
				}
				w.row(o.Group, o.Topic, o.Partition, &o.At)
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		return summarize(p, failed, "offsets were not deleted")
	})
}

// groupOffset is an offset that a group has committed.
type groupOffset struct {
	Group string
	kadm.Offset
}

// committed are the offsets of the scope that a group has committed. One that is
// named and was not committed is an error: it may have been misspelt.
func (s partitionScope) committed(group string, c *committed) ([]groupOffset, error) {
	if c.err != nil {
		return nil, c.err
	}
	var found []groupOffset
	for _, topic := range slices.Sorted(maps.Keys(s)) {
		before := len(found)
		for _, o := range c.offsets {
			if o.Topic == topic && (s[topic] == nil || slices.Contains(s[topic], o.Partition)) {
				found = append(found, groupOffset{group, o})
			}
		}
		if len(found) == before {
			return nil, fmt.Errorf("group %s has committed nothing for topic %s", cell(group), cell(topic))
		}
		for _, n := range s[topic] {
			if _, ok := c.lookup(topic, n); !ok {
				return nil, fmt.Errorf("group %s has committed nothing for topic %s partition %d", cell(group), cell(topic), n)
			}
		}
	}
	return found, nil
}

// deleteOffsets deletes offsets of a group and returns why some were not.
func (c *groupClient) deleteOffsets(group string, offsets []groupOffset) kadm.DeleteOffsetsResponses {
	refused := kadm.DeleteOffsetsResponses{}
	for chunk := range slices.Chunk(offsets, commitsAtOnce) {
		set := kadm.TopicsSet{}
		for i := range chunk {
			set.Add(chunk[i].Topic, chunk[i].Partition)
		}
		var answers kadm.DeleteOffsetsResponses
		failed := c.within(func(ctx context.Context) (err error) {
			answers, err = c.admin.DeleteOffsets(ctx, group, set)
			return err
		})
		for i := range chunk {
			o := &chunk[i]
			err, ok := answers.Lookup(o.Topic, o.Partition)
			if !ok {
				err = missing(group, failed)
			}
			if err != nil {
				if refused[o.Topic] == nil {
					refused[o.Topic] = map[int32]error{}
				}
				refused[o.Topic][o.Partition] = err
			}
		}
	}
	return refused
}
