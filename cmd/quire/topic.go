package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/twmb/franz-go/pkg/kadm"
)

type topicVerb struct {
	Create   topicCreateVerb   `cmd:"" help:"Create topics."`
	List     topicListVerb     `cmd:"" help:"List topics."`
	Describe topicDescribeVerb `cmd:"" help:"Show partitions, offsets and configs of topics."`
	Alter    topicAlterVerb    `cmd:"" help:"Add partitions, set and reset configs."`
	Delete   topicDeleteVerb   `cmd:"" help:"Delete topics and their records."`
	Migrate  topicMigrateVerb  `cmd:"" help:"Move topics to the storage tier of new ledgers while they are in use."`
}

type topicCreateVerb struct {
	clientFlags
	Topics            []string          `arg:"" name:"topic" help:"Names."`
	Partitions        int32             `short:"p" default:"-1" help:"Number of partitions; -1 is the server's default."`
	ReplicationFactor int16             `short:"r" default:"-1" help:"Replication factor; -1 is the server's default."`
	Set               map[string]string `name:"config" short:"c" mapsep:"none" placeholder:"KEY=VALUE" help:"Topic config; repeatable."`
}

func (v *topicCreateVerb) Run(p *process) error {
	return v.admin(p, func(ctx context.Context, a *kadm.Client) error {
		configs := make(map[string]*string, len(v.Set))
		for k, value := range v.Set {
			configs[k] = kadm.StringPtr(value)
		}
		created, err := a.CreateTopics(ctx, v.Partitions, v.ReplicationFactor, configs, v.Topics...)
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range v.Topics {
			c := created[name]
			if c.Err != nil {
				errs = append(errs, explain(name, c.Err, c.ErrMessage))
				continue
			}
			fmt.Fprintf(p.stdout, "created %s, %d partitions\n", name, c.NumPartitions)
		}
		return joinLine(errs)
	})
}

type topicListVerb struct {
	clientFlags
	Internal bool `help:"Internal topics too."`
}

func (v *topicListVerb) Run(p *process) error {
	return v.admin(p, func(ctx context.Context, a *kadm.Client) error {
		list := a.ListTopics
		if v.Internal {
			list = a.ListTopicsWithInternal
		}
		topics, err := list(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(p.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "TOPIC\tPARTITIONS\tREPLICAS")
		for _, t := range topics.Sorted() {
			fmt.Fprintf(w, "%s\t%d\t%d\n", t.Topic, len(t.Partitions), t.Partitions.NumReplicas())
		}
		return w.Flush()
	})
}

type topicDescribeVerb struct {
	clientFlags
	Topics []string `arg:"" name:"topic" help:"Names."`
}

func (v *topicDescribeVerb) Run(p *process) error {
	return v.admin(p, func(ctx context.Context, a *kadm.Client) error {
		topics, err := a.ListTopicsWithInternal(ctx, v.Topics...)
		if err != nil {
			return err
		}
		starts, err := a.ListStartOffsets(ctx, v.Topics...)
		if err != nil && len(starts) == 0 {
			return err
		}
		ends, err := a.ListEndOffsets(ctx, v.Topics...)
		if err != nil && len(ends) == 0 {
			return err
		}
		configs, err := a.DescribeTopicConfigs(ctx, v.Topics...)
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range v.Topics {
			t := topics[name]
			if t.Err != nil {
				errs = append(errs, explain(name, t.Err, ""))
				continue
			}
			fmt.Fprintf(p.stdout, "topic %s, id %s\n", name, base64.RawURLEncoding.EncodeToString(t.ID[:]))
			w := tabwriter.NewWriter(p.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "  PARTITION\tLEADER\tEPOCH\tSTART\tEND")
			for _, d := range t.Partitions.Sorted() {
				start, _ := starts.Lookup(name, d.Partition)
				end, _ := ends.Lookup(name, d.Partition)
				fmt.Fprintf(w, "  %d\t%d\t%d\t%d\t%d\n", d.Partition, d.Leader, d.LeaderEpoch, start.Offset, end.Offset)
			}
			w.Flush()
			resource, err := configs.On(name, nil)
			if err == nil {
				err = resource.Err
			}
			if err != nil {
				errs = append(errs, explain(name, err, resource.ErrMessage))
				continue
			}
			for _, c := range resource.Configs {
				if c.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
					fmt.Fprintf(p.stdout, "  %s=%s\n", c.Key, c.MaybeValue())
				}
			}
		}
		return joinLine(errs)
	})
}

type topicAlterVerb struct {
	clientFlags
	Topic      string            `arg:"" help:"Name."`
	Partitions int               `short:"p" help:"New number of partitions; it can only grow."`
	Set        map[string]string `name:"config" short:"c" mapsep:"none" placeholder:"KEY=VALUE" help:"Topic config to set; repeatable."`
	Reset      []string          `name:"delete-config" placeholder:"KEY" help:"Topic config to put back to its default; repeatable."`
}

func (v *topicAlterVerb) Run(p *process) error {
	if v.Partitions == 0 && len(v.Set) == 0 && len(v.Reset) == 0 {
		return errors.New("nothing to alter: name --partitions, --config or --delete-config")
	}
	return v.admin(p, func(ctx context.Context, a *kadm.Client) error {
		if v.Partitions != 0 {
			grown, err := a.UpdatePartitions(ctx, v.Partitions, v.Topic)
			if err != nil {
				return explain(v.Topic, err, "")
			}
			if g := grown[v.Topic]; g.Err != nil {
				return explain(v.Topic, g.Err, g.ErrMessage)
			}
			fmt.Fprintf(p.stdout, "%s has %d partitions\n", v.Topic, v.Partitions)
		}
		var changes []kadm.AlterConfig
		for _, k := range slices.Sorted(maps.Keys(v.Set)) {
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: kadm.StringPtr(v.Set[k])})
		}
		for _, k := range v.Reset {
			changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k})
		}
		if len(changes) == 0 {
			return nil
		}
		altered, err := a.AlterTopicConfigs(ctx, changes, v.Topic)
		if err != nil {
			return explain(v.Topic, err, "")
		}
		one, err := altered.On(v.Topic, nil)
		if err == nil {
			err = one.Err
		}
		if err != nil {
			return explain(v.Topic, err, one.ErrMessage)
		}
		_, err = fmt.Fprintf(p.stdout, "altered %s\n", v.Topic)
		return err
	})
}

type topicDeleteVerb struct {
	clientFlags
	Topics []string `arg:"" name:"topic" help:"Names."`
}

func (v *topicDeleteVerb) Run(p *process) error {
	return v.admin(p, func(ctx context.Context, a *kadm.Client) error {
		deleted, err := a.DeleteTopics(ctx, v.Topics...)
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range v.Topics {
			d := deleted[name]
			if d.Err != nil {
				errs = append(errs, explain(name, d.Err, d.ErrMessage))
				continue
			}
			fmt.Fprintf(p.stdout, "deleted %s\n", name)
		}
		return joinLine(errs)
	})
}

// joinLine joins errors into one line, nil if there are none.
func joinLine(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}
