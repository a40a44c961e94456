package clients

import (
	"context"
	"testing"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

var librdkafkaMembers = []memberKind{
	{library: "librdkafka", protocol: "classic", assignor: "range", static: true, start: startLibrdkafka, short: true},
	{library: "librdkafka", protocol: "classic", assignor: "roundrobin", static: true, start: startLibrdkafka},
	{library: "librdkafka", protocol: "classic", assignor: "cooperative-sticky", static: true, start: startLibrdkafka, short: true},
	{library: "librdkafka", protocol: "consumer", assignor: "uniform", static: true, start: startLibrdkafka848, short: true},
	{library: "librdkafka", protocol: "consumer", assignor: "range", static: true, start: startLibrdkafka848},
}

func startLibrdkafka(t *testing.T, o memberOptions) *member {
	return startLibrdkafkaWith(t, o, kafka.ConfigMap{
		"partition.assignment.strategy": o.assignor,
		"heartbeat.interval.ms":         int(memberHeartbeat.Milliseconds()),
		"session.timeout.ms":            int(memberSession.Milliseconds()),
	})
}

func startLibrdkafka848(t *testing.T, o memberOptions) *member {
	return startLibrdkafkaWith(t, o, kafka.ConfigMap{"group.protocol": "consumer", "group.remote.assignor": o.assignor})
}

func startLibrdkafkaWith(t *testing.T, o memberOptions, config kafka.ConfigMap) *member {
	t.Helper()
	m := newMember(t, "librdkafka "+o.instance)
	for name, value := range map[string]string{
		"bootstrap.servers": broker.Addr(), "group.id": o.group, "auto.offset.reset": "earliest", "enable.auto.commit": "false",
		"fetch.wait.max.ms": "250", "group.instance.id": o.instance,
	} {
		if value != "" {
			config[name] = value
		}
	}
	c, err := kafka.NewConsumer(&config)
	if err != nil {
		t.Fatal(err)
	}
	ids := func(parts []kafka.TopicPartition) []int32 {
		var ids []int32
		for _, p := range parts {
			ids = append(ids, p.Partition)
		}
		return ids
	}
	// The binding's own default changes the assignment after each callback, in
	// the way that the protocol demands: whole, or by increments.
	rebalanced := func(_ *kafka.Consumer, event kafka.Event) error {
		switch e := event.(type) {
		case kafka.AssignedPartitions:
			m.assign(ids(e.Partitions)...)
		case kafka.RevokedPartitions:
			m.revoke(ids(e.Partitions)...)
		}
		return nil
	}
	if err := c.Subscribe(o.topic, rebalanced); err != nil {
		t.Fatal(err)
	}
	stop := background(func(ctx context.Context) {
		for ctx.Err() == nil {
			const waitMillis = 50
			switch e := c.Poll(waitMillis).(type) {
			case *kafka.Message:
				if e.TopicPartition.Error != nil {
					m.fail(e.TopicPartition.Error)
					continue
				}
				m.record(e.TopicPartition.Partition, int64(e.TopicPartition.Offset))
				if _, err := c.CommitMessage(e); err != nil {
					m.fail(err)
				}
			case kafka.Error:
				// All brokers are down when the one that nodes look like has cut a connection.
				if e.Code() != kafka.ErrAllBrokersDown || e.IsFatal() {
					m.fail(e)
				}
			}
		}
	})
	m.stop = func() error {
		stop()
		return c.Close()
	}
	return m
}
