package api

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

func (s *server) franz(opts ...kgo.Opt) *kgo.Client {
	s.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.addr), kgo.DialTimeout(time.Minute)}, opts...)...)
	check(s.t, err)
	s.t.Cleanup(cl.Close)
	return cl
}

// TestFranz produces and consumes with a real client, as new as can be and as
// old as the versions that are served.
func TestFranz(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{
		"newest":         nil,
		"v2.1":           {kgo.MaxVersions(kversion.V2_1_0())},
		"v0.11":          {kgo.MaxVersions(kversion.V0_11_0()), kgo.DisableIdempotentWrite()},
		"without ids":    {kgo.MaxVersions(kversion.V2_8_0())},
		"no idempotence": {kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck())},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			s := newServer(t)
			const topic, partitions, n = "orders", 4, 2000
			s.createTopic(topic, partitions)
			for codec, c := range map[string]kgo.CompressionCodec{
				"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
			} {
				w := s.franz(append(opts, kgo.ProducerBatchCompression(c, kgo.NoCompression()))...)
				for i := range n {
					w.Produce(ctx, &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: fmt.Append(nil, codec, i)}, func(_ *kgo.Record, err error) {
						if err != nil {
							t.Errorf("produce: %v", err)
						}
					})
				}
				check(t, w.Flush(ctx))
			}
			r := s.franz(append(opts, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
			next := make(map[int32]int64)
			seen := make(map[string]int)
			for len(seen) < 5*n {
				fetches := r.PollFetches(ctx)
				check(t, fetches.Err())
				fetches.EachRecord(func(rec *kgo.Record) {
					if rec.Offset != next[rec.Partition] {
						t.Errorf("partition %d: offset %d comes after %d", rec.Partition, rec.Offset, next[rec.Partition]-1)
					}
					next[rec.Partition] = rec.Offset + 1
					seen[string(rec.Value)]++
				})
			}
			for v, times := range seen {
				if times != 1 {
					t.Errorf("%q was read %d times", v, times)
				}
			}
		})
	}
}

func TestFranzCreatesTopics(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := newServer(t)
	cl := s.franz(kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("new"))
	check(t, cl.ProduceSync(ctx, kgo.StringRecord("a")).FirstErr())
	if s.coord.Topic("new") == nil {
		t.Error("the topic was not made")
	}
}

func TestFranzAdmin(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := newServer(t)
	cl := s.franz()
	adm := kadm.NewClient(cl)
	created, err := adm.CreateTopic(ctx, 3, 1, map[string]*string{"retention.ms": kadm.StringPtr("1000")}, "orders")
	check(t, err)
	if created.ID == (kadm.TopicID{}) || created.NumPartitions != 3 {
		t.Errorf("created %+v", created)
	}
	if _, err := adm.CreateTopic(ctx, 3, 1, nil, "orders"); !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Errorf("created again: %v", err)
	}
	topics, err := adm.ListTopics(ctx)
	check(t, err)
	if len(topics) != 1 || len(topics["orders"].Partitions) != 3 {
		t.Errorf("topics are %v", topics)
	}
	for range 5 {
		check(t, cl.ProduceSync(ctx, &kgo.Record{Topic: "orders", Partition: 0, Value: []byte("a")}).FirstErr())
	}
	ends, err := adm.ListEndOffsets(ctx, "orders")
	check(t, err)
	check(t, ends.Error())
	var sum int64
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	if sum != 5 {
		t.Errorf("end offsets are %v", ends)
	}
	starts, err := adm.ListStartOffsets(ctx, "orders")
	check(t, err)
	check(t, starts.Error())
	configs, err := adm.DescribeTopicConfigs(ctx, "orders")
	check(t, err)
	if c, err := configs.On("orders", nil); err != nil || len(c.Configs) < 20 {
		t.Errorf("configs are %v (%v)", c, err)
	}
	altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("2000")}}, "orders")
	check(t, err)
	for _, a := range altered {
		check(t, a.Err)
	}
	if v := s.coord.Topic("orders").Config["retention.ms"]; v != "2000" {
		t.Errorf("retention.ms is %q", v)
	}
	grown, err := adm.UpdatePartitions(ctx, 5, "orders")
	check(t, err)
	check(t, grown.Error())
	deleted, err := adm.DeleteRecords(ctx, ends.Offsets())
	check(t, err)
	check(t, deleted.Error())
	dirs, err := adm.DescribeAllLogDirs(ctx, nil)
	check(t, err)
	dirs.Each(func(d kadm.DescribedLogDir) { check(t, d.Err) })
	brokers, err := adm.DescribeBrokerConfigs(ctx, 1)
	check(t, err)
	for _, b := range brokers {
		check(t, b.Err)
	}
	gone, err := adm.DeleteTopics(ctx, "orders")
	check(t, err)
	check(t, gone.Error())
	meta, err := adm.BrokerMetadata(ctx)
	check(t, err)
	if meta.Cluster != s.coord.ClusterID() || meta.Controller != 1 {
		t.Errorf("metadata is %+v", meta)
	}
}
