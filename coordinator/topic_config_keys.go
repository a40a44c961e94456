package coordinator

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage"
)

// configKeys are the topic configs of Kafka 4.x (LogConfig, TopicConfig,
// ServerTopicConfigSynonyms) by name, those that Kafka 4.0 removed, which old
// clients still send, and our own.
var configKeys = []*ConfigKey{
	list("cleanup.policy", "delete", "log.cleanup.policy",
		"What becomes of old records: delete drops them by age and size, compact keeps the last one of each key; both may be given.",
		"delete, compact").on(func(l *storage.LogConfig, v string) {
		policies := splitList(v)
		l.Compact, l.Delete = slices.Contains(policies, "compact"), slices.Contains(policies, "delete")
	}),
	integer(ConfigInt, "compression.gzip.level", -1, "compression.gzip.level",
		"Level of compression if compression.type is gzip; -1 is gzip's own default.", 1, 9).alsoDefault(),
	integer(ConfigInt, "compression.lz4.level", 9, "compression.lz4.level",
		"Level of compression if compression.type is lz4.", 1, 17),
	choice("compression.type", "producer", "compression.type",
		"Codec in which batches are stored; producer keeps the one that the producer chose.",
		"uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
	integer(ConfigInt, "compression.zstd.level", 3, "compression.zstd.level",
		"Level of compression if compression.type is zstd.", -131072, 22),
	long("delete.retention.ms", 86_400_000, "log.cleaner.delete.retention.ms",
		"Milliseconds for which a compacted topic keeps the marks of deleted keys.", 0),
	long("file.delete.delay.ms", 60_000, "log.segment.delete.delay.ms",
		"Milliseconds between the removal of a segment and the removal of its file.", 0),
	long("flush.messages", math.MaxInt64, "log.flush.interval.messages",
		"Records after which a flush is forced. Records are always flushed before they are acknowledged.", 1),
	long("flush.ms", math.MaxInt64, "log.flush.interval.ms",
		"Milliseconds after which a flush is forced. Records are always flushed before they are acknowledged.", 0).
		also(BrokerSynonym{Name: "log.flush.scheduler.interval.ms"}),
	throttled("follower.replication.throttled.replicas",
		"Replicas whose copying is throttled where it is written."),
	integer(ConfigInt, "index.interval.bytes", 4096, "log.index.interval.bytes",
		"Bytes of records between two entries of the index.", 0, math.MaxInt32).on(func(l *storage.LogConfig, v string) {
		l.IndexIntervalBytes = int(parseInt(v))
	}),
	throttled("leader.replication.throttled.replicas",
		"Replicas whose copying is throttled where it is read."),
	long("local.retention.bytes", -2, "log.local.retention.bytes",
		"Bytes that stay on the broker of a topic with remote storage; -2 is retention.bytes.", -2),
	long("local.retention.ms", -2, "log.local.retention.ms",
		"Milliseconds for which records stay on the broker of a topic with remote storage; -2 is retention.ms.", -2),
	long("max.compaction.lag.ms", math.MaxInt64, "log.cleaner.max.compaction.lag.ms",
		"Milliseconds after which a record may not stay out of compaction.", 1),
	integer(ConfigInt, "max.message.bytes", 1_048_588, "message.max.bytes",
		"Largest record batch, in bytes after compression.", 0, math.MaxInt32).on(func(l *storage.LogConfig, v string) {
		l.MaxMessageBytes = int(parseInt(v))
	}),
	boolean("message.downconversion.enable", "true", "log.message.downconversion.enable",
		"Whether batches are converted down for consumers of old formats; if not, Fetch below v4 is refused.").
		unlisted().on(func(l *storage.LogConfig, v string) {
		l.NoDownConversion = strings.EqualFold(strings.TrimSpace(v), "false")
	}),
	text("message.format.version", "3.0-IV1", "log.message.format.version",
		"Format of stored records. It is always the newest one.").unlisted(),
	long("message.timestamp.after.max.ms", 3_600_000, "log.message.timestamp.after.max.ms",
		"Milliseconds by which a record's timestamp may be ahead of the broker's clock.", 0).on(func(l *storage.LogConfig, v string) {
		l.TimestampAfterMax = limit(v)
	}),
	long("message.timestamp.before.max.ms", math.MaxInt64, "log.message.timestamp.before.max.ms",
		"Milliseconds by which a record's timestamp may be behind the broker's clock.", 0).on(func(l *storage.LogConfig, v string) {
		l.TimestampBeforeMax = limit(v)
	}),
	long("message.timestamp.difference.max.ms", math.MaxInt64, "log.message.timestamp.difference.max.ms",
		"Milliseconds between a record's timestamp and the broker's clock. The .before and .after settings are in force instead.", 0).unlisted(),
	choice("message.timestamp.type", "CreateTime", "log.message.timestamp.type",
		"Whether records carry the producer's time or the time of their append.",
		"CreateTime", "LogAppendTime").on(func(l *storage.LogConfig, v string) {
		l.LogAppendTime = v == "LogAppendTime"
	}),
	double("min.cleanable.dirty.ratio", "0.5", "log.cleaner.min.cleanable.ratio",
		"Part of a log that is not compacted from which on it is.", 0, 1),
	long("min.compaction.lag.ms", 0, "log.cleaner.min.compaction.lag.ms",
		"Milliseconds for which a record stays out of compaction.", 0),
	integer(ConfigInt, "min.insync.replicas", 1, "min.insync.replicas",
		"Copies that must be durable before acks=all is answered. The ledger tier's ack quorum decides that here.", 1, math.MaxInt32),
	boolean("preallocate", "false", "log.preallocate",
		"Whether files are allocated when a segment is made."),
	integer(ConfigInt, "quire.ack.quorum", 0, "",
		"Bookies that must have synced a record before it is acknowledged; 0 is bookkeeper.ack.quorum, or in a topic with a write quorum of its own min.insync.replicas or else a majority.", 0, maxQuorum).unlisted(),
	integer(ConfigInt, "quire.ensemble", 0, "",
		"Bookies that share a ledger; 0 is the write quorum of the topic, or bookkeeper.ensemble.", 0, maxQuorum).unlisted(),
	boolean("quire.verify.compressed", "false", "log.verify.compressed",
		"Whether compressed batches are unpacked and checked before they are stored. Else a producer that sends what cannot be unpacked stops every consumer there.").
		unlisted().on(func(l *storage.LogConfig, v string) {
		l.VerifyCompressed = strings.EqualFold(strings.TrimSpace(v), "true")
	}),
	integer(ConfigInt, "quire.write.quorum", 0, "",
		"Copies of each record on bookies; 0 is the replication factor that the topic was created with if that is at least 2, or bookkeeper.write.quorum.", 0, maxQuorum).unlisted(),
	boolean("remote.log.copy.disable", "false", "",
		"Whether a topic with remote storage stops copying to it."),
	boolean("remote.log.delete.on.disable", "false", "",
		"Whether remote data is deleted when remote storage is disabled."),
	boolean("remote.storage.enable", "false", "",
		"Whether old segments move to remote storage.").mustBe("false", "remote storage is not available"),
	long("retention.bytes", -1, "log.retention.bytes",
		"Bytes of a partition beyond which old segments are dropped; -1 is no limit.", math.MinInt64).on(func(l *storage.LogConfig, v string) {
		l.RetentionBytes = max(parseInt(v), -1)
	}),
	long("retention.ms", 604_800_000, "log.retention.ms",
		"Milliseconds after which old segments are dropped; -1 is never.", -1).
		also(BrokerSynonym{"log.retention.minutes", 60_000}, BrokerSynonym{"log.retention.hours", 3_600_000}).
		on(func(l *storage.LogConfig, v string) { l.RetentionAge = limit(v) }),
	integer(ConfigInt, "segment.bytes", 1_073_741_824, "log.segment.bytes",
		"Bytes after which the log begins a new segment.", minSegmentBytes, math.MaxInt32).on(func(l *storage.LogConfig, v string) {
		l.SegmentBytes = parseInt(v)
	}),
	integer(ConfigInt, "segment.index.bytes", 10_485_760, "log.index.size.max.bytes",
		"Bytes of a segment's index.", 4, math.MaxInt32),
	long("segment.jitter.ms", 0, "log.roll.jitter.ms",
		"Milliseconds, at random up to so many, that a segment begins earlier than segment.ms says.", 0).
		also(BrokerSynonym{"log.roll.jitter.hours", 3_600_000}),
	long("segment.ms", 604_800_000, "log.roll.ms",
		"Milliseconds after which the log begins a new segment even if it is not full.", 1).
		also(BrokerSynonym{"log.roll.hours", 3_600_000}).
		on(func(l *storage.LogConfig, v string) { l.SegmentAge = max(limit(v), 0) }),
	boolean("unclean.leader.election.enable", "false", "unclean.leader.election.enable",
		"Whether a replica that is behind may become leader. None ever is here."),
}

// minSegmentBytes is Kafka 3's minimum. Kafka 4 raised it to 1 MiB (KIP-1030),
// which would refuse topics that older clients make.
const minSegmentBytes = 14

// maxQuorum bounds the bookies of a ledger.
const maxQuorum = 64

// settleQuorums says how the ledgers of a topic are replicated. What nobody asked for is
// left to the tier. A replication factor of 1 asks for nothing: tools give it where
// nobody has chosen, and it must not cost the copies that the operator wants.
func settleQuorums(l *storage.LogConfig, replicas int16, overrides map[string]string) {
	set := func(name string) int { return int(parseInt(overrides[name])) }
	l.WriteQuorum = set("quire.write.quorum")
	if l.WriteQuorum == 0 && replicas >= 2 {
		l.WriteQuorum = int(replicas)
	}
	l.Ensemble = set("quire.ensemble")
	if l.Ensemble == 0 {
		l.Ensemble = l.WriteQuorum
	}
	l.AckQuorum = set("quire.ack.quorum")
	if l.AckQuorum == 0 && l.WriteQuorum > 0 {
		l.AckQuorum = l.WriteQuorum/2 + 1
		if insync := set("min.insync.replicas"); insync >= 2 {
			l.AckQuorum = min(insync, l.WriteQuorum)
		}
	}
}

// checkQuorums refuses what no ledger can have.
func checkQuorums(l *storage.LogConfig) error {
	if l.Ensemble > 0 && l.WriteQuorum > l.Ensemble {
		return fmt.Errorf("%w: a write quorum of %d of an ensemble of %d bookies", ErrInvalidConfig, l.WriteQuorum, l.Ensemble)
	}
	if l.WriteQuorum > 0 && l.AckQuorum > l.WriteQuorum {
		return fmt.Errorf("%w: an ack quorum of %d of a write quorum of %d bookies", ErrInvalidConfig, l.AckQuorum, l.WriteQuorum)
	}
	return nil
}

// settleCompression combines compression.type with the level of its codec.
func settleCompression(l *storage.LogConfig, value func(name string) string) {
	codec := value("compression.type")
	l.KeepCompression, l.Compression, l.CompressionLevel = false, batch.None, 0
	switch codec {
	case "producer":
		l.KeepCompression = true
	case "gzip":
		l.Compression = batch.Gzip
	case "snappy":
		l.Compression = batch.Snappy
	case "lz4":
		l.Compression = batch.LZ4
	case "zstd":
		l.Compression = batch.Zstd
	}
	if k := TopicConfig("compression." + codec + ".level"); k != nil {
		l.CompressionLevel = int(parseInt(value(k.Name)))
	}
}

// limit is milliseconds as a duration, -1 for none: negative or beyond what a duration holds.
func limit(value string) time.Duration {
	ms := parseInt(value)
	if ms < 0 || ms > int64(math.MaxInt64/time.Millisecond) {
		return -1
	}
	return time.Duration(ms) * time.Millisecond
}

// parseInt reads a value that was checked.
func parseInt(value string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return n
}

func key(typ ConfigType, name, value, broker, doc, allowed string, check func(string) error) *ConfigKey {
	k := &ConfigKey{Name: name, Type: typ, Default: value, Documentation: doc, allowed: allowed, check: check}
	if broker != "" {
		k.Broker = []BrokerSynonym{{Name: broker}}
	}
	return k
}

func (k *ConfigKey) on(set func(*storage.LogConfig, string)) *ConfigKey { k.set = set; return k }
func (k *ConfigKey) unlisted() *ConfigKey                               { k.Unlisted = true; return k }
func (k *ConfigKey) also(s ...BrokerSynonym) *ConfigKey                 { k.Broker = append(k.Broker, s...); return k }

// alsoDefault allows the default, which lies outside the range.
func (k *ConfigKey) alsoDefault() *ConfigKey {
	check := k.check
	k.check = func(v string) error {
		if strings.TrimSpace(v) == k.Default {
			return nil
		}
		return check(v)
	}
	k.allowed += ", or " + k.Default
	return k
}

// mustBe refuses every other value, and says why.
func (k *ConfigKey) mustBe(only, why string) *ConfigKey {
	check := k.check
	k.check = func(v string) error {
		if err := check(v); err != nil {
			return err
		}
		if !strings.EqualFold(strings.TrimSpace(v), only) {
			return errors.New(why)
		}
		return nil
	}
	k.allowed = only
	return k
}

func long(name string, value int64, broker, doc string, least int64) *ConfigKey {
	return integer(ConfigLong, name, value, broker, doc, least, math.MaxInt64)
}

func integer(typ ConfigType, name string, value int64, broker, doc string, least, most int64) *ConfigKey {
	allowed := fmt.Sprintf("an integer from %d to %d", least, most)
	switch {
	case least == math.MinInt64:
		allowed = "an integer of 64 bits"
	case most == math.MaxInt64 || most == math.MaxInt32:
		allowed = fmt.Sprintf("an integer of at least %d", least)
		if most == math.MaxInt32 {
			allowed += " with 32 bits"
		}
	}
	return key(typ, name, strconv.FormatInt(value, 10), broker, doc, allowed, func(v string) error {
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		switch {
		case err != nil:
			return errors.New("it is not an integer")
		case n < least:
			return errors.New("it is too small")
		case n > most:
			return errors.New("it is too large")
		}
		return nil
	})
}

func double(name, value, broker, doc string, least, most float64) *ConfigKey {
	return key(ConfigDouble, name, value, broker, doc, fmt.Sprintf("a number from %v to %v", least, most), func(v string) error {
		n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		switch {
		case err != nil || math.IsNaN(n):
			return errors.New("it is not a number")
		case n < least || n > most:
			return errors.New("it is out of range")
		}
		return nil
	})
}

func boolean(name, value, broker, doc string) *ConfigKey {
	return key(ConfigBoolean, name, value, broker, doc, "true or false", func(v string) error {
		if v = strings.TrimSpace(v); !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
			return errors.New("it is not a boolean")
		}
		return nil
	})
}

func text(name, value, broker, doc string) *ConfigKey {
	return key(ConfigString, name, value, broker, doc, "any text", func(string) error { return nil })
}

func choice(name, value, broker, doc string, choices ...string) *ConfigKey {
	return key(ConfigString, name, value, broker, doc, "one of "+strings.Join(choices, ", "), func(v string) error {
		if !slices.Contains(choices, v) {
			return errors.New("it is none of them")
		}
		return nil
	})
}

func list(name, value, broker, doc, choices string) *ConfigKey {
	elements := splitList(choices)
	return key(ConfigList, name, value, broker, doc, "a list of "+choices, func(v string) error {
		for _, e := range splitList(v) {
			if !slices.Contains(elements, e) {
				return fmt.Errorf("%.100q is none of them", e)
			}
		}
		return nil
	})
}

// throttled is a list of partition:broker, or the asterisk for all
// (ThrottledReplicaListValidator).
func throttled(name, doc string) *ConfigKey {
	return key(ConfigList, name, "", "", doc, "a list of partition:broker, or *", func(v string) error {
		elements := splitList(v)
		if len(elements) == 1 && elements[0] == "*" {
			return nil
		}
		for _, e := range elements {
			partition, broker, ok := strings.Cut(e, ":")
			if !ok || !isNumber(partition) || !isNumber(broker) {
				return fmt.Errorf("%.100q is not partition:broker", e)
			}
		}
		return nil
	})
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil
}

// splitList reads a list as Kafka does: elements are trimmed, "" is the empty list.
func splitList(value string) []string {
	if strings.TrimSpace(value) == "" {
		return nil
	}
	elements := strings.Split(value, ",")
	for i := range elements {
		elements[i] = strings.TrimSpace(elements[i])
	}
	return elements
}

// convert turns a broker setting's value into the topic config's unit.
func (s BrokerSynonym) convert(value string) (string, error) {
	if s.Factor == 0 {
		return value, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	if err != nil {
		return "", fmt.Errorf("%w: %.100q is not an integer", ErrInvalidConfig, value)
	}
	if n < 0 {
		// -1 means no limit in every unit.
		return strconv.FormatInt(n, 10), nil
	}
	if n > math.MaxInt64/s.Factor {
		return strconv.FormatInt(math.MaxInt64, 10), nil
	}
	return strconv.FormatInt(n*s.Factor, 10), nil
}
