// Command librdkafka-go is the zoo's program for librdkafka, through its Go
// binding confluent-kafka-go: one source, one module file per version.
// ZOO_VERSION turns the question for the broker's versions off and names the
// one to speak instead (broker.version.fallback).
package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/quirelog/quire/conformance/clients/goclient"
)

func main() {
	c := goclient.Client{Produce: produce, Consume: consume}
	if goclient.Version() != "0.8.2.2" {
		c.Group = group
	}
	if goclient.Version() == "" { // The library has no other way to know these APIs.
		c.OffsetAt, c.CreateTopic = offsetAt, createTopic
		c.Checks = slices.Concat(checks, adminChecks, newerAdminChecks)
	} else {
		c.Checks = checks[:1]
	}
	goclient.Main(c)
}

// config returns the settings of every handle and those given, name by value.
func config(more ...string) *kafka.ConfigMap {
	c := kafka.ConfigMap{"bootstrap.servers": goclient.Bootstrap(), "client.id": "zoo"}
	if v := goclient.Version(); v != "" {
		c["api.version.request"], c["broker.version.fallback"] = "false", v
	}
	for i := 0; i < len(more); i += 2 {
		c[more[i]] = more[i+1]
	}
	return &c
}

func produce(ctx context.Context, topic string, partition int32, codec string, records []goclient.Record) error {
	return produceWith(ctx, config("compression.type", codec), topic, partition, records)
}

func produceWith(ctx context.Context, c *kafka.ConfigMap, topic string, partition int32, records []goclient.Record) error {
	// One batch for all records.
	(*c)["linger.ms"] = "200"
	producer, err := kafka.NewProducer(c)
	if err != nil {
		return err
	}
	defer producer.Close()
	reports := make(chan kafka.Event, len(records))
	for _, r := range records {
		m := &kafka.Message{
			TopicPartition: kafka.TopicPartition{Topic: &topic, Partition: partition},
			Key:            r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Millis),
		}
		if goclient.Carries("headers") {
			for _, h := range r.Headers {
				m.Headers = append(m.Headers, kafka.Header{Key: h.Name, Value: h.Value})
			}
		}
		if err := producer.Produce(m, reports); err != nil {
			return err
		}
	}
	for i := range records {
		select {
		case e := <-reports:
			if m, ok := e.(*kafka.Message); !ok || m.TopicPartition.Error != nil {
				return fmt.Errorf("record %d: %v", i, e)
			}
		case <-ctx.Done():
			return fmt.Errorf("%d of %d records are delivered: %w", i, len(records), context.Cause(ctx))
		}
	}
	return nil
}

func received(m *kafka.Message) goclient.Record {
	r := goclient.Record{Key: m.Key, Value: m.Value, Millis: -1}
	if m.TimestampType != kafka.TimestampNotAvailable {
		r.Millis = m.Timestamp.UnixMilli()
	}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, goclient.Header{Name: h.Key, Value: h.Value})
	}
	return r
}

// poll waits for the next event that is a message or the end of a partition.
func poll(ctx context.Context, c *kafka.Consumer) (kafka.Event, error) {
	var last error
	for ctx.Err() == nil {
		const waitMillis = 100
		switch e := c.Poll(waitMillis).(type) {
		case *kafka.Message:
			return e, e.TopicPartition.Error
		case kafka.PartitionEOF:
			return e, nil
		case kafka.Error:
			// Most pass: a topic that is not there yet, a lost connection.
			if last = e; e.IsFatal() {
				return nil, e
			}
		}
	}
	return nil, errors.Join(context.Cause(ctx), last)
}

func consume(ctx context.Context, topic string) (records []goclient.Record, err error) {
	c, err := kafka.NewConsumer(config("group.id", "unused", "enable.auto.commit", "false",
		"enable.partition.eof", "true", "auto.offset.reset", "error", "check.crcs", "true"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.Assign([]kafka.TopicPartition{{Topic: &topic, Partition: 0, Offset: kafka.OffsetBeginning}}); err != nil {
		return nil, err
	}
	for {
		e, err := poll(ctx, c)
		if err != nil {
			return records, err
		}
		m, ok := e.(*kafka.Message)
		if !ok {
			return records, nil
		}
		records = append(records, received(m))
	}
}

func group(ctx context.Context, group, topic string, count int) ([]goclient.Record, error) {
	return groupWith(ctx, config(), group, topic, count)
}

func groupWith(ctx context.Context, settings *kafka.ConfigMap, group, topic string, count int) (records []goclient.Record, err error) {
	for name, value := range map[string]string{"group.id": group, "enable.auto.commit": "false", "auto.offset.reset": "earliest"} {
		(*settings)[name] = value
	}
	c, err := kafka.NewConsumer(settings)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.SubscribeTopics([]string{topic}, nil); err != nil {
		return nil, err
	}
	for len(records) < count {
		e, err := poll(ctx, c)
		if err != nil {
			return records, fmt.Errorf("%d of %d records: %w", len(records), count, err)
		}
		if m, ok := e.(*kafka.Message); ok {
			records = append(records, received(m))
		}
	}
	_, err = c.Commit()
	return records, err
}

// millis is what is left of a check's time, in the library's unit.
func millis(ctx context.Context) int {
	end, _ := ctx.Deadline()
	return int(time.Until(end).Milliseconds())
}

func offsetAt(ctx context.Context, topic string, at int64) (int64, error) {
	c, err := kafka.NewConsumer(config("group.id", "unused"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	found, err := c.OffsetsForTimes([]kafka.TopicPartition{{Topic: &topic, Partition: 0, Offset: kafka.Offset(at)}}, millis(ctx))
	if err != nil {
		return 0, err
	}
	return int64(found[0].Offset), found[0].Error
}

// admin turns a call of the administrator into a check.
func admin(call func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error) func(context.Context, goclient.Env) error {
	return func(ctx context.Context, env goclient.Env) error {
		a, err := kafka.NewAdminClient(config())
		if err != nil {
			return err
		}
		defer a.Close()
		return call(ctx, a, env)
	}
}

func createTopic(ctx context.Context, topic string, partitions int) error {
	return admin(func(ctx context.Context, a *kafka.AdminClient, _ goclient.Env) error {
		return topicResult(a.CreateTopics(ctx, []kafka.TopicSpecification{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}}))
	})(ctx, goclient.Env{})
}

func topicResult(results []kafka.TopicResult, err error) error {
	if err != nil {
		return err
	}
	if len(results) != 1 {
		return fmt.Errorf("%d results for one topic", len(results))
	}
	if e := results[0].Error; e.Code() != kafka.ErrNoError {
		return e
	}
	return nil
}

// checks need no administrator; the first of them no version negotiation.
var checks = []goclient.Check{
	{Name: "metadata", Run: func(ctx context.Context, env goclient.Env) error {
		c, err := kafka.NewConsumer(config("group.id", "unused"))
		if err != nil {
			return err
		}
		defer c.Close()
		m, err := c.GetMetadata(nil, true, millis(ctx))
		if err != nil {
			return err
		}
		if t := m.Topics[env.Topic]; t.Error.Code() != kafka.ErrNoError || len(t.Partitions) != 1 || len(m.Brokers) == 0 {
			return fmt.Errorf("unexpected answer %+v", t)
		}
		low, high, err := c.QueryWatermarkOffsets(env.Topic, 0, millis(ctx))
		if want := int64(len(goclient.Canonical())); err == nil && (low != 0 || high != want) {
			return fmt.Errorf("offsets %d to %d, want 0 to %d", low, high, want)
		}
		return err
	}},
	{Name: "features", Run: features},
	{Name: "idempotent", Run: func(ctx context.Context, env goclient.Env) error {
		if err := produceWith(ctx, config("enable.idempotence", "true"), env.Fresh, 0, goclient.Canonical()); err != nil {
			return err
		}
		got, err := consume(ctx, env.Fresh)
		if err == nil && len(got) != len(goclient.Canonical()) {
			return fmt.Errorf("%d records read", len(got))
		}
		return err
	}},
}

var featureLine = regexp.MustCompile(`(Enabling|Disabling) feature (\w+)`)

// features asks the library which of its features the broker's versions turn
// on. One that is off is missed silently: no compression, no groups.
func features(ctx context.Context, env goclient.Env) error {
	logs := make(chan kafka.LogEvent, 1000)
	c := config("debug", "feature", "group.id", "unused")
	(*c)["go.logs.channel.enable"], (*c)["go.logs.channel"] = true, logs
	consumer, err := kafka.NewConsumer(c)
	if err != nil {
		return err
	}
	defer consumer.Close()
	if _, err := consumer.GetMetadata(&env.Topic, false, millis(ctx)); err != nil {
		return err
	}
	on, off := map[string]bool{}, []string{}
	for {
		select {
		case l := <-logs:
			switch m := featureLine.FindStringSubmatch(l.Message); {
			case m == nil:
			case m[1] == "Enabling":
				on[m[2]] = true
			default:
				off = append(off, m[2])
			}
			continue
		case <-time.After(time.Second): // The features come before the answer; their log is asynchronous.
		}
		break
	}
	if len(off) > 0 || len(on) == 0 {
		return fmt.Errorf("%d features are on; off: %s", len(on), strings.Join(off, " "))
	}
	return nil
}

var adminChecks = []goclient.Check{
	{Name: "admin-create-topic", Run: func(ctx context.Context, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 2); err != nil {
			return err
		}
		var again kafka.Error
		if err := createTopic(ctx, env.Fresh, 2); !errors.As(err, &again) || again.Code() != kafka.ErrTopicAlreadyExists {
			return fmt.Errorf("the same again: %v, want %v", err, kafka.ErrTopicAlreadyExists)
		}
		return nil
	}},
	{Name: "admin-delete-topic", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 1); err != nil {
			return err
		}
		return topicResult(a.DeleteTopics(ctx, []string{env.Fresh}))
	})},
	{Name: "admin-create-partitions", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 1); err != nil {
			return err
		}
		return topicResult(a.CreatePartitions(ctx, []kafka.PartitionsSpecification{{Topic: env.Fresh, IncreaseTo: 3}}))
	})},
	{Name: "admin-describe-configs", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		_, err := topicConfig(ctx, a, env.Topic, "retention.ms")
		return err
	})},
	{Name: "admin-alter-configs", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		return alterConfigs(ctx, a, env.Fresh, a.AlterConfigs, kafka.ConfigEntry{Name: "retention.ms", Value: "7200000"})
	})},
	{Name: "admin-cluster-id", Run: admin(func(ctx context.Context, a *kafka.AdminClient, _ goclient.Env) error {
		id, err := a.ClusterID(ctx)
		if err == nil && id == "" {
			return errors.New("the cluster's id is empty")
		}
		return err
	})},
}

func topicConfig(ctx context.Context, a *kafka.AdminClient, topic, name string) (string, error) {
	results, err := a.DescribeConfigs(ctx, []kafka.ConfigResource{{Type: kafka.ResourceTopic, Name: topic}})
	if err != nil {
		return "", err
	}
	if e := results[0].Error; e.Code() != kafka.ErrNoError {
		return "", e
	}
	entry, ok := results[0].Config[name]
	if !ok {
		return "", fmt.Errorf("%s is not among %d configs of %s", name, len(results[0].Config), topic)
	}
	return entry.Value, nil
}

// alterConfigs creates a topic, alters it by the call given and looks.
func alterConfigs(ctx context.Context, a *kafka.AdminClient, topic string,
	call func(context.Context, []kafka.ConfigResource, ...kafka.AlterConfigsAdminOption) ([]kafka.ConfigResourceResult, error),
	entry kafka.ConfigEntry,
) error {
	if err := createTopic(ctx, topic, 1); err != nil {
		return err
	}
	results, err := call(ctx, []kafka.ConfigResource{{Type: kafka.ResourceTopic, Name: topic, Config: []kafka.ConfigEntry{entry}}})
	if err != nil {
		return err
	}
	if e := results[0].Error; e.Code() != kafka.ErrNoError {
		return e
	}
	got, err := topicConfig(ctx, a, topic, entry.Name)
	if err == nil && got != entry.Value {
		return fmt.Errorf("%s is %s, want %s", entry.Name, got, entry.Value)
	}
	return err
}
