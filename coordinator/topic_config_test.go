package coordinator_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage"
)

// The catalog is Kafka's: names, DescribeConfigs types, defaults and broker
// settings (LogConfig, ServerTopicConfigSynonyms). The last three are gone since 4.0.
func TestTopicConfigs(t *testing.T) {
	const maxLong = "9223372036854775807"
	want := []string{
		"cleanup.policy list delete log.cleanup.policy",
		"compression.gzip.level int -1 compression.gzip.level",
		"compression.lz4.level int 9 compression.lz4.level",
		"compression.type string producer compression.type",
		"compression.zstd.level int 3 compression.zstd.level",
		"delete.retention.ms long 86400000 log.cleaner.delete.retention.ms",
		"file.delete.delay.ms long 60000 log.segment.delete.delay.ms",
		"flush.messages long " + maxLong + " log.flush.interval.messages",
		"flush.ms long " + maxLong + " log.flush.interval.ms log.flush.scheduler.interval.ms",
		"follower.replication.throttled.replicas list ",
		"index.interval.bytes int 4096 log.index.interval.bytes",
		"leader.replication.throttled.replicas list ",
		"local.retention.bytes long -2 log.local.retention.bytes",
		"local.retention.ms long -2 log.local.retention.ms",
		"max.compaction.lag.ms long " + maxLong + " log.cleaner.max.compaction.lag.ms",
		"max.message.bytes int 1048588 message.max.bytes",
		"message.timestamp.after.max.ms long 3600000 log.message.timestamp.after.max.ms",
		"message.timestamp.before.max.ms long " + maxLong + " log.message.timestamp.before.max.ms",
		"message.timestamp.type string CreateTime log.message.timestamp.type",
		"min.cleanable.dirty.ratio double 0.5 log.cleaner.min.cleanable.ratio",
		"min.compaction.lag.ms long 0 log.cleaner.min.compaction.lag.ms",
		"min.insync.replicas int 1 min.insync.replicas",
		"preallocate boolean false log.preallocate",
		"quire.ack.quorum int 0 unlisted",
		"quire.ensemble int 0 unlisted",
		"quire.verify.compressed boolean false log.verify.compressed unlisted",
		"quire.write.quorum int 0 unlisted",
		"remote.log.copy.disable boolean false",
		"remote.log.delete.on.disable boolean false",
		"remote.storage.enable boolean false",
		"retention.bytes long -1 log.retention.bytes",
		"retention.ms long 604800000 log.retention.ms log.retention.minutes*60000 log.retention.hours*3600000",
		"segment.bytes int 1073741824 log.segment.bytes",
		"segment.index.bytes int 10485760 log.index.size.max.bytes",
		"segment.jitter.ms long 0 log.roll.jitter.ms log.roll.jitter.hours*3600000",
		"segment.ms long 604800000 log.roll.ms log.roll.hours*3600000",
		"unclean.leader.election.enable boolean false unclean.leader.election.enable",
		"message.downconversion.enable boolean true log.message.downconversion.enable unlisted",
		"message.format.version string 3.0-IV1 log.message.format.version unlisted",
		"message.timestamp.difference.max.ms long " + maxLong + " log.message.timestamp.difference.max.ms unlisted",
	}
	types := map[coordinator.ConfigType]string{1: "boolean", 2: "string", 3: "int", 5: "long", 6: "double", 7: "list"}
	var got []string
	for _, k := range coordinator.TopicConfigs() {
		line := fmt.Sprintf("%s %s %s", k.Name, types[k.Type], k.Default)
		for _, s := range k.Broker {
			line += " " + s.Name
			if s.Factor != 0 {
				line += fmt.Sprintf("*%d", s.Factor)
			}
		}
		if k.Unlisted {
			line += " unlisted"
		}
		got = append(got, line)
		if !strings.HasSuffix(k.Documentation, ".") {
			t.Errorf("%s is documented by %q", k.Name, k.Documentation)
		}
		if err := k.Check(k.Default); err != nil {
			t.Errorf("the default is not valid: %v", err)
		}
		if coordinator.TopicConfig(k.Name) != k {
			t.Errorf("%s is not found", k.Name)
		}
	}
	if !slices.IsSortedFunc(coordinator.TopicConfigs(), func(a, b *coordinator.ConfigKey) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the catalog is not sorted by name")
	}
	slices.Sort(want)
	slices.Sort(got)
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Fatalf("catalog is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// What each key takes and refuses; the error names key and value and says what
// is allowed.
func TestTopicConfigCheck(t *testing.T) {
	for _, test := range []struct{ name, good, bad string }{
		{"cleanup.policy", "delete|compact|compact,delete| delete , compact ||delete,delete", "none|delete,|compact;delete|COMPACT"},
		{"compression.gzip.level", "-1|1|9", "0|10|-2|x"},
		{"compression.lz4.level", "1|17", "0|18"},
		{"compression.zstd.level", "-131072|22|0", "23|-131073"},
		{"compression.type", "uncompressed|zstd|lz4|snappy|gzip|producer", "none||Producer|brotli"},
		{"delete.retention.ms", "0|9223372036854775807| 5 ", "-1|9223372036854775808|1.5|"},
		{"flush.messages", "1", "0"},
		{"follower.replication.throttled.replicas", "|*|0:1|0:1,1:2", "0|:|0:x|*,0:1|0:-1"},
		{"index.interval.bytes", "0|2147483647", "-1|2147483648"},
		{"local.retention.ms", "-2|-1|0", "-3"},
		{"max.compaction.lag.ms", "1", "0"},
		{"max.message.bytes", "0|2147483647", "-1|2147483648"},
		{"message.timestamp.after.max.ms", "0", "-1"},
		{"message.timestamp.type", "CreateTime|LogAppendTime", "createtime|"},
		{"min.cleanable.dirty.ratio", "0|1|0.25|1e-3", "-0.1|1.1|x|NaN|"},
		{"min.insync.replicas", "1|3", "0"},
		{"preallocate", "true|FALSE", "yes||1"},
		{"remote.storage.enable", "false", "true|x"},
		{"retention.bytes", "-1|0|-5|9223372036854775807", "x|"},
		{"retention.ms", "-1|0", "-2"},
		{"segment.bytes", "14|1000000|2147483647", "13|2147483648"},
		{"segment.ms", "1", "0|-1"},
		{"message.format.version", "2.8", ""},
	} {
		k := coordinator.TopicConfig(test.name)
		for _, v := range strings.Split(test.good, "|") {
			if err := k.Check(v); err != nil {
				t.Errorf("%s=%q: %v", test.name, v, err)
			}
		}
		if test.bad == "" {
			continue
		}
		for _, v := range strings.Split(test.bad, "|") {
			err := k.Check(v)
			if !errors.Is(err, coordinator.ErrInvalidConfig) || !contains(err, test.name) || !contains(err, fmt.Sprintf("%q", v)) || !contains(err, "allowed is ") {
				t.Errorf("%s=%q: %v, want ErrInvalidConfig with all three", test.name, v, err)
			}
		}
	}
}

// Rules that concern the set of overrides.
func TestTopicConfigTogether(t *testing.T) {
	c := open(t, newMem(t), func(c *coordinator.Config) {
		c.TopicDefaults = map[string]string{"max.compaction.lag.ms": "100"}
	})
	for _, overrides := range []map[string]string{
		{"no.such.config": "1"},
		{"": ""},
		{"retention.ms": "1", "RETENTION.MS": "1"},
		{"min.compaction.lag.ms": "101"},
		{"min.compaction.lag.ms": "2", "max.compaction.lag.ms": "1"},
		{"message.format.version": strings.Repeat("x", 17<<10)},
	} {
		if err := c.CheckTopicConfig(overrides); !errors.Is(err, coordinator.ErrInvalidConfig) {
			t.Errorf("%.100v: %v, want ErrInvalidConfig", overrides, err)
		}
	}
	for _, overrides := range []map[string]string{
		nil, {"min.compaction.lag.ms": "100"}, {"min.compaction.lag.ms": "200", "max.compaction.lag.ms": "200"},
	} {
		if err := c.CheckTopicConfig(overrides); err != nil {
			t.Errorf("%v: %v", overrides, err)
		}
	}
	for _, defaults := range []map[string]string{{"no.such": "1"}, {"retention.ms": "x"}, {"min.compaction.lag.ms": "2", "max.compaction.lag.ms": "1"}} {
		if _, err := tryOpen(t, newMem(t), func(c *coordinator.Config) { c.TopicDefaults = defaults }); !errors.Is(err, coordinator.ErrInvalidConfig) {
			t.Errorf("defaults %v: %v, want ErrInvalidConfig", defaults, err)
		}
	}
}

// kafkaDefaults is what a log of a topic without overrides goes by in Kafka 4.x.
func kafkaDefaults() storage.LogConfig {
	return storage.LogConfig{
		MaxMessageBytes: 1_048_588, SegmentBytes: 1 << 30, SegmentAge: 7 * 24 * time.Hour,
		RetentionBytes: -1, RetentionAge: 7 * 24 * time.Hour,
		TimestampBeforeMax: -1, TimestampAfterMax: time.Hour,
		KeepCompression: true, Delete: true, IndexIntervalBytes: 4096,
	}
}

// Overrides and defaults become what the log goes by.
func TestLogConfig(t *testing.T) {
	for i, test := range []struct {
		overrides map[string]string
		change    func(*storage.LogConfig)
	}{
		{nil, func(*storage.LogConfig) {}},
		{map[string]string{"max.message.bytes": "5"}, func(l *storage.LogConfig) { l.MaxMessageBytes = 5 }},
		{map[string]string{"segment.bytes": " 1000 "}, func(l *storage.LogConfig) { l.SegmentBytes = 1000 }},
		{map[string]string{"segment.ms": "250"}, func(l *storage.LogConfig) { l.SegmentAge = 250 * time.Millisecond }},
		{map[string]string{"segment.ms": fmt.Sprint(int64(math.MaxInt64))}, func(l *storage.LogConfig) { l.SegmentAge = 0 }},
		{map[string]string{"retention.bytes": "10"}, func(l *storage.LogConfig) { l.RetentionBytes = 10 }},
		{map[string]string{"retention.bytes": "-7"}, func(l *storage.LogConfig) { l.RetentionBytes = -1 }},
		{map[string]string{"retention.ms": "0"}, func(l *storage.LogConfig) { l.RetentionAge = 0 }},
		{map[string]string{"retention.ms": "-1"}, func(l *storage.LogConfig) { l.RetentionAge = -1 }},
		{map[string]string{"retention.ms": fmt.Sprint(int64(math.MaxInt64))}, func(l *storage.LogConfig) { l.RetentionAge = -1 }},
		{map[string]string{"message.timestamp.type": "LogAppendTime"}, func(l *storage.LogConfig) { l.LogAppendTime = true }},
		{map[string]string{"message.timestamp.before.max.ms": "1"}, func(l *storage.LogConfig) { l.TimestampBeforeMax = time.Millisecond }},
		{map[string]string{"message.timestamp.after.max.ms": fmt.Sprint(int64(math.MaxInt64))}, func(l *storage.LogConfig) { l.TimestampAfterMax = -1 }},
		{map[string]string{"cleanup.policy": "compact"}, func(l *storage.LogConfig) { l.Compact, l.Delete = true, false }},
		{map[string]string{"cleanup.policy": "compact, delete"}, func(l *storage.LogConfig) { l.Compact = true }},
		{map[string]string{"cleanup.policy": ""}, func(l *storage.LogConfig) { l.Delete = false }},
		{map[string]string{"index.interval.bytes": "7"}, func(l *storage.LogConfig) { l.IndexIntervalBytes = 7 }},
		{map[string]string{"compression.type": "uncompressed"}, func(l *storage.LogConfig) { l.KeepCompression = false }},
		{map[string]string{"compression.type": "snappy"}, func(l *storage.LogConfig) { l.KeepCompression, l.Compression = false, batch.Snappy }},
		{map[string]string{"compression.type": "gzip"}, func(l *storage.LogConfig) {
			l.KeepCompression, l.Compression, l.CompressionLevel = false, batch.Gzip, -1
		}},
		{map[string]string{"compression.type": "lz4", "compression.lz4.level": "2", "compression.zstd.level": "1"}, func(l *storage.LogConfig) {
			l.KeepCompression, l.Compression, l.CompressionLevel = false, batch.LZ4, 2
		}},
		{map[string]string{"compression.type": "zstd", "compression.zstd.level": "-5"}, func(l *storage.LogConfig) {
			l.KeepCompression, l.Compression, l.CompressionLevel = false, batch.Zstd, -5
		}},
		{map[string]string{"compression.zstd.level": "-5", "min.insync.replicas": "3", "flush.ms": "1"}, func(*storage.LogConfig) {}},
	} {
		c := open(t, newMem(t))
		got := create(t, c, coordinator.NewTopic{Name: "a", Partitions: 1, ReplicationFactor: 1, Config: test.overrides})[0]
		want := kafkaDefaults()
		test.change(&want)
		if *got.LogConfig != want {
			t.Errorf("%d: %v\ngives %+v\nwant  %+v", i, test.overrides, *got.LogConfig, want)
		}
		// The same as defaults of the broker, and as an override of other defaults.
		c = open(t, newMem(t), func(c *coordinator.Config) { c.TopicDefaults = test.overrides })
		if got := createOne(t, c, "a"); *got.LogConfig != want || got.Config != nil {
			t.Errorf("%d: defaults %v\ngive %+v\nwant %+v", i, test.overrides, *got.LogConfig, want)
		}
	}
	// What the copies of a record are asked for with, where anybody asks.
	for i, test := range []struct {
		replicas              int16
		overrides             map[string]string
		ensemble, write, acks int
	}{
		{1, nil, 0, 0, 0},
		{1, map[string]string{"min.insync.replicas": "2"}, 0, 0, 0},
		{3, nil, 3, 3, 2},
		{2, nil, 2, 2, 2},
		{5, map[string]string{"min.insync.replicas": "2"}, 5, 5, 2},
		{3, map[string]string{"min.insync.replicas": "7"}, 3, 3, 3},
		{3, map[string]string{"quire.ack.quorum": "1"}, 3, 3, 1},
		{3, map[string]string{"quire.ensemble": "5"}, 5, 3, 2},
		{1, map[string]string{"quire.ensemble": "4", "quire.write.quorum": "2", "quire.ack.quorum": "2"}, 4, 2, 2},
		{3, map[string]string{"quire.write.quorum": "2"}, 2, 2, 2},
	} {
		c := open(t, newMem(t))
		got := create(t, c, coordinator.NewTopic{Name: "a", Partitions: 1, ReplicationFactor: test.replicas, Config: test.overrides})[0].LogConfig
		if got.Ensemble != test.ensemble || got.WriteQuorum != test.write || got.AckQuorum != test.acks {
			t.Errorf("%d: replication factor %d, %v: quorums %d/%d/%d, want %d/%d/%d", i, test.replicas, test.overrides,
				got.Ensemble, got.WriteQuorum, got.AckQuorum, test.ensemble, test.write, test.acks)
		}
	}
	for _, overrides := range []map[string]string{
		{"quire.ensemble": "2", "quire.write.quorum": "3"},
		{"quire.write.quorum": "2", "quire.ack.quorum": "3"},
		{"quire.ensemble": "-1"}, {"quire.ack.quorum": "65"},
	} {
		if err := open(t, newMem(t)).CheckTopicConfig(overrides); !errors.Is(err, coordinator.ErrInvalidConfig) {
			t.Errorf("%v: %v, want ErrInvalidConfig", overrides, err)
		}
	}
	// An override wins over a default, also where two settings act together.
	c := open(t, newMem(t), func(c *coordinator.Config) {
		c.TopicDefaults = map[string]string{"compression.type": "zstd", "compression.zstd.level": "9"}
	})
	for overrides, want := range map[[2]string]storage.LogConfig{
		{"compression.zstd.level", "2"}:  {Compression: batch.Zstd, CompressionLevel: 2},
		{"compression.type", "producer"}: {KeepCompression: true},
		{"compression.type", "lz4"}:      {Compression: batch.LZ4, CompressionLevel: 9},
		{"retention.ms", "1"}:            {Compression: batch.Zstd, CompressionLevel: 9},
	} {
		topic, err := c.AlterTopicConfig(t.Context(), createOne(t, c, overrides[0]+overrides[1]).Name, false, func(m map[string]string) (map[string]string, error) {
			m[overrides[0]] = overrides[1]
			return m, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if l := topic.LogConfig; l.Compression != want.Compression || l.CompressionLevel != want.CompressionLevel || l.KeepCompression != want.KeepCompression {
			t.Errorf("%v: %+v", overrides, l)
		}
	}
}

// The caller's map is its own: what it does with it later changes no topic, and
// topics with equal overrides share one config.
func TestTopicConfigIsShared(t *testing.T) {
	c := open(t, newMem(t))
	config := map[string]string{"retention.ms": "5"}
	a := create(t, c, coordinator.NewTopic{Name: "a", Partitions: 1, ReplicationFactor: 1, Config: config})[0]
	config["retention.ms"] = "6"
	b := create(t, c, coordinator.NewTopic{Name: "b", Partitions: 1, ReplicationFactor: 1, Config: map[string]string{"retention.ms": "5"}})[0]
	if a.Config["retention.ms"] != "5" || a.LogConfig != b.LogConfig {
		t.Errorf("a has %v, b %v", a.Config, b.Config)
	}
	if createOne(t, c, "c").LogConfig != createOne(t, c, "d").LogConfig {
		t.Error("topics without overrides have two configs")
	}
}

// "Tools expect every topic config to be listed with source DEFAULT_CONFIG and
// synonyms (topic name, log.* name)"; overrides have source 1, the broker's settings 4.
func TestDescribeTopicConfig(t *testing.T) {
	c := open(t, newMem(t), func(c *coordinator.Config) {
		c.TopicDefaults = map[string]string{"retention.ms": "7", "segment.bytes": "100"}
	})
	topic := create(t, c, coordinator.NewTopic{Name: "a", Partitions: 1, ReplicationFactor: 1, Config: map[string]string{
		"retention.ms": "5", "cleanup.policy": "compact", "message.downconversion.enable": "false",
	}})[0]
	entries := make(map[string]coordinator.ConfigEntry)
	last := ""
	for _, e := range c.DescribeTopicConfig(topic) {
		if e.Name <= last || e.Documentation == "" || e.Type == 0 {
			t.Errorf("%+v after %s", e, last)
		}
		last = e.Name
		entries[e.Name] = e
	}
	const topicSource, static, builtIn = coordinator.SourceTopic, coordinator.SourceStaticBroker, coordinator.SourceDefault
	type synonym = coordinator.ConfigSynonym
	for name, want := range map[string][]synonym{
		"retention.ms":                  {{"retention.ms", "5", topicSource}, {"log.retention.ms", "7", static}, {"log.retention.ms", "604800000", builtIn}},
		"segment.bytes":                 {{"log.segment.bytes", "100", static}, {"log.segment.bytes", "1073741824", builtIn}},
		"cleanup.policy":                {{"cleanup.policy", "compact", topicSource}, {"log.cleanup.policy", "delete", builtIn}},
		"max.message.bytes":             {{"message.max.bytes", "1048588", builtIn}},
		"message.downconversion.enable": {{"message.downconversion.enable", "false", topicSource}, {"log.message.downconversion.enable", "true", builtIn}},
	} {
		e := entries[name]
		if !reflect.DeepEqual(e.Synonyms, want) || e.Value != want[0].Value || e.Source != want[0].Source {
			t.Errorf("%s is %+v, want %+v", name, e, want)
		}
	}
	// What no setting of the broker stands behind has no synonyms.
	if e := entries["remote.storage.enable"]; e.Value != "false" || e.Source != builtIn || len(e.Synonyms) != 0 {
		t.Errorf("remote.storage.enable is %+v", e)
	}
	if len(entries) != 34 {
		t.Errorf("%d entries, want Kafka 4's 33 and the removed one that is set", len(entries))
	}
	plain := c.DescribeTopicConfig(createOne(t, c, "b"))
	if len(plain) != 33 {
		t.Errorf("%d entries of a plain topic, want 33", len(plain))
	}
}

// Broker settings become defaults; of several that mean the same the finest wins.
func TestBrokerDefaults(t *testing.T) {
	got, err := coordinator.BrokerDefaults(map[string]string{
		"log.retention.hours": "2", "log.roll.hours": "1", "log.roll.ms": "5", "message.max.bytes": "77",
		"log.retention.minutes": "-1", "num.partitions": "9", "compression.type": "lz4",
		"log.roll.jitter.hours": "9223372036854775807",
	})
	want := map[string]string{
		"retention.ms": "-1", "segment.ms": "5", "max.message.bytes": "77", "compression.type": "lz4",
		"segment.jitter.ms": "9223372036854775807",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("defaults %v, %v, want %v", got, err, want)
	}
	for name, value := range map[string]string{"log.retention.hours": "x", "log.retention.ms": "-2", "log.cleanup.policy": "none"} {
		if _, err := coordinator.BrokerDefaults(map[string]string{name: value}); !errors.Is(err, coordinator.ErrInvalidConfig) || !contains(err, name) {
			t.Errorf("%s=%s: %v, want ErrInvalidConfig with the name", name, value, err)
		}
	}
}
