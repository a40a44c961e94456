package clients

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

func confluentProducer(t *testing.T, config ...string) *kafka.Producer {
	t.Helper()
	m := &kafka.ConfigMap{"bootstrap.servers": broker.Addr()}
	for i := 0; i < len(config); i += 2 {
		m.SetKey(config[i], config[i+1])
	}
	p, err := kafka.NewProducer(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// confluentProduce sends records in order to partition 0 and returns their
// offsets once all are delivered.
func confluentProduce(t *testing.T, topic string, records []record, config ...string) []int64 {
	t.Helper()
	p := confluentProducer(t, config...)
	reports := make(chan kafka.Event, len(records))
	for _, r := range records {
		m := &kafka.Message{
			TopicPartition: kafka.TopicPartition{Topic: &topic, Partition: 0},
			Key:            r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Millis),
		}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Name, Value: h.Value})
		}
		if err := p.Produce(m, reports); err != nil {
			t.Fatal(err)
		}
	}
	ctx := step(t)
	var offsets []int64
	for range records {
		select {
		case e := <-reports:
			m := e.(*kafka.Message)
			if m.TopicPartition.Error != nil {
				t.Fatalf("deliver to %s: %v", topic, m.TopicPartition.Error)
			}
			offsets = append(offsets, int64(m.TopicPartition.Offset))
		case <-ctx.Done():
			t.Fatalf("%d of %d records delivered to %s", len(offsets), len(records), topic)
		}
	}
	return offsets
}

// confluentConsume reads count records of partition 0 by assignment.
func confluentConsume(t *testing.T, topic string, from kafka.Offset, count int) []record {
	t.Helper()
	c, err := kafka.NewConsumer(&kafka.ConfigMap{
		"bootstrap.servers":  broker.Addr(),
		"group.id":           "unused",
		"enable.auto.commit": false,
		"auto.offset.reset":  "error",
		"check.crcs":         true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Assign([]kafka.TopicPartition{{Topic: &topic, Partition: 0, Offset: from}}); err != nil {
		t.Fatal(err)
	}
	var records []record
	ctx := step(t)
	for len(records) < count {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records came from %s", len(records), count, topic)
		}
		const waitMillis = 500
		switch e := c.Poll(waitMillis).(type) {
		case *kafka.Message:
			r := record{Key: e.Key, Value: e.Value, Millis: e.Timestamp.UnixMilli()}
			for _, h := range e.Headers {
				r.Headers = append(r.Headers, header{h.Key, h.Value})
			}
			records = append(records, r)
		case kafka.Error:
			t.Fatalf("consume %s: %v", topic, e)
		}
	}
	return records
}

func TestLibrdkafkaCodecs(t *testing.T) {
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		for _, idempotent := range []string{"false", "true"} {
			t.Run(codec+"/idempotent="+idempotent, func(t *testing.T) {
				topic := newTopic(t, 1)
				sent := samples()
				offsets := confluentProduce(t, topic, sent,
					"compression.type", codec, "enable.idempotence", idempotent, "linger.ms", "20")
				for i, offset := range offsets {
					if offset != int64(i) {
						t.Fatalf("record %d was acknowledged at offset %d", i, offset)
					}
				}
				diff(t, "librdkafka", confluentConsume(t, topic, 0, len(sent)), sent)
			})
		}
	}
}

func TestLibrdkafkaAcks(t *testing.T) {
	for _, acks := range []string{"0", "1", "all"} {
		t.Run(acks, func(t *testing.T) {
			topic := newTopic(t, 1)
			sent := samples()
			confluentProduce(t, topic, sent, "acks", acks)
			diff(t, "librdkafka", confluentConsume(t, topic, 0, len(sent)), sent)
		})
	}
}

func TestLibrdkafkaOffsets(t *testing.T) {
	topic := newTopic(t, 1)
	records := samples()
	for i := range records {
		records[i].Millis = firstMillis + int64(i)*10
	}
	confluentProduce(t, topic, records)
	c, err := kafka.NewConsumer(&kafka.ConfigMap{"bootstrap.servers": broker.Addr(), "group.id": "unused"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	timeout := int(stepTimeout.Milliseconds())
	low, high, err := c.QueryWatermarkOffsets(topic, 0, timeout)
	if err != nil || low != 0 || high != int64(len(records)) {
		t.Fatalf("watermarks %d and %d (%v), want 0 and %d", low, high, err, len(records))
	}
	for _, q := range []struct{ millis, offset int64 }{
		{firstMillis - 1, 0}, {firstMillis, 0}, {firstMillis + 1, 1}, {firstMillis + 500, 50},
		{firstMillis + int64(len(records)-1)*10, int64(len(records) - 1)},
		{firstMillis + int64(len(records))*10, int64(kafka.OffsetEnd)},
	} {
		found, err := c.OffsetsForTimes([]kafka.TopicPartition{{Topic: &topic, Partition: 0, Offset: kafka.Offset(q.millis)}}, timeout)
		if err != nil || found[0].Error != nil || int64(found[0].Offset) != q.offset {
			t.Errorf("offset for time %d: %v (%v), want %d", q.millis, found, err, q.offset)
		}
	}
}

func TestLibrdkafkaAdmin(t *testing.T) {
	a, err := kafka.NewAdminClient(&kafka.ConfigMap{"bootstrap.servers": broker.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	topic := topicName(t)
	results, err := a.CreateTopics(step(t), []kafka.TopicSpecification{{
		Topic: topic, NumPartitions: 2, ReplicationFactor: 1, Config: map[string]string{"retention.ms": "9123456789012"},
	}})
	if err != nil || results[0].Error.Code() != kafka.ErrNoError {
		t.Fatalf("create: %v %v", results, err)
	}
	results, err = a.CreateTopics(step(t), []kafka.TopicSpecification{{Topic: topic, NumPartitions: 2, ReplicationFactor: 1}})
	if err != nil || results[0].Error.Code() != kafka.ErrTopicAlreadyExists {
		t.Fatalf("create again: %v %v", results, err)
	}
	awaitTopic(t, topic, 2)
	resource := kafka.ConfigResource{Type: kafka.ResourceTopic, Name: topic}
	retention := func() (string, kafka.ConfigSource) {
		t.Helper()
		described, err := a.DescribeConfigs(step(t), []kafka.ConfigResource{resource})
		if err != nil || described[0].Error.Code() != kafka.ErrNoError {
			t.Fatalf("describe configs: %v %v", described, err)
		}
		entry := described[0].Config["retention.ms"]
		return entry.Value, entry.Source
	}
	if value, source := retention(); value != "9123456789012" || source != kafka.ConfigSourceDynamicTopic {
		t.Fatalf("retention.ms is %s from %s", value, source)
	}
	resource.Config = []kafka.ConfigEntry{{Name: "retention.ms", Value: "8000000000000", IncrementalOperation: kafka.AlterConfigOpTypeSet}}
	altered, err := a.IncrementalAlterConfigs(step(t), []kafka.ConfigResource{resource})
	if err != nil || altered[0].Error.Code() != kafka.ErrNoError {
		t.Fatalf("alter configs: %v %v", altered, err)
	}
	settled(t, "retention.ms is as it was set", func() bool { value, _ := retention(); return value == "8000000000000" })
	grown, err := a.CreatePartitions(step(t), []kafka.PartitionsSpecification{{Topic: topic, IncreaseTo: 5}})
	if err != nil || grown[0].Error.Code() != kafka.ErrNoError {
		t.Fatalf("create partitions: %v %v", grown, err)
	}
	awaitTopic(t, topic, 5)
	described, err := a.DescribeTopics(step(t), kafka.NewTopicCollectionOfTopicNames([]string{topic}))
	if err != nil || len(described.TopicDescriptions[0].Partitions) != 5 {
		t.Fatalf("describe topics: %v %v", described, err)
	}
	confluentProduce(t, topic, samples())
	deleted, err := a.DeleteRecords(step(t), []kafka.TopicPartition{{Topic: &topic, Partition: 0, Offset: 7}})
	if err != nil || deleted.DeleteRecordsResults[0].TopicPartition.Error != nil || deleted.DeleteRecordsResults[0].DeletedRecords.LowWatermark != 7 {
		t.Fatalf("delete records: %+v %v", deleted, err)
	}
	listed, err := a.ListOffsets(step(t), map[kafka.TopicPartition]kafka.OffsetSpec{{Topic: &topic, Partition: 0}: kafka.EarliestOffsetSpec})
	if err != nil {
		t.Fatal(err)
	}
	for p, info := range listed.ResultInfos {
		if info.Error.Code() != kafka.ErrNoError || info.Offset != 7 {
			t.Fatalf("earliest offset of %v: %+v", p, info)
		}
	}
	cluster, err := a.DescribeCluster(step(t))
	if err != nil || len(cluster.Nodes) != 1 || fmt.Sprintf("%s:%d", cluster.Nodes[0].Host, cluster.Nodes[0].Port) != broker.Addr() {
		t.Fatalf("describe cluster: %+v %v", cluster, err)
	}
	if results, err = a.DeleteTopics(step(t), []string{topic}); err != nil || results[0].Error.Code() != kafka.ErrNoError {
		t.Fatalf("delete topic: %v %v", results, err)
	}
	if results, err = a.DeleteTopics(step(t), []string{topic}); err != nil || results[0].Error.Code() != kafka.ErrUnknownTopicOrPart {
		t.Fatalf("delete topic again: %v %v", results, err)
	}
}

func TestLibrdkafkaMessageTooLarge(t *testing.T) {
	topic := newTopic(t, 1, "max.message.bytes=20000")
	p := confluentProducer(t, "message.max.bytes", "10000000")
	reports := make(chan kafka.Event, 1)
	value := make([]byte, 30_000)
	if err := p.Produce(&kafka.Message{TopicPartition: kafka.TopicPartition{Topic: &topic}, Value: value}, reports); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-reports:
		var kerr kafka.Error
		if err := e.(*kafka.Message).TopicPartition.Error; !errors.As(err, &kerr) || kerr.Code() != kafka.ErrMsgSizeTooLarge {
			t.Fatalf("got %v, want message too large", err)
		}
	case <-step(t).Done():
		t.Fatal("no delivery report")
	}
}
