// Command sarama is the zoo's program for github.com/IBM/sarama and its older
// self, github.com/Shopify/sarama: one source for all, one module file per
// version. ZOO_VERSION is the protocol version that the library is told to
// speak.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/quirelog/quire/conformance/clients/goclient"
)

var version sarama.KafkaVersion

func main() {
	var err error
	if version, err = sarama.ParseKafkaVersion(goclient.Version()); err != nil {
		fmt.Fprintln(os.Stderr, "ZOO_VERSION:", err)
		os.Exit(1)
	}
	sarama.Logger = log.New(os.Stderr, "", log.Lmicroseconds)
	c := goclient.Client{Produce: produce, Consume: consume}
	if version.IsAtLeast(sarama.V0_10_1_0) {
		c.OffsetAt, c.CreateTopic = offsetAt, createTopic
	}
	if version.IsAtLeast(sarama.V0_10_2_0) { // The library's own limit.
		c.Group = group
	} else {
		c.Resume = resume
	}
	for _, check := range slices.Concat(checks, newerChecks) {
		if version.IsAtLeast(check.since) {
			c.Checks = append(c.Checks, goclient.Check{Name: check.name, Run: check.run})
		}
	}
	goclient.Main(c)
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = version
	c.ClientID = "zoo"
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Return.Errors = true
	return c
}

// codecs in the order of their numbers; old versions of the library name fewer.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

func produce(_ context.Context, topic string, partition int32, codec string, records []goclient.Record) error {
	return produceWith(config(), topic, partition, codec, records)
}

func produceWith(c *sarama.Config, topic string, partition int32, codec string, records []goclient.Record) error {
	c.Producer.Compression = sarama.CompressionCodec(slices.Index(codecs, codec))
	// One message set for all records.
	c.Producer.Flush.Messages = len(records)
	c.Producer.Flush.Frequency = time.Second
	producer, err := sarama.NewSyncProducer([]string{goclient.Bootstrap()}, c)
	if err != nil {
		return err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for _, r := range records {
		m := &sarama.ProducerMessage{Topic: topic, Partition: partition}
		if r.Key != nil {
			m.Key = sarama.ByteEncoder(r.Key)
		}
		if r.Value != nil {
			m.Value = sarama.ByteEncoder(r.Value)
		}
		if goclient.Carries("timestamps") {
			m.Timestamp = time.UnixMilli(r.Millis)
		}
		if goclient.Carries("headers") {
			for _, h := range r.Headers {
				m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Name), Value: h.Value})
			}
		}
		messages = append(messages, m)
	}
	err = producer.SendMessages(messages)
	var each sarama.ProducerErrors
	if errors.As(err, &each) && len(each) > 0 {
		return fmt.Errorf("%d of %d records: %w", len(each), len(records), each[0].Err)
	}
	return err
}

func received(m *sarama.ConsumerMessage) goclient.Record {
	r := goclient.Record{Key: m.Key, Value: m.Value, Millis: -1}
	if !m.Timestamp.IsZero() {
		r.Millis = m.Timestamp.UnixMilli()
	}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, goclient.Header{Name: string(h.Key), Value: h.Value})
	}
	return r
}

func client() (sarama.Client, error) {
	return sarama.NewClient([]string{goclient.Bootstrap()}, config())
}

func consume(ctx context.Context, topic string) ([]goclient.Record, error) {
	client, err := client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	end, err := client.GetOffset(topic, 0, sarama.OffsetNewest)
	if err != nil {
		return nil, err
	}
	return read(ctx, client, topic, sarama.OffsetOldest, end)
}

// read reads partition 0 from an offset up to an end.
func read(ctx context.Context, client sarama.Client, topic string, from, end int64) ([]goclient.Record, error) {
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	p, err := consumer.ConsumePartition(topic, 0, from)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var records []goclient.Record
	for next := from; next < end; {
		select {
		case m := <-p.Messages():
			records = append(records, received(m))
			next = m.Offset + 1
		case err := <-p.Errors():
			return records, err
		case <-ctx.Done():
			return records, fmt.Errorf("%w at offset %d of %d", context.Cause(ctx), next, end)
		}
	}
	return records, nil
}

func offsetAt(_ context.Context, topic string, millis int64) (int64, error) {
	client, err := client()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	return client.GetOffset(topic, 0, millis)
}

// member reads count records and keeps the positions of them for the commit.
type member struct {
	mu      sync.Mutex
	records []goclient.Record
	count   int
	full    context.CancelFunc
}

func (*member) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, ok := <-claim.Messages():
			if !ok || !m.take(message) {
				return nil
			}
			s.MarkMessage(message, "")
		case <-s.Context().Done():
			return nil
		}
	}
}

// take returns false when the member has enough.
func (m *member) take(message *sarama.ConsumerMessage) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.records) == m.count {
		return false
	}
	m.records = append(m.records, received(message))
	if len(m.records) == m.count {
		m.full()
	}
	return true
}

func group(ctx context.Context, group, topic string, count int) ([]goclient.Record, error) {
	g, err := sarama.NewConsumerGroup([]string{goclient.Bootstrap()}, group, config())
	if err != nil {
		return nil, err
	}
	var failures []error
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for err := range g.Errors() {
			failures = append(failures, err)
		}
	}()
	reading, full := context.WithCancel(ctx)
	defer full()
	m := &member{count: count, full: full}
	for reading.Err() == nil && err == nil {
		err = g.Consume(reading, []string{topic}, m)
	}
	err = errors.Join(err, g.Close())
	<-collected
	if len(m.records) < count {
		return m.records, errors.Join(append(failures, err, fmt.Errorf("%d of %d records", len(m.records), count))...)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return m.records, err
}

// resume is what stood in for groups before the library had them: offsets that
// are committed without members.
func resume(ctx context.Context, group, topic string, count int) ([]goclient.Record, error) {
	client, err := client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	manager, err := sarama.NewOffsetManagerFromClient(group, client)
	if err != nil {
		return nil, err
	}
	offsets, err := manager.ManagePartition(topic, 0)
	if err != nil {
		return nil, errors.Join(err, manager.Close())
	}
	next, _ := offsets.NextOffset()
	from := max(next, 0) // The initial position is OffsetOldest, below zero.
	records, err := read(ctx, client, topic, from, from+int64(count))
	offsets.MarkOffset(from+int64(count), "")
	return records, errors.Join(err, offsets.Close(), manager.Close())
}

// A check is one that depends on the protocol version.
type check struct {
	name  string
	since sarama.KafkaVersion
	run   func(context.Context, goclient.Env) error
}

// admin turns a call of the cluster's administrator into a check.
func admin(call func(a sarama.ClusterAdmin, env goclient.Env) error) func(context.Context, goclient.Env) error {
	return func(_ context.Context, env goclient.Env) error {
		a, err := sarama.NewClusterAdmin([]string{goclient.Bootstrap()}, config())
		if err != nil {
			return err
		}
		return errors.Join(call(a, env), a.Close())
	}
}

func createTopic(ctx context.Context, topic string, partitions int) error {
	return admin(func(a sarama.ClusterAdmin, _ goclient.Env) error {
		return a.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: int32(partitions), ReplicationFactor: 1}, false)
	})(ctx, goclient.Env{})
}

var checks = []check{
	{"metadata", sarama.V0_8_2_0, func(_ context.Context, env goclient.Env) error {
		client, err := client()
		if err != nil {
			return err
		}
		defer client.Close()
		topics, err := client.Topics()
		if err != nil {
			return err
		}
		if !slices.Contains(topics, env.Topic) {
			return fmt.Errorf("%s is not among %d topics", env.Topic, len(topics))
		}
		partitions, err := client.Partitions(env.Topic)
		if err == nil && len(partitions) != 1 {
			return fmt.Errorf("%s has partitions %v", env.Topic, partitions)
		}
		return err
	}},
	{"admin-create-topic", sarama.V0_10_1_0, func(ctx context.Context, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 2); err != nil {
			return err
		}
		// The versions wrap the code differently.
		err := createTopic(ctx, env.Fresh, 2)
		if err == nil || !strings.Contains(err.Error(), sarama.ErrTopicAlreadyExists.Error()) {
			return fmt.Errorf("the same again: %v, want %w", err, sarama.ErrTopicAlreadyExists)
		}
		return nil
	}},
	{"admin-delete-topic", sarama.V0_10_1_0, func(ctx context.Context, env goclient.Env) error {
		return cmp.Or(createTopic(ctx, env.Fresh, 1), admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
			return a.DeleteTopic(env.Fresh)
		})(ctx, env))
	}},
	{"admin-create-partitions", sarama.V1_0_0_0, func(ctx context.Context, env goclient.Env) error {
		return cmp.Or(createTopic(ctx, env.Fresh, 1), admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
			return a.CreatePartitions(env.Fresh, 3, nil, false)
		})(ctx, env))
	}},
	{"admin-describe-configs", sarama.V0_11_0_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		_, err := topicConfig(a, env.Topic, "retention.ms")
		return err
	})},
	{"admin-alter-configs", sarama.V0_11_0_0, func(ctx context.Context, env goclient.Env) error {
		return cmp.Or(createTopic(ctx, env.Fresh, 1), admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
			want := "7200000"
			if err := a.AlterConfig(sarama.TopicResource, env.Fresh, map[string]*string{"retention.ms": &want}, false); err != nil {
				return err
			}
			got, err := topicConfig(a, env.Fresh, "retention.ms")
			if err == nil && got != want {
				return fmt.Errorf("retention.ms is %s, want %s", got, want)
			}
			return err
		})(ctx, env))
	}},
	{"admin-delete-records", sarama.V0_11_0_0, func(ctx context.Context, env goclient.Env) error {
		if err := produce(ctx, env.Fresh, 0, "none", goclient.Canonical()); err != nil {
			return err
		}
		const first = 7
		err := admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
			return a.DeleteRecords(env.Fresh, map[int32]int64{0: first})
		})(ctx, env)
		if err != nil {
			return err
		}
		client, err := client()
		if err != nil {
			return err
		}
		defer client.Close()
		offset, err := client.GetOffset(env.Fresh, 0, sarama.OffsetOldest)
		if err == nil && offset != first {
			return fmt.Errorf("the first offset is %d, want %d", offset, first)
		}
		return err
	}},
}

func topicConfig(a sarama.ClusterAdmin, topic, name string) (string, error) {
	entries, err := a.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.Name == name {
			return e.Value, nil
		}
	}
	return "", fmt.Errorf("%s is not among %d configs of %s", name, len(entries), topic)
}
