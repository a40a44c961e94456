// Command segmentio is the zoo's program for github.com/segmentio/kafka-go: one
// source, one module file per version.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quirelog/quire/conformance/clients/goclient"
	"github.com/segmentio/kafka-go"
)

func main() {
	goclient.Main(goclient.Client{
		Produce: produce, Consume: consume, Group: group, CreateTopic: createTopic, OffsetAt: offsetAt,
		Checks: slices.Concat(checks, newerChecks),
	})
}

func produce(ctx context.Context, topic string, partition int32, codec string, records []goclient.Record) error {
	settings := kafka.WriterConfig{
		Brokers: []string{goclient.Bootstrap()}, Topic: topic,
		Balancer:     kafka.BalancerFunc(func(kafka.Message, ...int) int { return int(partition) }),
		RequiredAcks: -1,
		// One batch for all records.
		BatchSize: len(records), BatchTimeout: time.Second, QueueCapacity: len(records),
	}
	setCodec(&settings, codec)
	w := kafka.NewWriter(settings)
	var messages []kafka.Message
	for _, r := range records {
		m := kafka.Message{Key: r.Key, Value: r.Value, Time: time.UnixMilli(r.Millis)}
		setHeaders(&m, r.Headers)
		messages = append(messages, m)
	}
	return errors.Join(w.WriteMessages(ctx, messages...), w.Close())
}

func received(m kafka.Message) goclient.Record {
	return goclient.Record{Key: m.Key, Value: m.Value, Millis: m.Time.UnixMilli(), Headers: headers(m)}
}

// leader turns a call on a connection to a partition's leader into a function.
func leader(ctx context.Context, topic string, partition int, call func(*kafka.Conn) error) error {
	c, err := kafka.DialLeader(ctx, "tcp", goclient.Bootstrap(), topic, partition)
	if err != nil {
		return err
	}
	end, _ := ctx.Deadline()
	return errors.Join(cmp.Or(c.SetDeadline(end), call(c)), c.Close())
}

// broker does so for a connection that knows no topic.
func broker(ctx context.Context, call func(*kafka.Conn) error) error {
	c, err := kafka.DialContext(ctx, "tcp", goclient.Bootstrap())
	if err != nil {
		return err
	}
	end, _ := ctx.Deadline()
	return errors.Join(cmp.Or(c.SetDeadline(end), call(c)), c.Close())
}

func consume(ctx context.Context, topic string) ([]goclient.Record, error) {
	var end int64
	err := leader(ctx, topic, 0, func(c *kafka.Conn) (err error) {
		end, err = c.ReadLastOffset()
		return err
	})
	if err != nil {
		return nil, err
	}
	r := reader(kafka.ReaderConfig{Topic: topic, Partition: 0})
	if err := r.SetOffset(kafka.FirstOffset); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	var records []goclient.Record
	for next := int64(0); next < end; {
		m, err := r.FetchMessage(ctx)
		if err != nil {
			return records, errors.Join(fmt.Errorf("at offset %d of %d: %w", next, end, err), r.Close())
		}
		records = append(records, received(m))
		next = m.Offset + 1
	}
	return records, r.Close()
}

func reader(settings kafka.ReaderConfig) *kafka.Reader {
	settings.Brokers = []string{goclient.Bootstrap()}
	settings.MinBytes, settings.MaxBytes, settings.MaxWait = 1, 1<<20, 500*time.Millisecond
	return kafka.NewReader(settings)
}

func group(ctx context.Context, group, topic string, count int) (records []goclient.Record, err error) {
	// The old version does not always leave: its successor waits for its session.
	r := reader(kafka.ReaderConfig{GroupID: group, Topic: topic,
		SessionTimeout: 6 * time.Second, RebalanceTimeout: 6 * time.Second, HeartbeatInterval: time.Second})
	defer func() { err = errors.Join(err, r.Close()) }()
	var messages []kafka.Message
	for len(messages) < count {
		m, err := r.FetchMessage(ctx)
		if err != nil {
			return records, fmt.Errorf("%d of %d records: %w", len(records), count, err)
		}
		messages = append(messages, m)
		records = append(records, received(m))
	}
	return records, r.CommitMessages(ctx, messages...)
}

func offsetAt(ctx context.Context, topic string, millis int64) (offset int64, err error) {
	err = leader(ctx, topic, 0, func(c *kafka.Conn) (err error) {
		offset, err = c.ReadOffset(time.UnixMilli(millis))
		return err
	})
	return offset, err
}

func createTopic(ctx context.Context, topic string, partitions int) error {
	return broker(ctx, func(c *kafka.Conn) error {
		return c.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1})
	})
}

var checks = []goclient.Check{
	{Name: "metadata", Run: func(ctx context.Context, env goclient.Env) error {
		return broker(ctx, func(c *kafka.Conn) error {
			partitions, err := c.ReadPartitions(env.Topic)
			if err == nil && (len(partitions) != 1 || partitions[0].Leader.Host == "") {
				return fmt.Errorf("unexpected answer %+v", partitions)
			}
			return err
		})
	}},
	{Name: "admin-create-topic", Run: func(ctx context.Context, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 2); err != nil {
			return err
		}
		return createTopic(ctx, env.Fresh, 2) // The library takes "exists" for done.
	}},
	{Name: "admin-delete-topic", Run: func(ctx context.Context, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 1); err != nil {
			return err
		}
		return broker(ctx, func(c *kafka.Conn) error { return c.DeleteTopics(env.Fresh) })
	}},
}
