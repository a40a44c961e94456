// Command franz-go is the zoo's program for github.com/twmb/franz-go.
// ZOO_VERSION is the Kafka release whose versions are the highest it speaks.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/quirelog/quire/conformance/clients/goclient"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

var versions *kversion.Versions

// has says whether the release had an API in at least this version.
func has(request kmsg.Request, version int16) bool {
	highest, ok := versions.LookupMaxKeyVersion(request.Key())
	return ok && highest >= version
}

func main() {
	versions = kversion.Stable()
	if v := goclient.Version(); v != "" {
		if versions = kversion.FromString(v); versions == nil {
			fmt.Fprintf(os.Stderr, "ZOO_VERSION %q is unknown\n", v)
			os.Exit(1)
		}
	}
	c := goclient.Client{Produce: produce, Consume: consume}
	if has(new(kmsg.SyncGroupRequest), 0) {
		c.Group = group
	} else {
		c.Resume = resume
	}
	if has(new(kmsg.CreateTopicsRequest), 0) {
		c.CreateTopic = createTopic
	}
	if has(new(kmsg.ListOffsetsRequest), 1) {
		c.OffsetAt = offsetAt
	}
	for _, check := range checks {
		if has(check.needs, check.version) {
			c.Checks = append(c.Checks, goclient.Check{Name: check.name, Run: check.run})
		}
	}
	goclient.Main(c)
}

func client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(goclient.Bootstrap()),
		kgo.MaxVersions(versions),
		kgo.AllowAutoTopicCreation(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.WithLogger(kgo.BasicLogger(os.Stderr, kgo.LogLevelInfo, nil)),
	}, more...)...)
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func produce(ctx context.Context, topic string, partition int32, codec string, records []goclient.Record) error {
	// One batch for all records.
	settings := []kgo.Opt{kgo.ProducerBatchCompression(codecs[codec]), kgo.ProducerLinger(100 * time.Millisecond)}
	if !has(new(kmsg.InitProducerIDRequest), 0) {
		settings = append(settings, kgo.DisableIdempotentWrite())
	}
	cl, err := client(settings...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var out []*kgo.Record
	for _, r := range records {
		record := &kgo.Record{Topic: topic, Partition: partition, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Millis)}
		if goclient.Carries("headers") {
			for _, h := range r.Headers {
				record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
			}
		}
		out = append(out, record)
	}
	return cl.ProduceSync(ctx, out...).FirstErr()
}

func received(r *kgo.Record) goclient.Record {
	got := goclient.Record{Key: r.Key, Value: r.Value, Millis: -1}
	if r.Attrs.TimestampType() >= 0 { // Else of message format 0.
		got.Millis = r.Timestamp.UnixMilli()
	}
	for _, h := range r.Headers {
		got.Headers = append(got.Headers, goclient.Header{Name: h.Key, Value: h.Value})
	}
	return got
}

func consume(ctx context.Context, topic string) ([]goclient.Record, error) {
	return read(ctx, topic, kgo.NewOffset().AtStart())
}

// read reads partition 0 from an offset to its end.
func read(ctx context.Context, topic string, from kgo.Offset) (records []goclient.Record, err error) {
	cl, err := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: from}}))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for next, end := int64(0), int64(-1); next != end; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return records, fmt.Errorf("%d records up to %d of %d: %w", len(records), next, end, err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			end = p.HighWatermark
			for _, r := range p.Records {
				records = append(records, received(r))
				next = r.Offset + 1
			}
		})
	}
	return records, nil
}

func group(ctx context.Context, group, topic string, count int) ([]goclient.Record, error) {
	return groupWith(ctx, group, topic, count)
}

func groupWith(ctx context.Context, group, topic string, count int, more ...kgo.Opt) (records []goclient.Record, err error) {
	cl, err := client(append(more, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close() // It leaves the group.
	var read []*kgo.Record
	for len(read) < count {
		fetches := cl.PollRecords(ctx, count-len(read))
		if err := fetches.Err(); err != nil {
			return records, fmt.Errorf("%d of %d records: %w", len(read), count, err)
		}
		read = append(read, fetches.Records()...)
	}
	for _, r := range read {
		records = append(records, received(r))
	}
	return records, cl.CommitRecords(ctx, read...)
}

// resume is what stood in for groups before there were members: commits that
// no generation guards.
func resume(ctx context.Context, group, topic string, count int) (records []goclient.Record, err error) {
	cl, err := client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	fetch, partition := kmsg.NewPtrOffsetFetchRequest(), kmsg.NewOffsetFetchRequestTopic()
	partition.Topic, partition.Partitions = topic, []int32{0}
	fetch.Group, fetch.Topics = group, append(fetch.Topics, partition)
	fetched, err := fetch.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	p := fetched.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, err // Versions 0 and 1 of old: "unknown" is what has no commit.
	}
	from := max(p.Offset, 0)
	if records, err = read(ctx, topic, kgo.NewOffset().At(from)); err != nil {
		return records, err
	}
	if len(records) < count {
		return records, fmt.Errorf("%d of %d records", len(records), count)
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, from+int64(count), -1)
	return records[:count], kadm.NewClient(cl).CommitAllOffsets(ctx, group, offsets)
}

// admin turns a call of the administrator into a check.
func admin(call func(ctx context.Context, a *kadm.Client, env goclient.Env) error) func(context.Context, goclient.Env) error {
	return func(ctx context.Context, env goclient.Env) error {
		cl, err := client()
		if err != nil {
			return err
		}
		defer cl.Close()
		return call(ctx, kadm.NewClient(cl), env)
	}
}

func createTopic(ctx context.Context, topic string, partitions int) error {
	return admin(func(ctx context.Context, a *kadm.Client, _ goclient.Env) error {
		r, err := a.CreateTopic(ctx, int32(partitions), 1, nil, topic)
		return errors.Join(err, r.Err)
	})(ctx, goclient.Env{})
}

func offsetAt(ctx context.Context, topic string, millis int64) (offset int64, err error) {
	err = admin(func(ctx context.Context, a *kadm.Client, _ goclient.Env) error {
		listed, err := a.ListOffsetsAfterMilli(ctx, millis, topic)
		if err != nil {
			return err
		}
		o, ok := listed.Lookup(topic, 0)
		if !ok {
			return fmt.Errorf("no answer for %s", topic)
		}
		offset = o.Offset
		return o.Err
	})(ctx, goclient.Env{})
	return offset, err
}

// checks run where the release that the client plays has the API.
var checks = []struct {
	name    string
	needs   kmsg.Request
	version int16
	run     func(context.Context, goclient.Env) error
}{
	{"metadata", new(kmsg.MetadataRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		m, err := a.Metadata(ctx)
		if err != nil {
			return err
		}
		if t := m.Topics[env.Topic]; t.Err != nil || len(t.Partitions) != 1 || len(m.Brokers) == 0 {
			return fmt.Errorf("unexpected answer %+v", t)
		}
		return nil
	})},
	{"group-consumer-protocol", new(kmsg.ConsumerGroupHeartbeatRequest), 0, func(ctx context.Context, env goclient.Env) error {
		_, err := groupWith(ctx, env.Fresh, env.Topic, len(goclient.Canonical()), kgo.ServerSideBalancer(), kgo.Balancers(kgo.CooperativeStickyBalancer()))
		return err
	}},
	{"admin-create-topic", new(kmsg.CreateTopicsRequest), 0, func(ctx context.Context, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 2); err != nil {
			return err
		}
		if err := createTopic(ctx, env.Fresh, 2); !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("the same again: %v, want %v", err, kerr.TopicAlreadyExists)
		}
		return nil
	}},
	{"admin-delete-topic", new(kmsg.DeleteTopicsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 1); err != nil {
			return err
		}
		r, err := a.DeleteTopic(ctx, env.Fresh)
		return errors.Join(err, r.Err)
	})},
	{"admin-create-partitions", new(kmsg.CreatePartitionsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 1); err != nil {
			return err
		}
		r, err := a.UpdatePartitions(ctx, 3, env.Fresh)
		if err != nil {
			return err
		}
		return r.Error()
	})},
	{"admin-describe-configs", new(kmsg.DescribeConfigsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		_, err := topicConfig(ctx, a, env.Topic, "retention.ms")
		return err
	})},
	{"admin-alter-configs", new(kmsg.AlterConfigsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		return alterConfigs(ctx, a, env.Fresh, a.AlterTopicConfigsState)
	})},
	{"admin-incremental-alter-configs", new(kmsg.IncrementalAlterConfigsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		return alterConfigs(ctx, a, env.Fresh, a.AlterTopicConfigs)
	})},
	{"admin-delete-records", new(kmsg.DeleteRecordsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		if err := produce(ctx, env.Fresh, 0, "none", goclient.Canonical()); err != nil {
			return err
		}
		const first = 7
		offsets := kadm.Offsets{}
		offsets.AddOffset(env.Fresh, 0, first, -1)
		r, err := a.DeleteRecords(ctx, offsets)
		if err != nil {
			return err
		}
		if d, _ := r.Lookup(env.Fresh, 0); d.Err != nil || d.LowWatermark != first {
			return fmt.Errorf("unexpected answer %+v", d)
		}
		return nil
	})},
	{"admin-describe-log-dirs", new(kmsg.DescribeLogDirsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		dirs, err := a.DescribeAllLogDirs(ctx, nil)
		if err == nil && len(dirs) == 0 {
			return errors.New("no folder is named")
		}
		return err
	})},
	{"admin-elect-leaders", new(kmsg.ElectLeadersRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		topics := kadm.TopicsSet{}
		topics.Add(env.Topic, 0)
		r, err := a.ElectLeaders(ctx, kadm.ElectPreferredReplica, topics)
		if err != nil {
			return err
		}
		if p := r[env.Topic][0]; p.Err != nil && !errors.Is(p.Err, kerr.ElectionNotNeeded) {
			return p.Err
		}
		return nil
	})},
	{"admin-list-reassignments", new(kmsg.ListPartitionReassignmentsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		moving, err := a.ListPartitionReassignments(ctx, nil)
		if err == nil && len(moving) != 0 {
			return fmt.Errorf("partitions are moving: %v", moving)
		}
		return err
	})},
	{"admin-describe-producers", new(kmsg.DescribeProducersRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		topics := kadm.TopicsSet{}
		topics.Add(env.Topic, 0)
		r, err := a.DescribeProducers(ctx, topics)
		if err != nil {
			return err
		}
		return r[env.Topic].Partitions[0].Err
	})},
	{"admin-list-groups", new(kmsg.ListGroupsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		groups, err := a.ListGroups(ctx)
		if _, ok := groups[env.Group]; err == nil && !ok {
			return fmt.Errorf("%s is not among %d groups", env.Group, len(groups))
		}
		return err
	})},
	{"admin-describe-group", new(kmsg.DescribeGroupsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		groups, err := a.DescribeGroups(ctx, env.Group)
		if err != nil {
			return err
		}
		if g := groups[env.Group]; g.Err != nil || g.State != "Empty" || g.ProtocolType != "consumer" {
			return fmt.Errorf("unexpected answer %+v", g)
		}
		return nil
	})},
	// Below version 2 nobody can ask for all topics of a group.
	{"admin-list-group-offsets", new(kmsg.OffsetFetchRequest), 2, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		offsets, err := a.FetchOffsetsForTopics(ctx, env.Group, env.Topic)
		if err != nil {
			return err
		}
		want := int64(len(goclient.Canonical()))
		if o, _ := offsets.Lookup(env.Topic, 0); o.Err != nil || o.At != want {
			return fmt.Errorf("unexpected answer %+v, want %d", o, want)
		}
		return nil
	})},
	{"admin-offset-delete", new(kmsg.OffsetDeleteRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		topics := kadm.TopicsSet{}
		topics.Add(env.Topic, 0)
		r, err := a.DeleteOffsets(ctx, env.Group, topics)
		if err != nil {
			return err
		}
		return r.Error()
	})},
	{"admin-delete-group", new(kmsg.DeleteGroupsRequest), 0, admin(func(ctx context.Context, a *kadm.Client, env goclient.Env) error {
		r, err := a.DeleteGroup(ctx, env.Group)
		return errors.Join(err, r.Err)
	})},
}

func topicConfig(ctx context.Context, a *kadm.Client, topic, name string) (string, error) {
	configs, err := a.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return "", err
	}
	c, err := configs.On(topic, nil)
	if err = errors.Join(err, c.Err); err != nil {
		return "", err
	}
	for _, e := range c.Configs {
		if e.Key == name {
			return e.MaybeValue(), nil
		}
	}
	return "", fmt.Errorf("%s is not among %d configs of %s", name, len(c.Configs), topic)
}

// alterConfigs creates a topic, alters it by the call given and looks.
func alterConfigs(ctx context.Context, a *kadm.Client, topic string,
	call func(context.Context, []kadm.AlterConfig, ...string) (kadm.AlterConfigsResponses, error),
) error {
	if err := createTopic(ctx, topic, 1); err != nil {
		return err
	}
	want := strconv.Itoa(7_200_000)
	r, err := call(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &want}}, topic)
	if err != nil {
		return err
	}
	if changed, err := r.On(topic, nil); err != nil || changed.Err != nil {
		return errors.Join(err, changed.Err)
	}
	got, err := topicConfig(ctx, a, topic, "retention.ms")
	if err == nil && got != want {
		return fmt.Errorf("retention.ms is %s, want %s", got, want)
	}
	return err
}
