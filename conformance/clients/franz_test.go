package clients

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var franzCodecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

// codecNumbers are the codec bits of a batch's attributes.
var codecNumbers = map[string]uint8{"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

func TestFranzCodecs(t *testing.T) {
	for codec, option := range franzCodecs {
		t.Run(codec, func(t *testing.T) {
			topic := newTopic(t, 1)
			sent := samples()
			produce(t, topic, toFranz(sent), kgo.ProducerBatchCompression(option))
			got := consume(t, topic, 0, 0, len(sent))
			diff(t, "franz-go", fromFranz(got), sent)
			for i, r := range got {
				if r.Offset != int64(i) {
					t.Fatalf("record %d has offset %d", i, r.Offset)
				}
			}
			if codec != "none" && !slices.ContainsFunc(got, func(r *kgo.Record) bool { return r.Attrs.CompressionType() == codecNumbers[codec] }) {
				t.Errorf("no batch came back compressed with %s", codec)
			}
		})
	}
}

func TestFranzAcks(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{
		"all idempotent": {kgo.RequiredAcks(kgo.AllISRAcks())},
		"all":            {kgo.RequiredAcks(kgo.AllISRAcks()), kgo.DisableIdempotentWrite()},
		"leader":         {kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()},
		"none":           {kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()},
	} {
		t.Run(name, func(t *testing.T) {
			topic := newTopic(t, 1)
			sent := samples()
			produce(t, topic, toFranz(sent), opts...)
			diff(t, "franz-go", fromFranz(consume(t, topic, 0, 0, len(sent))), sent)
		})
	}
}

// Many small requests from several producers at once, with each producer's
// order kept.
func TestFranzConcurrentProducers(t *testing.T) {
	const producers, each, partitions = 4, 2000, 3
	topic := newTopic(t, partitions)
	ctx := step(t)
	failed := make(chan error, producers)
	for n := range producers {
		client := franzClient(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
		go func() {
			var first error
			for i := range each {
				client.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: []byte(fmt.Sprintf("%d/%d", n, i))}, func(_ *kgo.Record, err error) {
					if err != nil && first == nil {
						first = err
					}
				})
			}
			failed <- errors.Join(client.Flush(ctx), first)
		}()
	}
	for range producers {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for p := range int32(partitions) {
		end := endOffset(t, topic, p)
		last := [producers]int{-1, -1, -1, -1}
		for i, r := range consume(t, topic, p, 0, int(end)) {
			if r.Offset != int64(i) {
				t.Fatalf("partition %d: record %d has offset %d", p, i, r.Offset)
			}
			var n, sequence int
			if _, err := fmt.Sscanf(string(r.Value), "%d/%d", &n, &sequence); err != nil {
				t.Fatal(err)
			}
			if sequence <= last[n] {
				t.Fatalf("partition %d offset %d: producer %d's record %d is behind its record %d", p, r.Offset, n, sequence, last[n])
			}
			last[n] = sequence
		}
		total += int(end)
	}
	if total != producers*each {
		t.Fatalf("%d records stored, want %d", total, producers*each)
	}
}

// A reader that waits at the end gets each record soon after it is written,
// without asking again and again.
func TestFranzTail(t *testing.T) {
	topic := newTopic(t, 1)
	reader := franzClient(t,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(0)}}),
		kgo.FetchMaxWait(30*time.Second))
	writer := franzClient(t, kgo.DefaultProduceTopic(topic))
	ctx := step(t)
	for i := range 50 {
		value := fmt.Sprint(i)
		if err := writer.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		var got []*kgo.Record
		for len(got) == 0 {
			fetches := reader.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
			got = fetches.Records()
		}
		if len(got) != 1 || string(got[0].Value) != value || got[0].Offset != int64(i) {
			t.Fatalf("record %d: got %d records, first %q at %d", i, len(got), got[0].Value, got[0].Offset)
		}
	}
}

// Reads that begin inside a batch, with limits smaller than a batch.
func TestFranzFetchFromEveryOffset(t *testing.T) {
	topic := newTopic(t, 1)
	sent := samples()[:40]
	produce(t, topic, toFranz(sent), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	for from := range sent {
		got := consume(t, topic, 0, int64(from), len(sent)-from, kgo.FetchMaxBytes(1), kgo.FetchMaxPartitionBytes(1))
		if got[0].Offset != int64(from) {
			t.Fatalf("reading from %d began at %d", from, got[0].Offset)
		}
		diff(t, fmt.Sprintf("from offset %d", from), fromFranz(got), sent[from:])
	}
}

func TestFranzFetchOutOfRange(t *testing.T) {
	topic := newTopic(t, 1)
	produce(t, topic, toFranz(samples()))
	if _, err := admin(t).DeleteRecords(step(t), deleteTo(topic, 0, 5)); err != nil {
		t.Fatal(err)
	}
	for _, from := range []int64{4, 1_000_000} {
		client := franzClient(t,
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(from)}}),
			kgo.ConsumeResetOffset(kgo.NoResetOffset()))
		if err := client.PollFetches(step(t)).Err(); !errors.Is(err, kerr.OffsetOutOfRange) {
			t.Errorf("fetch from %d: %v, want %v", from, err, kerr.OffsetOutOfRange)
		}
	}
}

func deleteTo(topic string, partition int32, offset int64) kadm.Offsets {
	var o kadm.Offsets
	o.AddOffset(topic, partition, offset, -1)
	return o
}

func TestFranzMessageTooLarge(t *testing.T) {
	topic := newTopic(t, 1, "max.message.bytes=20000")
	client := franzClient(t, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(1<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err := client.ProduceSync(step(t), &kgo.Record{Value: make([]byte, 30_000)}).FirstErr(); !errors.Is(err, kerr.MessageTooLarge) {
		t.Fatalf("got %v, want %v", err, kerr.MessageTooLarge)
	}
	if err := client.ProduceSync(step(t), &kgo.Record{Value: make([]byte, 10_000)}).FirstErr(); err != nil {
		t.Fatalf("a record below the limit: %v", err)
	}
	if end := endOffset(t, topic, 0); end != 1 {
		t.Fatalf("end offset %d, want 1", end)
	}
}

func TestFranzUnknownTopic(t *testing.T) {
	client := franzClient(t, kgo.UnknownTopicRetries(1))
	err := client.ProduceSync(step(t), &kgo.Record{Topic: topicName(t), Value: []byte("x")}).FirstErr()
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Fatalf("got %v, want %v", err, kerr.UnknownTopicOrPartition)
	}
}

func TestFranzAutoCreate(t *testing.T) {
	topic := topicName(t)
	client := franzClient(t, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(topic))
	if err := client.ProduceSync(step(t), kgo.StringRecord("x")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if end := endOffset(t, topic, 0); end != 1 {
		t.Fatalf("end offset %d, want 1", end)
	}
}

func TestFranzCompactedTopicNeedsKeys(t *testing.T) {
	topic := newTopic(t, 1, "cleanup.policy=compact")
	client := franzClient(t, kgo.DefaultProduceTopic(topic))
	if err := client.ProduceSync(step(t), kgo.StringRecord("no key")).FirstErr(); !errors.Is(err, kerr.InvalidRecord) {
		t.Fatalf("got %v, want %v", err, kerr.InvalidRecord)
	}
	if err := client.ProduceSync(step(t), kgo.KeyStringRecord("key", "value")).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestFranzLogAppendTime(t *testing.T) {
	topic := newTopic(t, 1, "message.timestamp.type=LogAppendTime")
	before := time.Now().UnixMilli()
	produce(t, topic, toFranz(samples()))
	after := time.Now().UnixMilli()
	for _, r := range consume(t, topic, 0, 0, len(samples())) {
		if ms := r.Timestamp.UnixMilli(); ms < before || ms > after {
			t.Fatalf("offset %d has time %d, outside %d..%d", r.Offset, ms, before, after)
		}
		if r.Attrs.TimestampType() != 1 {
			t.Fatalf("offset %d: timestamp type %d, want 1", r.Offset, r.Attrs.TimestampType())
		}
	}
}

func TestFranzTopicCompression(t *testing.T) {
	for codec, number := range codecNumbers {
		config := codec
		if codec == "none" {
			config = "uncompressed"
		}
		t.Run(config, func(t *testing.T) {
			topic := newTopic(t, 1, "compression.type="+config)
			sent := samples()
			produce(t, topic, toFranz(sent), kgo.ProducerBatchCompression(kgo.GzipCompression()))
			got := consume(t, topic, 0, 0, len(sent))
			diff(t, "franz-go", fromFranz(got), sent)
			for _, r := range got {
				if r.Attrs.CompressionType() != number {
					t.Fatalf("offset %d: codec %d, want %d", r.Offset, r.Attrs.CompressionType(), number)
				}
			}
		})
	}
}

func TestFranzListOffsets(t *testing.T) {
	topic := newTopic(t, 2)
	records := samples()
	newest := 17 // has the greatest timestamp, in the middle of the log
	for i := range records {
		records[i].Millis = firstMillis + int64(i)*10
	}
	records[newest].Millis = firstMillis + 1_000_000
	produce(t, topic, toFranz(records))
	a := admin(t)
	check := func(what string, want map[int32]int64, list func(context.Context, ...string) (kadm.ListedOffsets, error)) {
		t.Helper()
		listed, err := list(step(t), topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		for p, offset := range want {
			if o, _ := listed.Lookup(topic, p); o.Offset != offset {
				t.Errorf("%s of partition %d: %d, want %d", what, p, o.Offset, offset)
			}
		}
	}
	n := int64(len(records))
	check("start", map[int32]int64{0: 0, 1: 0}, a.ListStartOffsets)
	check("end", map[int32]int64{0: n, 1: 0}, a.ListEndOffsets)
	check("committed end", map[int32]int64{0: n, 1: 0}, a.ListCommittedOffsets)
	check("local start", map[int32]int64{0: 0, 1: 0}, a.ListLocalLogStartOffsets)
	check("greatest timestamp", map[int32]int64{0: int64(newest), 1: -1}, a.ListMaxTimestampOffsets)
	after := func(millis int64) func(context.Context, ...string) (kadm.ListedOffsets, error) {
		return func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
			return a.ListOffsetsAfterMilli(ctx, millis, topics...)
		}
	}
	check("first time", map[int32]int64{0: 0, 1: 0}, after(firstMillis-5))
	check("time inside a batch", map[int32]int64{0: 12}, after(firstMillis+111))
	check("exact time", map[int32]int64{0: 12}, after(firstMillis+120))
	check("time only the newest reaches", map[int32]int64{0: int64(newest)}, after(firstMillis+999_999))
	// kadm answers a time after the last record with the end offset.
	check("time after all", map[int32]int64{0: n}, after(firstMillis+1_000_001))
}

func TestFranzDeleteRecords(t *testing.T) {
	topic := newTopic(t, 1)
	sent := samples()
	produce(t, topic, toFranz(sent))
	a := admin(t)
	deleted, err := a.DeleteRecords(step(t), deleteTo(topic, 0, 50))
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := deleted.Lookup(topic, 0); r.LowWatermark != 50 {
		t.Fatalf("low watermark %d, want 50", r.LowWatermark)
	}
	starts, err := a.ListStartOffsets(step(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := starts.Lookup(topic, 0); o.Offset != 50 {
		t.Fatalf("start offset %d, want 50", o.Offset)
	}
	diff(t, "from 50", fromFranz(consume(t, topic, 0, 50, len(sent)-50)), sent[50:])
	deleted, err = a.DeleteRecords(step(t), deleteTo(topic, 0, int64(len(sent))+1))
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := deleted.Lookup(topic, 0); !errors.Is(r.Err, kerr.OffsetOutOfRange) {
		t.Fatalf("delete beyond the end: %v, want %v", r.Err, kerr.OffsetOutOfRange)
	}
}

func TestFranzTopics(t *testing.T) {
	a := admin(t)
	topic := newTopic(t, 3)
	// How often records are stored is a matter of Quire's ledgers, not of its
	// nodes, so a topic may ask for more copies than there are nodes.
	var tooMany error
	if onKafka {
		tooMany = kerr.InvalidReplicationFactor
	}
	for name, c := range map[string]struct {
		topic      string
		partitions int32
		replicas   int16
		configs    map[string]*string
		want       error
	}{
		"exists":           {topic, 1, 1, nil, kerr.TopicAlreadyExists},
		"illegal name":     {"no/slash", 1, 1, nil, kerr.InvalidTopicException},
		"name too long":    {strings.Repeat("x", 250), 1, 1, nil, kerr.InvalidTopicException},
		"no partitions":    {topicName(t), 0, 1, nil, kerr.InvalidPartitions},
		"no replicas":      {topicName(t), 1, 0, nil, kerr.InvalidReplicationFactor},
		"too many copies":  {topicName(t), 1, 3, nil, tooMany},
		"unknown config":   {topicName(t), 1, 1, map[string]*string{"no.such.config": kadm.StringPtr("1")}, kerr.InvalidConfig},
		"bad config value": {topicName(t), 1, 1, map[string]*string{"retention.ms": kadm.StringPtr("soon")}, kerr.InvalidConfig},
		"null config":      {topicName(t), 1, 1, map[string]*string{"retention.ms": nil}, kerr.InvalidConfig},
	} {
		t.Run(name, func(t *testing.T) {
			created, err := a.CreateTopics(step(t), c.partitions, c.replicas, c.configs, c.topic)
			if err != nil {
				t.Fatal(err)
			}
			if got := created[c.topic].Err; !errors.Is(got, c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
		})
	}

	grown, err := a.UpdatePartitions(step(t), 5, topic)
	if err != nil || grown[topic].Err != nil {
		t.Fatalf("grow: %v %v", err, grown[topic].Err)
	}
	if shrunk, err := a.UpdatePartitions(step(t), 2, topic); err != nil || !errors.Is(shrunk[topic].Err, kerr.InvalidPartitions) {
		t.Fatalf("shrink: %v %v, want %v", err, shrunk[topic].Err, kerr.InvalidPartitions)
	}
	first := awaitTopic(t, topic, 5)
	if first.ID == (kadm.TopicID{}) {
		t.Error("no topic id")
	}
	for p := range int32(5) {
		produce(t, topic, []*kgo.Record{{Partition: p, Value: []byte("x")}})
	}
	if _, err := a.DeleteTopic(step(t), topic); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if _, err := a.DeleteTopic(step(t), topic); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Fatalf("delete again: %v, want %v", err, kerr.UnknownTopicOrPartition)
	}
	// The name comes back as another topic, empty.
	created, err := a.CreateTopic(step(t), 1, 1, nil, topic)
	if err != nil {
		t.Fatalf("create again: %v", err)
	}
	if created.ID == first.ID {
		t.Error("a new topic has the id of the deleted one")
	}
	awaitTopic(t, topic, 1)
	if end := endOffset(t, topic, 0); end != 0 {
		t.Fatalf("the new topic ends at %d, want 0", end)
	}
}

func TestFranzConfigs(t *testing.T) {
	a := admin(t)
	topic := newTopic(t, 1, "retention.ms=5000000")
	lookup := func(name string) *kadm.Config {
		t.Helper()
		described, err := a.DescribeTopicConfigs(step(t), topic)
		if err != nil {
			t.Fatal(err)
		}
		resource, err := described.On(topic, nil)
		if err != nil || resource.Err != nil {
			t.Fatalf("describe: %v %v", err, resource.Err)
		}
		for _, c := range resource.Configs {
			if c.Key == name {
				return &c
			}
		}
		t.Fatalf("no config %s among %d", name, len(resource.Configs))
		return nil
	}
	alter := func(op kadm.IncrementalOp, name, value string) error {
		t.Helper()
		altered, err := a.AlterTopicConfigs(step(t), []kadm.AlterConfig{{Op: op, Name: name, Value: &value}}, topic)
		if err != nil {
			t.Fatal(err)
		}
		r, err := altered.On(topic, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r.Err
	}
	if c := lookup("retention.ms"); c.MaybeValue() != "5000000" || c.Source != kmsg.ConfigSourceDynamicTopicConfig {
		t.Errorf("retention.ms is %q from %v", c.MaybeValue(), c.Source)
	}
	if c := lookup("max.message.bytes"); c.MaybeValue() != "1048588" || c.Source != kmsg.ConfigSourceDefaultConfig {
		t.Errorf("max.message.bytes is %q from %v", c.MaybeValue(), c.Source)
	}
	if err := alter(kadm.SetConfig, "cleanup.policy", "compact"); err != nil {
		t.Fatal(err)
	}
	if err := alter(kadm.AppendConfig, "cleanup.policy", "delete"); err != nil {
		t.Fatal(err)
	}
	settled(t, "cleanup.policy is both after append", func() bool { return lookup("cleanup.policy").MaybeValue() == "compact,delete" })
	if err := alter(kadm.SubtractConfig, "cleanup.policy", "compact"); err != nil {
		t.Fatal(err)
	}
	settled(t, "cleanup.policy is delete after subtract", func() bool { return lookup("cleanup.policy").MaybeValue() == "delete" })
	if err := alter(kadm.DeleteConfig, "retention.ms", ""); err != nil {
		t.Fatal(err)
	}
	settled(t, "retention.ms is the default after delete", func() bool { return lookup("retention.ms").Source != kmsg.ConfigSourceDynamicTopicConfig })
	if err := alter(kadm.SetConfig, "retention.ms", "never"); !errors.Is(err, kerr.InvalidConfig) {
		t.Errorf("a value that is no number: %v, want %v", err, kerr.InvalidConfig)
	}
	if err := alter(kadm.SetConfig, "no.such.config", "1"); !errors.Is(err, kerr.InvalidConfig) {
		t.Errorf("an unknown config: %v, want %v", err, kerr.InvalidConfig)
	}
}

func TestFranzDescribe(t *testing.T) {
	a := admin(t)
	topic := newTopic(t, 2)
	client := franzClient(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err := client.ProduceSync(step(t), &kgo.Record{Topic: topic, Value: make([]byte, 5000)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	id, _, err := client.ProducerID(step(t))
	if err != nil {
		t.Fatal(err)
	}
	set := kadm.TopicsSet{}
	set.Add(topic, 0, 1)
	producers, err := a.DescribeProducers(step(t), set)
	if err != nil {
		t.Fatal(err)
	}
	var seen []int64
	producers.EachProducer(func(p kadm.DescribedProducer) { seen = append(seen, p.ProducerID) })
	if !slices.Equal(seen, []int64{id}) {
		t.Errorf("producers %v, want %d", seen, id)
	}
	dirs, err := a.DescribeAllLogDirs(step(t), set)
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for _, d := range dirs {
		d.EachPartition(func(p kadm.DescribedLogDirPartition) { bytes += p.Size })
	}
	if bytes < 5000 {
		t.Errorf("log directories hold %d bytes of the topic, want at least 5000", bytes)
	}
	cluster, err := a.Metadata(step(t), topic)
	if err != nil || len(cluster.Brokers) != 1 || cluster.Cluster == "" {
		t.Fatalf("metadata: %d brokers, cluster %q, %v", len(cluster.Brokers), cluster.Cluster, err)
	}
	leader := cluster.Topics[topic].Partitions[0]
	epochs := kadm.OffsetForLeaderEpochRequest{}
	epochs.Add(topic, 0, leader.LeaderEpoch)
	answers, err := a.OffsetForLeaderEpoch(step(t), epochs)
	if err != nil {
		t.Fatal(err)
	}
	if got := answers[topic][0]; got.Err != nil || got.EndOffset != 1 || got.LeaderEpoch != leader.LeaderEpoch {
		t.Errorf("end of epoch %d: offset %d epoch %d %v, want offset 1", leader.LeaderEpoch, got.EndOffset, got.LeaderEpoch, got.Err)
	}
}

// The same batch sent again by an idempotent producer whose answer was lost is
// stored once; a gap in its sequence is refused.
func TestIdempotentRetry(t *testing.T) {
	topic := newTopic(t, 1)
	conn := dial(t)
	ctx := step(t)
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionTimeoutMillis = 60_000
	resp, err := conn.Call(ctx, init, 4)
	if err != nil {
		t.Fatal(err)
	}
	id := resp.(*kmsg.InitProducerIDResponse)
	if id.ErrorCode != 0 || id.ProducerID < 0 {
		t.Fatalf("producer id %d, %v", id.ProducerID, kerr.ErrorForCode(id.ErrorCode))
	}
	send := func(sequence int32, value string) (offset int64, err error) {
		t.Helper()
		part := produceRaw(t, conn, topic, batch(id.ProducerID, id.ProducerEpoch, sequence, value))
		return part.BaseOffset, kerr.ErrorForCode(part.ErrorCode)
	}
	for sequence := range int32(7) {
		if offset, err := send(sequence, fmt.Sprint(sequence)); err != nil || offset != int64(sequence) {
			t.Fatalf("sequence %d: offset %d, %v", sequence, offset, err)
		}
	}
	for sequence := int32(2); sequence < 7; sequence++ { // the last five are remembered
		if offset, err := send(sequence, fmt.Sprint(sequence)); err != nil || offset != int64(sequence) {
			t.Fatalf("sequence %d again: offset %d, %v; want its first offset", sequence, offset, err)
		}
	}
	if _, err := send(9, "gap"); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
		t.Fatalf("a gap: %v, want %v", err, kerr.OutOfOrderSequenceNumber)
	}
	if end := endOffset(t, topic, 0); end != 7 {
		t.Fatalf("end offset %d, want 7", end)
	}
}
