package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// churn leads topics through their life, one after the other: made, written, grown,
// configured, read back, deleted, and every other one made again by the same name.
// What it was told must hold; a step whose outcome is unknown ends the topic's part
// in the run.
type churn struct {
	run    *run
	rounds int
	found  []string
}

const (
	churnRecords = 10
	churnStep    = 30 * time.Second
	churnPause   = 300 * time.Millisecond
)

func (c *churn) loop(ctx context.Context) {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.run.cluster.addr), kgo.AlwaysRetryEOF(), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.UnknownTopicRetries(-1), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		c.found = append(c.found, "topic changes: "+err.Error())
		return
	}
	defer client.Close()
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("churn-%d", n)
		if err := c.life(ctx, client, name); err == nil && n%2 == 1 {
			c.life(ctx, client, name)
		}
		wait(ctx, churnPause)
	}
}

// errUnknown ends a topic's part in the run: nothing is certain any more.
var errUnknown = errors.New("outcome unknown")

func (c *churn) report(name, format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf("topic %s at %.1f s: ", name, time.Since(c.run.epoch).Seconds())+fmt.Sprintf(format, args...))
}

func (c *churn) life(ctx context.Context, client *kgo.Client, name string) error {
	admin := kadm.NewClient(client)
	step := func(do func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, churnStep)
		defer cancel()
		if err := do(ctx); err != nil {
			return errors.Join(errUnknown, err)
		}
		return nil
	}
	if err := step(func(ctx context.Context) error {
		created, err := admin.CreateTopic(ctx, 1, 1, nil, name)
		return errors.Join(err, created.Err)
	}); err != nil {
		return err
	}
	if err := c.write(ctx, name, 0); err != nil {
		return err
	}
	if err := step(func(ctx context.Context) error {
		grown, err := admin.UpdatePartitions(ctx, 3, name)
		return errors.Join(err, grown.Error())
	}); err != nil {
		return err
	}
	if err := c.write(ctx, name, 2); err != nil {
		return err
	}
	if err := step(func(ctx context.Context) error {
		changed, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("86400000")}}, name)
		for _, r := range changed {
			err = errors.Join(err, r.Err)
		}
		return err
	}); err != nil {
		return err
	}
	// A server that cannot reach etcd tells what it knows: in the end all know all.
	var last string
	if err := step(func(ctx context.Context) error {
		for {
			if last = describe(ctx, admin, name); last == "" {
				return nil
			}
			wait(ctx, 100*time.Millisecond)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}); err != nil {
		if ctx.Err() == nil {
			c.run.plan.logf("topic %s, grown to 3 partitions and configured: %s", name, last)
		}
		return err
	}
	if err := step(func(ctx context.Context) error {
		ends, err := admin.ListEndOffsets(ctx, name)
		if err != nil {
			return err
		}
		for p, want := range map[int32]int64{0: churnRecords, 1: 0, 2: churnRecords} {
			if o, ok := ends.Lookup(name, p); ok && o.Err == nil && o.Offset != want {
				c.report(name, "partition %d ends at %d, want %d", p, o.Offset, want)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := step(func(ctx context.Context) error {
		deleted, err := admin.DeleteTopic(ctx, name)
		return errors.Join(err, deleted.Err)
	}); err != nil {
		return err
	}
	client.PurgeTopicsFromClient(name)
	c.rounds++
	return nil
}

// describe says what a topic is told to be, if that is not what it was made.
func describe(ctx context.Context, admin *kadm.Client, name string) string {
	const partitions, retention = 3, "86400000"
	topics, err := admin.ListTopics(ctx, name)
	if err == nil {
		err = topics[name].Err
	}
	if err != nil {
		return err.Error()
	}
	if n := len(topics[name].Partitions); n != partitions {
		return fmt.Sprintf("%d partitions", n)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, name)
	if err != nil {
		return err.Error()
	}
	for _, t := range configs {
		for _, kv := range t.Configs {
			if kv.Key == "retention.ms" && kv.MaybeValue() == retention {
				return ""
			}
		}
	}
	return "retention.ms is not what it was set to"
}

// write sends records to a partition that was made and is empty: they must be
// taken, at the offsets from 0 on. It has a client of its own, so that what is not
// taken in time is given up with it.
func (c *churn) write(ctx context.Context, name string, partition int32) error {
	own, err := kgo.NewClient(kgo.SeedBrokers(c.run.cluster.addr), kgo.AlwaysRetryEOF(), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.UnknownTopicRetries(-1), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }))
	if err != nil {
		return err
	}
	defer own.Close()
	var records []*kgo.Record
	for i := range churnRecords {
		records = append(records, &kgo.Record{Topic: name, Partition: partition, Value: fmt.Appendf(nil, "%s %d %d", name, partition, i)})
	}
	writing, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	err = own.ProduceSync(writing, records...).FirstErr()
	switch {
	case ctx.Err() != nil:
		return errUnknown
	case err != nil:
		// What is no answer of a server may be due to one that cannot reach etcd and
		// tells the topic as it was.
		var answer *kerr.Error
		if errors.As(err, &answer) && !answer.Retriable {
			c.report(name, "records to partition %d, which was made, fail: %v", partition, err)
		}
		return errors.Join(errUnknown, err)
	}
	for i, r := range records {
		if r.Offset != int64(i) {
			c.report(name, "record %d of the empty partition %d was acknowledged at offset %d", i, partition, r.Offset)
			return errUnknown
		}
	}
	return nil
}
