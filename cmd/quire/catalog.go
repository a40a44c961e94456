package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/quirelog/quire/coordinator"
)

// kind is the type of a key's value, with the numbers of DescribeConfigs v3
// (ConfigDef.Type in Kafka).
type kind int8

const (
	kindBool   kind = 1
	kindString kind = 2
	kindInt    kind = 3 // 32 bits, signed
	kindShort  kind = 4 // 16 bits, signed
	kindLong   kind = 5 // 64 bits, signed
	kindDouble kind = 6
	kindList   kind = 7 // separated by commas
)

func (k kind) String() string {
	switch k {
	case kindBool:
		return "true or false"
	case kindInt, kindShort:
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

	Min, Max int64                // of kindInt, kindShort and kindLong; both 0: no bounds but the type's
	OneOf    []string             // allowed values; nil: any
	Check    func(v string) error // beyond type, bounds and OneOf; nil: none

	// Unset says that "" is allowed and means: not set, another key or the
	// machine decides.
	Unset bool
	// Ours marks a key that Kafka does not have. DescribeConfigs leaves it out.
	Ours bool
	// Fixed marks a key whose value tools ask for and nobody may change.
	Fixed bool
	// Secret marks a key whose value is never printed.
	Secret bool
}

const (
	maxInt32 = math.MaxInt32
	maxInt64 = math.MaxInt64
)

// catalog holds every key: those of the node, grouped as the reader of a
// configuration meets them, then the defaults of topic configs.
var catalog = slices.Concat(nodeKeys, topicDefaultKeys())

var nodeKeys = []key{
	// Where it listens.
	{Name: "listeners", Kind: kindList, Default: "PLAINTEXT://127.0.0.1:9092", Check: checkListeners,
		Doc: "Addresses that clients connect to, NAME://host:port each. An empty host is every interface, port 0 any free port, NAME:///path a unix socket."},
	{Name: "advertised.listeners", Kind: kindList, Unset: true, Check: checkAdvertised,
		Doc: "Addresses that clients are told to use, NAME://host:port each, by the names of listeners. ${node.id}, ${node.id+9100} and ${node.name} stand for the node's own, so that all nodes can have one configuration. Unset: those of listeners, with the machine's name for an empty host."},
	{Name: "listener.advertise", Kind: kindList, Unset: true, Ours: true, Check: checkListenerAdvertise,
		Doc: "What clients of each listener are told, NAME:node or NAME:proxy each. node: each node's own address, for clients that can reach every node. proxy: one address for everything, for clients behind a load balancer; what arrives at a node that does not have it is forwarded. Unset: node."},
	{Name: "listener.security.protocol.map", Kind: kindList, Default: "PLAINTEXT:PLAINTEXT,SSL:SSL,UNIX:PLAINTEXT", Check: checkProtocolMap,
		Doc: "Security protocol of each listener name, NAME:PROTOCOL each: PLAINTEXT or SSL, which is TLS."},
	{Name: "listener.proxy.protocol", Kind: kindList, Unset: true, Ours: true,
		Doc: "Names of listeners that load balancers connect to, not clients themselves: each connection must begin with a PROXY protocol header (v1 or v2; send-proxy-v2 in HAProxy) that says whose it is."},
	{Name: "proxy.protocol.trusted.networks", Kind: kindList, Default: "127.0.0.0/8,::1/128", Ours: true, Check: checkNetworks,
		Doc: "Addresses of the load balancers whose PROXY protocol headers are believed, as networks (10.0.0.0/8) or single addresses. Whoever else connects to a listener of listener.proxy.protocol is refused. Unix sockets are always trusted."},

	// TLS of the listeners that have the protocol SSL.
	{Name: "ssl.keystore.type", Kind: kindString, Default: "PEM", OneOf: []string{"PEM"},
		Doc: "Format of ssl.keystore.location."},
	{Name: "ssl.keystore.location", Kind: kindString, Unset: true,
		Doc: "PEM file with the private key, unencrypted, and the certificate with those of its authorities behind it. A changed file counts for connections from then on."},
	{Name: "ssl.certificate.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the certificate and those of its authorities, where the key lies in a file of its own; instead of ssl.keystore.location."},
	{Name: "ssl.key.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the private key of ssl.certificate.file, unencrypted."},
	{Name: "ssl.client.auth", Kind: kindString, Default: "none", OneOf: []string{"none", "requested", "required"},
		Doc: "Whether clients show a certificate that ssl.truststore.location leads to."},
	{Name: "ssl.truststore.type", Kind: kindString, Default: "PEM", OneOf: []string{"PEM"},
		Doc: "Format of ssl.truststore.location."},
	{Name: "ssl.truststore.location", Kind: kindString, Unset: true,
		Doc: "PEM file with the certificates that those of clients must lead to. A changed file counts for connections from then on."},
	{Name: "ssl.enabled.protocols", Kind: kindList, Default: "TLSv1.2,TLSv1.3", Check: checkTLSProtocols,
		Doc: "Versions of TLS that clients may use: TLSv1 to TLSv1.3, without gaps. TLSv1 and TLSv1.1 are broken and for clients that have nothing else."},

	{Name: "admin.listen", Kind: kindString, Default: "127.0.0.1:9644", Unset: true, Ours: true, Check: checkHostPort,
		Doc: "Address of the admin HTTP listener: metrics, health, profiles. It has no authentication. Empty: none."},

	{Name: "agent.listen", Kind: kindString, Unset: true, Ours: true, Check: checkHostPort,
		Doc: "Address that answers the agent checks of load balancers (agent-check in HAProxy): one line for each connection, \"up ready\", \"drain\" while this node hands over what it serves, or \"down #reason\". Unset: none."},

	// Who it is and where its data lies.
	{Name: "data.dir", Kind: kindString, Default: "./quire-data", Ours: true,
		Doc: "Folder of everything that quire keeps. One process owns it."},
	{Name: "node.id", Kind: kindInt, Default: "-1", Min: -1, Max: maxInt32,
		Doc: "Id of this node in answers to clients. -1: given out once by the metadata store and kept for node.name."},
	{Name: "broker.rack", Kind: kindString, Unset: true,
		Doc: "Rack of this node, told to clients."},
	{Name: "cluster.name", Kind: kindString, Default: "main", Ours: true, Check: checkName,
		Doc: "Name of the cluster in its etcd: several clusters can share one. All nodes of a cluster have the same."},
	{Name: "node.name", Kind: kindString, Unset: true, Ours: true, Check: checkName,
		Doc: "Name of this node, which its id belongs to: a node that starts again under its name has its id again, with whatever data.dir. No two nodes may have the same. Unset: the name that its data folder was given."},
	{Name: "node.weight", Kind: kindInt, Default: "100", Min: 1, Max: 10000, Ours: true,
		Doc: "Share of the partitions and groups that this node serves, in proportion to the weights of the other nodes."},
	{Name: "node.balance.slots.per.second", Kind: kindInt, Default: "100", Min: 1, Max: coordinator.NumSlots, Ours: true,
		Doc: "How many of its 1024 slots this node gives in a second to a node that has joined. A drain is not held up by it."},
	{Name: "node.lease.ttl.ms", Kind: kindInt, Default: "10000", Min: 3000, Max: 60000, Ours: true,
		Doc: "Time without a sign of life after which the other nodes take this one for dead and take over what it serves. etcd counts in whole seconds."},

	// How nodes reach each other.
	{Name: "peer.listen", Kind: kindString, Unset: true, Ours: true, Check: checkHostPort,
		Doc: "Address where other nodes reach this one, host:port; never for clients. A cluster of several nodes needs it on each. Unset: none, for a node that serves alone."},
	{Name: "peer.advertised", Kind: kindString, Unset: true, Ours: true, Check: checkPeerAdvertised,
		Doc: "Address that other nodes are told for peer.listen, host:port. Unset: that of peer.listen, with the machine's name for an empty host."},
	{Name: "peer.secret.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "File with the secret that nodes prove to each other that they know, the same on all of them; at least 16 bytes, line ends do not count. Unset: a random one that the first node writes into etcd."},
	{Name: "peer.tls.ca.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the certificates that the certificates of other nodes must lead to. With peer.tls.cert.file and peer.tls.key.file nodes talk over TLS and both sides show a certificate."},
	{Name: "peer.tls.cert.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the certificate that this node shows to other nodes, read again at every connection. It must be for the host of peer.advertised."},
	{Name: "peer.tls.key.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the private key of peer.tls.cert.file."},

	// Where its metadata lies.
	{Name: "etcd.endpoints", Kind: kindList, Unset: true, Ours: true, Check: checkEtcdEndpoints,
		Doc: "Members of the etcd cluster that keeps the metadata, http://host:port or https://host:port each. Unset: an etcd of one member inside this process, with its files in data.dir."},
	{Name: "etcd.tls.ca.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the certificates that the certificates of etcd's members must lead to. Unset: those that this machine trusts."},
	{Name: "etcd.tls.cert.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the certificate that this node shows to etcd, read again at every connection. Unset: none."},
	{Name: "etcd.tls.key.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the private key of etcd.tls.cert.file."},
	{Name: "etcd.tls.server.name", Kind: kindString, Unset: true, Ours: true,
		Doc: "Name that the certificates of etcd's members must be for. Unset: the host of the endpoint."},
	{Name: "etcd.username", Kind: kindString, Unset: true, Ours: true,
		Doc: "User to be at etcd. It needs to read and write the keys that begin with quire/."},
	{Name: "etcd.password", Kind: kindString, Unset: true, Ours: true, Secret: true,
		Doc: "Password of etcd.username. Everybody can read the arguments of a process: set it in the file or the environment."},

	// Where records lie.
	{Name: "storage.tier", Kind: kindString, Default: tierEmbedded, OneOf: []string{tierEmbedded, tierBookKeeper}, Ours: true,
		Doc: "Where new ledgers go: embedded, files in data.dir, or bookkeeper, the bookies of an Apache BookKeeper cluster. Older ledgers are read where they lie."},
	{Name: "bookkeeper.metadata.endpoints", Kind: kindList, Unset: true, Ours: true, Check: checkEtcdEndpoints,
		Doc: "Members of the etcd cluster that the bookies register in, http://host:port or https://host:port each; etcd.tls.*, etcd.username and etcd.password go for it too. Unset: etcd.endpoints. If storage.tier is embedded, set it where ledgers on bookies are still to be read."},
	{Name: "bookkeeper.metadata.service.uri", Kind: kindString, Unset: true, Ours: true, Check: checkBookieURI,
		Doc: "Instead of bookkeeper.metadata.endpoints, what the bookies have as metadataServiceUri: zk+hierarchical://host:port;host:port/ledgers, for bookies that register in ZooKeeper, without SASL and TLS, or metadata-store:etcd:http://host:port;http://host:port."},
	{Name: "bookkeeper.tls.enable", Kind: kindBool, Default: "false", Ours: true,
		Doc: "Whether connections to bookies are upgraded to TLS; every bookie must have a tlsProviderFactoryClass then. Bookies with another authentication than by TLS certificates (a bookieAuthProviderFactoryClass with SASL) are not supported."},
	{Name: "bookkeeper.tls.ca.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the certificates that the certificates of bookies must lead to. Unset: those that this machine trusts."},
	{Name: "bookkeeper.tls.cert.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the certificate that this node shows to bookies (tlsClientAuthentication), read again at every connection. Unset: none."},
	{Name: "bookkeeper.tls.key.file", Kind: kindString, Unset: true, Ours: true,
		Doc: "PEM file with the private key of bookkeeper.tls.cert.file."},
	{Name: "bookkeeper.tls.server.name", Kind: kindString, Unset: true, Ours: true,
		Doc: "Name that the certificates of bookies must be for. Unset: the host that the bookie registered with."},
	{Name: "bookkeeper.ensemble", Kind: kindInt, Default: "3", Min: 1, Max: 64, Ours: true,
		Doc: "Bookies that share a ledger, for topics that do not say (quire.ensemble). One more bookie than this lets a lost one be replaced."},
	{Name: "bookkeeper.write.quorum", Kind: kindInt, Default: "3", Min: 1, Max: 64, Ours: true,
		Doc: "Copies of each record, for topics that do not say (quire.write.quorum, or a replication factor of 2 and more)."},
	{Name: "bookkeeper.ack.quorum", Kind: kindInt, Default: "2", Min: 1, Max: 64, Ours: true,
		Doc: "Copies that must be synced before a record is acknowledged, for topics that do not say (quire.ack.quorum)."},
	{Name: "bookkeeper.max.frame.bytes", Kind: kindInt, Default: "5242880", Min: 64 << 10, Max: 128 << 20, Ours: true,
		Doc: "Largest frame that the bookies take: their nettyMaxFrameSizeBytes. A batch must be 1 KiB shorter."},

	// Topics.
	{Name: "auto.create.topics.enable", Kind: kindBool, Default: "true",
		Doc: "Whether asking for the metadata of an unknown topic creates it."},
	{Name: "delete.topic.enable", Kind: kindBool, Default: "true",
		Doc: "Whether topics can be deleted."},
	{Name: "num.partitions", Kind: kindInt, Default: "1", Min: 1, Max: maxInt32,
		Doc: "Partitions of a topic whose creator names no number."},
	{Name: "default.replication.factor", Kind: kindInt, Default: "1", Min: 1, Max: math.MaxInt16,
		Doc: "Replication factor of a topic whose creator names none. With the embedded store there is one copy on one disk, whatever the factor says."},

	{Name: "log.retention.check.interval.ms", Kind: kindLong, Default: "300000", Min: 1, Max: maxInt64,
		Doc: "Time between two looks for expired data."},
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
		Doc: "Requests that may read from disk or convert records at a time, outside the event loops; and as many more that may wait for metadata, or for a partition to be taken over."},
	{Name: "socket.request.max.bytes", Kind: kindInt, Default: "104857600", Min: 1024, Max: maxInt32,
		Doc: "Largest request. A connection that announces a larger one is closed."},
	{Name: "queued.max.request.bytes", Kind: kindLong, Default: "268435456", Min: 1 << 20, Max: maxInt64,
		Doc: "Bytes of requests being read or served, all connections together. Beyond it sockets are not read. What other nodes forward may hold as much again. As much again may wait to be stored of what sets of producers older than Kafka 0.11 were converted to; beyond it they are refused with a retriable error."},
	{Name: "connections.max.idle.ms", Kind: kindLong, Default: "600000", Min: -1, Max: maxInt64,
		Doc: "Silence after which a connection is closed. -1: never."},
	{Name: "max.connections", Kind: kindInt, Default: "2147483647", Min: 1, Max: maxInt32,
		Doc: "Connections at a time. More are closed as soon as they are accepted. It is lowered to what the limit of open files (ulimit -n) leaves beside the server's own files."},
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

	// Consumer groups.
	{Name: "group.initial.rebalance.delay.ms", Kind: kindInt, Default: "3000", Min: 0, Max: maxInt32,
		Doc: "Time that an empty group waits for more members before its first rebalance ends. Each that comes extends it, up to the rebalance timeout."},
	{Name: "group.min.session.timeout.ms", Kind: kindInt, Default: "6000", Min: 1, Max: maxInt32,
		Doc: "Shortest session timeout that a member of a classic group may ask for."},
	{Name: "group.max.session.timeout.ms", Kind: kindInt, Default: "1800000", Min: 1, Max: maxInt32,
		Doc: "Longest session timeout that a member of a classic group may ask for."},
	{Name: "group.max.size", Kind: kindInt, Default: "10000", Min: 1, Max: maxInt32,
		Doc: "Members of a classic group."},
	{Name: "group.coordinator.rebalance.protocols", Kind: kindList, Default: "classic,consumer", Check: checkRebalanceProtocols,
		Doc: "Group protocols that are served: classic, and consumer (KIP-848). classic is always served."},
	{Name: "group.consumer.session.timeout.ms", Kind: kindInt, Default: "45000", Min: 1, Max: maxInt32,
		Doc: "Silence after which a member of a group of the consumer protocol is removed, unless the group has a consumer.session.timeout.ms of its own."},
	{Name: "group.consumer.heartbeat.interval.ms", Kind: kindInt, Default: "5000", Min: 1, Max: maxInt32,
		Doc: "Time between two heartbeats that members of the consumer protocol are told to keep, unless the group has a consumer.heartbeat.interval.ms of its own."},
	{Name: "group.consumer.min.session.timeout.ms", Kind: kindInt, Default: "45000", Min: 1, Max: maxInt32,
		Doc: "Shortest consumer.session.timeout.ms that a group may have of its own, and shortest group.consumer.session.timeout.ms where this is set."},
	{Name: "group.consumer.max.session.timeout.ms", Kind: kindInt, Default: "60000", Min: 1, Max: maxInt32,
		Doc: "Longest consumer.session.timeout.ms of a group, and longest group.consumer.session.timeout.ms where this is set."},
	{Name: "group.consumer.min.heartbeat.interval.ms", Kind: kindInt, Default: "5000", Min: 1, Max: maxInt32,
		Doc: "Shortest consumer.heartbeat.interval.ms of a group, and shortest group.consumer.heartbeat.interval.ms where this is set."},
	{Name: "group.consumer.max.heartbeat.interval.ms", Kind: kindInt, Default: "15000", Min: 1, Max: maxInt32,
		Doc: "Longest consumer.heartbeat.interval.ms of a group, and longest group.consumer.heartbeat.interval.ms where this is set."},
	{Name: "group.consumer.assignors", Kind: kindList, Default: "uniform,range", Check: checkAssignors,
		Doc: "Assignors that members of the consumer protocol may name: uniform, range. The first is that of a group whose members name none."},
	{Name: "group.consumer.max.size", Kind: kindInt, Default: "10000", Min: 1, Max: maxInt32,
		Doc: "Members of a group of the consumer protocol."},
	{Name: "group.consumer.migration.policy", Kind: kindString, Default: "bidirectional", OneOf: []string{"bidirectional", "upgrade", "downgrade", "disabled"},
		Doc: "Whether a group with members may change between the classic and the consumer protocol."},

	// Committed offsets.
	{Name: "offsets.retention.minutes", Kind: kindInt, Default: "10080", Min: 1, Max: maxInt32,
		Doc: "Time for which committed offsets are kept after their group became empty, or after the commit if nobody subscribes."},
	{Name: "offsets.retention.check.interval.ms", Kind: kindLong, Default: "600000", Min: 1, Max: maxInt64,
		Doc: "Time between two looks for expired offsets."},
	{Name: "offset.metadata.max.bytes", Kind: kindInt, Default: "4096", Min: 0, Max: 65536,
		Doc: "Longest metadata of a committed offset."},
	{Name: "offsets.commit.timeout.ms", Kind: kindInt, Default: "5000", Min: 1, Max: maxInt32,
		Doc: "Time after which a commit that the metadata store has not taken is refused with a retriable error."},

	// Memory and disk.
	{Name: "tail.cache.bytes", Kind: kindLong, Default: "134217728", Min: 1 << 20, Max: maxInt64, Ours: true,
		Doc: "Memory for recently produced batches, all partitions together. Consumers at the end read from it."},
	{Name: "cold.read.bytes", Kind: kindLong, Default: "67108864", Min: 1 << 20, Max: maxInt64, Ours: true,
		Doc: "Memory for reads of older batches from disk at one time, all partitions together."},
	{Name: "conversion.cache.bytes", Kind: kindLong, Default: "134217728", Min: 0, Max: maxInt64, Ours: true,
		Doc: "Memory for batches converted to the formats of consumers older than Kafka 0.11, so that many who read the same cost one conversion; taken as they are used. It has to span how far apart consumers drift that began together: a hundred of them outran 32 MiB, and not 128. 0: none."},
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
	{Name: "metrics.group.lag", Kind: kindBool, Default: "false", Ours: true,
		Doc: "Whether /metrics tells the lag of each group for each partition that it has committed (quire_group_lag)."},
	{Name: "metrics.group.lag.max.series", Kind: kindInt, Default: "10000", Min: 1, Max: 1_000_000, Ours: true,
		Doc: "Partitions of groups whose lag is told. quire_group_lag_left_out counts the others."},
	{Name: "log.level", Kind: kindString, Default: "info", OneOf: []string{"debug", "info", "warn", "error"}, Ours: true,
		Doc: "Least severe messages to log. debug tells of every connection."},
	{Name: "log.format", Kind: kindString, Default: "auto", OneOf: []string{"auto", "console", "json"}, Ours: true,
		Doc: "Form of log lines. auto: console on a terminal, json otherwise."},

	// Asked for by tools.
	{Name: "offsets.topic.replication.factor", Kind: kindShort, Default: "1", Min: 1, Max: math.MaxInt16,
		Doc: "Echoed: tools read it. Offsets have no topic."},
	{Name: "inter.broker.protocol.version", Kind: kindString, Default: "3.9-IV0", Fixed: true,
		Doc: "Told to tools that ask."},
}

// topicDefaultKeys are the settings of a broker that are defaults of topic
// configs, log.retention.hours for one. What they mean and allow is the
// coordinator's to say.
func topicDefaultKeys() []key {
	var keys []key
	for _, config := range coordinator.TopicConfigs() {
		for i, synonym := range config.Broker {
			k := key{
				Name:  synonym.Name,
				Kind:  kind(config.Type),
				Unset: true,
				Ours:  strings.HasPrefix(config.Name, "quire."),
				Doc:   "Default of the topic config " + config.Name + ": " + config.Documentation,
				Check: func(v string) error {
					_, err := coordinator.BrokerDefaults(map[string]string{synonym.Name: v})
					if err != nil {
						prefix := synonym.Name + ": " + coordinator.ErrInvalidConfig.Error() + ": "
						return fmt.Errorf("is invalid: %s", strings.TrimPrefix(err.Error(), prefix))
					}
					return nil
				},
			}
			if synonym.Factor > 0 { // minutes and hours; only milliseconds need 64 bits
				k.Kind = kindInt
			}
			if i > 0 {
				k.Doc = "The same in " + unitNames[synonym.Factor] + ", if " + config.Broker[i-1].Name + " is not set."
			}
			// Where a config has several settings, the last one has the
			// default and those that win over it are not set.
			if i == len(config.Broker)-1 {
				k.Default = config.Default
				if n, err := strconv.ParseInt(config.Default, 10, 64); err == nil && synonym.Factor > 0 {
					k.Default = strconv.FormatInt(n/synonym.Factor, 10)
				}
			}
			keys = append(keys, k)
		}
	}
	return keys
}

// unitNames are the units of settings whose topic config is in milliseconds.
var unitNames = map[int64]string{0: "milliseconds", 60_000: "minutes", 3_600_000: "hours"}

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
	"ssl.keystore.password":               "",
	"ssl.key.password":                    "",
	"ssl.truststore.password":             "",
	"ssl.protocol":                        "ssl.enabled.protocols",
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
	case kindInt, kindShort, kindLong:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return fmt.Errorf("must be %s, not %q", k.Kind, v)
		}
		if k.Min < k.Max && (n < k.Min || n > k.Max) {
			return fmt.Errorf("must be between %d and %d, not %d", k.Min, k.Max, n)
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

// editDistance is Levenshtein's distance in bytes, of names cut to maxKeyBytes.
func editDistance(a, b string) int {
	const maxKeyBytes = 128
	a, b = a[:min(len(a), maxKeyBytes)], b[:min(len(b), maxKeyBytes)]
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

// checkRebalanceProtocols checks group.coordinator.rebalance.protocols.
func checkRebalanceProtocols(v string) error {
	names := splitList(v)
	for _, name := range names {
		if name != "classic" && name != "consumer" {
			return fmt.Errorf("must be of classic and consumer, not %q", name)
		}
	}
	if !slices.Contains(names, "classic") {
		return fmt.Errorf("must have classic")
	}
	return nil
}

// checkAssignors checks group.consumer.assignors.
func checkAssignors(v string) error {
	names := splitList(v)
	for i, name := range names {
		if name != "uniform" && name != "range" {
			return fmt.Errorf("must be of uniform and range, not %q", name)
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("must have %s once", name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("must have one")
	}
	return nil
}

// maxNameBytes bounds cluster.name and node.name.
const maxNameBytes = 64

// checkName checks cluster.name and node.name, which are parts of keys in etcd, of
// addresses and of paths.
func checkName(v string) error {
	if len(v) > maxNameBytes || strings.Trim(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" || strings.HasPrefix(v, ".") || strings.HasPrefix(v, "-") {
		return fmt.Errorf("must be up to %d letters, digits, dots, dashes and underscores, not %q", maxNameBytes, v)
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
