package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// kind is the type of a key's value, with the numbers of DescribeConfigs v3
// (ConfigDef.Type in Kafka).
type kind int8

const (
	kindBool   kind = 1
	kindString kind = 2
	kindInt    kind = 3 // 32 bits, signed
	kindLong   kind = 5 // 64 bits, signed
	kindDouble kind = 6
	kindList   kind = 7 // separated by commas
)

func (k kind) String() string {
	switch k {
	case kindBool:
		return "true or false"
	case kindInt:
		return "a whole number"
	case kindLong:
		return "a whole number"
	case kindDouble:
		return "a number"
	case kindList:
		return "a list separated by commas"
	default:
		return "text"
	}
}

// key is one row of the catalog. The file, the environment, the flags, the
// documentation and the broker's DescribeConfigs all come from it.
type key struct {
	Name    string
	Kind    kind
	Default string
	Doc     string

	Min, Max int64                // of kindInt and kindLong; both 0: no bounds but the type's
	OneOf    []string             // allowed values; nil: any
	Check    func(v string) error // beyond type, bounds and OneOf; nil: none

	// Topic is the topic config that this key is the default of, with its
	// value unchanged (ServerTopicConfigSynonyms in Kafka).
	Topic string
	// Unset says that "" is allowed and means: not set, another key or the
	// machine decides.
	Unset bool
	// Ours marks a key that Kafka does not have. DescribeConfigs leaves it out.
	Ours bool
	// Fixed marks a key whose value tools ask for and nobody may change.
	Fixed bool
}

const (
	maxInt32 = math.MaxInt32
	maxInt64 = math.MaxInt64
)

// catalog holds every key, grouped as the reader of a configuration meets them.
var catalog = []key{
	// Where it listens.
	{Name: "listeners", Kind: kindList, Default: "PLAINTEXT://127.0.0.1:9092", Check: checkListeners,
		Doc: "Addresses that clients connect to, NAME://host:port each. An empty host is every interface, port 0 any free port, NAME:///path a unix socket."},
	{Name: "advertised.listeners", Kind: kindList, Unset: true, Check: checkAdvertised,
		Doc: "Addresses that clients are told to use, NAME://host:port each, by the names of listeners. Unset: those of listeners, with the machine's name for an empty host."},
	{Name: "listener.security.protocol.map", Kind: kindList, Default: "PLAINTEXT:PLAINTEXT,UNIX:PLAINTEXT", Check: checkProtocolMap,
		Doc: "Security protocol of each listener name, NAME:PROTOCOL each. PLAINTEXT is the only protocol yet."},
	{Name: "admin.listen", Kind: kindString, Default: "127.0.0.1:9644", Unset: true, Ours: true, Check: checkHostPort,
		Doc: "Address of the admin HTTP listener: metrics, health, profiles. It has no authentication. Empty: none."},

	// Who it is and where its data lies.
	{Name: "data.dir", Kind: kindString, Default: "./quire-data", Ours: true,
		Doc: "Folder of everything that quire keeps. One process owns it."},
	{Name: "node.id", Kind: kindInt, Default: "-1", Min: -1, Max: maxInt32,
		Doc: "Id of this node in answers to clients. -1: given out once by the metadata store and kept."},
	{Name: "broker.rack", Kind: kindString, Unset: true,
		Doc: "Rack of this node, told to clients."},

	// Topics.
	{Name: "auto.create.topics.enable", Kind: kindBool, Default: "true",
		Doc: "Whether asking for the metadata of an unknown topic creates it."},
	{Name: "delete.topic.enable", Kind: kindBool, Default: "true",
		Doc: "Whether topics can be deleted."},
	{Name: "num.partitions", Kind: kindInt, Default: "1", Min: 1, Max: maxInt32,
		Doc: "Partitions of a topic whose creator names no number."},
	{Name: "default.replication.factor", Kind: kindInt, Default: "1", Min: 1, Max: math.MaxInt16,
		Doc: "Replication factor of a topic whose creator names none. With the embedded store there is one copy on one disk, whatever the factor says."},

	// Defaults of topic configs.
	{Name: "log.cleanup.policy", Kind: kindList, Default: "delete", Topic: "cleanup.policy", Check: checkCleanupPolicy,
		Doc: "Default of cleanup.policy: delete, compact or both."},
	{Name: "log.retention.ms", Kind: kindLong, Unset: true, Min: -1, Max: maxInt64,
		Doc: "Default of retention.ms: age in milliseconds at which records may go; -1 never. Unset: log.retention.minutes decides."},
	{Name: "log.retention.minutes", Kind: kindInt, Unset: true, Min: -1, Max: maxInt32,
		Doc: "The same in minutes. Unset: log.retention.hours decides."},
	{Name: "log.retention.hours", Kind: kindInt, Default: "168", Min: -1, Max: maxInt32,
		Doc: "The same in hours."},
	{Name: "log.retention.bytes", Kind: kindLong, Default: "-1", Min: -1, Max: maxInt64, Topic: "retention.bytes",
		Doc: "Default of retention.bytes: size of a partition beyond which its oldest ledgers go; -1 no limit."},
	{Name: "log.retention.check.interval.ms", Kind: kindLong, Default: "300000", Min: 1, Max: maxInt64,
		Doc: "Time between two looks for expired data."},
	{Name: "log.segment.bytes", Kind: kindInt, Default: "1073741824", Min: 14, Max: maxInt32, Topic: "segment.bytes",
		Doc: "Default of segment.bytes: size at which a partition starts a new ledger."},
	{Name: "log.roll.ms", Kind: kindLong, Unset: true, Min: 1, Max: maxInt64,
		Doc: "Default of segment.ms: age at which a partition starts a new ledger. Unset: log.roll.hours decides."},
	{Name: "log.roll.hours", Kind: kindInt, Default: "168", Min: 1, Max: maxInt32,
		Doc: "The same in hours."},
	{Name: "message.max.bytes", Kind: kindInt, Default: "1048588", Min: 0, Max: maxInt32, Topic: "max.message.bytes",
		Doc: "Default of max.message.bytes: largest record batch, compressed."},
	{Name: "compression.type", Kind: kindString, Default: "producer", Topic: "compression.type",
		OneOf: []string{"producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"},
		Doc:   "Default of compression.type: the codec that batches are stored in; producer keeps what came."},
	{Name: "compression.gzip.level", Kind: kindInt, Default: "-1", Min: -1, Max: 9, Topic: "compression.gzip.level",
		Doc: "Default of compression.gzip.level, used when batches are recompressed."},
	{Name: "compression.lz4.level", Kind: kindInt, Default: "9", Min: 1, Max: 17, Topic: "compression.lz4.level",
		Doc: "Default of compression.lz4.level, used when batches are recompressed."},
	{Name: "compression.zstd.level", Kind: kindInt, Default: "3", Min: -131072, Max: 22, Topic: "compression.zstd.level",
		Doc: "Default of compression.zstd.level, used when batches are recompressed."},
	{Name: "log.message.timestamp.type", Kind: kindString, Default: "CreateTime", Topic: "message.timestamp.type",
		OneOf: []string{"CreateTime", "LogAppendTime"},
		Doc:   "Default of message.timestamp.type: whose clock stamps a record."},
	{Name: "log.message.timestamp.before.max.ms", Kind: kindLong, Default: "9223372036854775807", Min: 0, Max: maxInt64, Topic: "message.timestamp.before.max.ms",
		Doc: "Default of message.timestamp.before.max.ms: how far in the past a record's timestamp may lie."},
	{Name: "log.message.timestamp.after.max.ms", Kind: kindLong, Default: "3600000", Min: 0, Max: maxInt64, Topic: "message.timestamp.after.max.ms",
		Doc: "Default of message.timestamp.after.max.ms: how far in the future a record's timestamp may lie."},
	{Name: "min.insync.replicas", Kind: kindInt, Default: "1", Min: 1, Max: maxInt32, Topic: "min.insync.replicas",
		Doc: "Default of min.insync.replicas. Echoed: an acknowledged record is always on the ack quorum."},
	{Name: "log.index.interval.bytes", Kind: kindInt, Default: "4096", Min: 0, Max: maxInt32, Topic: "index.interval.bytes",
		Doc: "Default of index.interval.bytes: bytes of records between two entries of the offset index."},
	{Name: "log.cleaner.delete.retention.ms", Kind: kindLong, Default: "86400000", Min: 0, Max: maxInt64, Topic: "delete.retention.ms",
		Doc: "Default of delete.retention.ms. Stored; compaction does not run yet."},
	{Name: "log.cleaner.min.compaction.lag.ms", Kind: kindLong, Default: "0", Min: 0, Max: maxInt64, Topic: "min.compaction.lag.ms",
		Doc: "Default of min.compaction.lag.ms. Stored; compaction does not run yet."},
	{Name: "log.cleaner.max.compaction.lag.ms", Kind: kindLong, Default: "9223372036854775807", Min: 1, Max: maxInt64, Topic: "max.compaction.lag.ms",
		Doc: "Default of max.compaction.lag.ms. Stored; compaction does not run yet."},
	{Name: "log.cleaner.min.cleanable.ratio", Kind: kindDouble, Default: "0.5", Topic: "min.cleanable.dirty.ratio", Check: checkRatio,
		Doc: "Default of min.cleanable.dirty.ratio. Stored; compaction does not run yet."},
	{Name: "producer.id.expiration.ms", Kind: kindInt, Default: "86400000", Min: 1, Max: maxInt32,
		Doc: "Silence after which an idempotent producer is forgotten."},
	{Name: "producer.max.per.partition", Kind: kindInt, Default: "100000", Min: 1, Max: maxInt32, Ours: true,
		Doc: "Idempotent producers that a partition remembers; the longest silent is forgotten first."},
	{Name: "producer.snapshot.interval.bytes", Kind: kindLong, Default: "16777216", Min: 65536, Max: maxInt64, Ours: true,
		Doc: "Bytes of records between two snapshots of a partition's producers and index: what opening it after a crash reads again."},

	// Connections and requests.
	{Name: "num.network.threads", Kind: kindInt, Default: "0", Min: 0, Max: 1024,
		Doc: "Event loops. 0: one per core."},
	{Name: "num.io.threads", Kind: kindInt, Default: "64", Min: 1, Max: 65536,
		Doc: "Requests that may wait for disk or metadata at a time, outside the event loops."},
	{Name: "socket.request.max.bytes", Kind: kindInt, Default: "104857600", Min: 1024, Max: maxInt32,
		Doc: "Largest request. A connection that announces a larger one is closed."},
	{Name: "queued.max.request.bytes", Kind: kindLong, Default: "268435456", Min: 1 << 20, Max: maxInt64,
		Doc: "Bytes of requests being read or served, all connections together. Beyond it sockets are not read."},
	{Name: "connections.max.idle.ms", Kind: kindLong, Default: "600000", Min: -1, Max: maxInt64,
		Doc: "Silence after which a connection is closed. -1: never."},
	{Name: "max.connections", Kind: kindInt, Default: "2147483647", Min: 1, Max: maxInt32,
		Doc: "Connections at a time. More are closed as soon as they are accepted."},
	{Name: "max.connections.per.ip", Kind: kindInt, Default: "2147483647", Min: 1, Max: maxInt32,
		Doc: "The same from one address."},
	{Name: "connection.max.requests", Kind: kindInt, Default: "64", Min: 1, Max: 65536, Ours: true,
		Doc: "Requests of one connection that may wait for their answers to leave. Beyond it the socket is not read."},
	{Name: "connection.max.request.bytes", Kind: kindInt, Default: "16777216", Min: 1024, Max: maxInt32, Ours: true,
		Doc: "The same in bytes of requests. A single request may be larger."},
	{Name: "connection.max.unsent.bytes", Kind: kindInt, Default: "4194304", Min: 1024, Max: maxInt32, Ours: true,
		Doc: "Bytes of answers that may wait for the client of a connection to read them. A single answer may be larger."},
	{Name: "connection.frame.timeout.ms", Kind: kindLong, Default: "30000", Min: 100, Max: maxInt64, Ours: true,
		Doc: "Time in which the next 4 KiB of a request that has begun must come; else the connection is closed."},
	{Name: "connection.peer.timeout.ms", Kind: kindLong, Default: "60000", Min: 1000, Max: maxInt64, Ours: true,
		Doc: "Time without an answer after which a client's machine is taken for gone."},
	{Name: "fetch.max.bytes", Kind: kindInt, Default: "57671680", Min: 1024, Max: maxInt32,
		Doc: "Largest answer to a fetch, whatever the client allows. One whole batch is always sent."},
	{Name: "max.incremental.fetch.session.cache.slots", Kind: kindInt, Default: "1000", Min: 0, Max: maxInt32,
		Doc: "Incremental fetch sessions (KIP-227) kept."},

	// Memory and disk.
	{Name: "tail.cache.bytes", Kind: kindLong, Default: "134217728", Min: 1 << 20, Max: maxInt64, Ours: true,
		Doc: "Memory for recently produced batches, all partitions together. Consumers at the end read from it."},
	{Name: "cold.read.bytes", Kind: kindLong, Default: "67108864", Min: 1 << 20, Max: maxInt64, Ours: true,
		Doc: "Memory for reads of older batches from disk at one time, all partitions together."},
	{Name: "journal.queue.bytes", Kind: kindLong, Default: "536870912", Min: 1 << 20, Max: maxInt64, Ours: true,
		Doc: "Bytes waiting for the journal. Beyond it produce is refused with a retriable error."},
	{Name: "journal.file.bytes", Kind: kindLong, Default: "67108864", Min: 1 << 20, Max: 1 << 40, Ours: true,
		Doc: "Size of a journal file. Files are preallocated and used again."},
	{Name: "journal.max.bytes", Kind: kindLong, Default: "536870912", Min: 2 << 20, Max: maxInt64, Ours: true,
		Doc: "Journal that a start after a crash may have to read. Beyond it produce waits for the ledger files."},
	{Name: "ledger.max.open.files", Kind: kindInt, Default: "512", Min: 16, Max: maxInt32, Ours: true,
		Doc: "Ledger files open at a time."},
	{Name: "disk.min.free.bytes", Kind: kindLong, Default: "268435456", Min: 0, Max: maxInt64, Ours: true,
		Doc: "Free space below which produce is refused with a retriable error while fetches go on."},
	{Name: "ledger.idle.close.ms", Kind: kindLong, Default: "600000", Min: 1000, Max: maxInt64, Ours: true,
		Doc: "Time without a produce after which a partition's ledger is sealed; the next produce starts one."},

	// Operation.
	{Name: "shutdown.timeout.ms", Kind: kindLong, Default: "9000", Min: 100, Max: 600000, Ours: true,
		Doc: "Time that SIGTERM gives to requests in flight and to sealing ledgers. What is acknowledged is safe in any case."},
	{Name: "log.level", Kind: kindString, Default: "info", OneOf: []string{"debug", "info", "warn", "error"}, Ours: true,
		Doc: "Least severe messages to log. debug tells of every connection."},
	{Name: "log.format", Kind: kindString, Default: "auto", OneOf: []string{"auto", "console", "json"}, Ours: true,
		Doc: "Form of log lines. auto: console on a terminal, json otherwise."},

	// Asked for by tools.
	{Name: "offsets.topic.replication.factor", Kind: kindInt, Default: "1", Min: 1, Max: math.MaxInt16,
		Doc: "Echoed: tools read it. Offsets have no topic."},
	{Name: "inter.broker.protocol.version", Kind: kindString, Default: "3.9-IV0", Fixed: true,
		Doc: "Told to tools that ask."},
}

// elsewhere answers those who bring a key of Kafka's that has another name here.
var elsewhere = map[string]string{
	"broker.id":                           "node.id",
	"log.dir":                             "data.dir",
	"log.dirs":                            "data.dir",
	"num.replica.fetchers":                "",
	"zookeeper.connect":                   "",
	"process.roles":                       "",
	"controller.quorum.voters":            "",
	"controller.listener.names":           "",
	"controller.quorum.bootstrap.servers": "",
}

var catalogByName = func() map[string]*key {
	m := make(map[string]*key, len(catalog))
	for i := range catalog {
		m[catalog[i].Name] = &catalog[i]
	}
	return m
}()

// envName is the environment variable of a key: QUIRE_NUM_PARTITIONS.
func envName(name string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
}

const envPrefix = "QUIRE_"

// check says what is wrong with v as a value of k.
func (k *key) check(v string) error {
	if k.Fixed && v != k.Default {
		return fmt.Errorf("is fixed at %s", k.Default)
	}
	if v == "" {
		if k.Unset {
			return nil
		}
		return fmt.Errorf("must not be empty")
	}
	switch k.Kind {
	case kindBool:
		if v != "true" && v != "false" {
			return fmt.Errorf("must be %s, not %q", k.Kind, v)
		}
	case kindInt, kindLong:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return fmt.Errorf("must be %s, not %q", k.Kind, v)
		}
		lo, hi := k.Min, k.Max
		if n < lo || n > hi {
			return fmt.Errorf("must be between %d and %d, not %d", lo, hi, n)
		}
	case kindDouble:
		if _, err := strconv.ParseFloat(v, 64); err != nil {
			return fmt.Errorf("must be %s, not %q", k.Kind, v)
		}
	}
	if k.OneOf != nil && !slices.Contains(k.OneOf, v) {
		return fmt.Errorf("must be one of %s, not %q", strings.Join(k.OneOf, ", "), v)
	}
	if k.Check != nil {
		return k.Check(v)
	}
	return nil
}

// errUnknownKey names an unknown key and what may have been meant.
func errUnknownKey(name string) error {
	if to, ok := elsewhere[name]; ok {
		if to == "" {
			return fmt.Errorf("unknown key %s: quire has no use for it, remove it", name)
		}
		return fmt.Errorf("unknown key %s: here it is %s", name, to)
	}
	return fmt.Errorf("unknown key %s: did you mean %s?", name, nearestKey(name))
}

// nearestKey returns the known key with the fewest edits from name.
func nearestKey(name string) string {
	best, bestDistance := "", math.MaxInt
	for i := range catalog {
		if d := editDistance(strings.ToLower(name), catalog[i].Name); d < bestDistance {
			best, bestDistance = catalog[i].Name, d
		}
	}
	return best
}

// editDistance is Levenshtein's distance in bytes, of names cut to maxNameBytes.
func editDistance(a, b string) int {
	const maxNameBytes = 128
	a, b = a[:min(len(a), maxNameBytes)], b[:min(len(b), maxNameBytes)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func checkCleanupPolicy(v string) error {
	for _, p := range splitList(v) {
		if p != "delete" && p != "compact" {
			return fmt.Errorf("must be delete, compact or both, not %q", p)
		}
	}
	return nil
}

func checkRatio(v string) error {
	if f, err := strconv.ParseFloat(v, 64); err != nil || !(f >= 0 && f <= 1) {
		return fmt.Errorf("must be between 0 and 1, not %s", v)
	}
	return nil
}

// splitList splits at commas and drops blanks.
func splitList(v string) []string {
	var out []string
	for _, s := range strings.Split(v, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
