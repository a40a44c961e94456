package transcripts

// choices say whom Quire follows where the two Kafkas differ.
var choices = []choice{
	{"(features|software|cluster).*: ApiVersions v.*", onKafka4, "features are those of the newest clients"},
	{"create (no down-conversion|old format|old time difference|small segments): CreateTopics v.*", onKafka3, "tools of 3.x may set what 4.x removed"},
	{"(a partition twice|no partitions): ListOffsets v.*", onKafka3, "every topic and partition of a request is answered"},
	{"(settings of a topic|altered|changed).*: DescribeConfigs v.*", onKafka3, "min.insync.replicas is a plain default here, not one that a dynamic setting of the cluster gave"},
	{"(all|an empty list of) settings.*: DescribeConfigs v.*", onKafka4, "the settings of the newest version"},
	{"settings of client metrics: DescribeConfigs v.*", onKafka3, "no client metrics are configured"},
	{"settings of a group: DescribeConfigs v.*", onKafka4, "groups have settings since 4.0"},
	{"change a group.*: IncrementalAlterConfigs v.*", onKafka4, "groups have settings since 4.0"},
	{"unknown isolation: Fetch v.*", onKafka4, "an exception in both"},
	{"coordinator of type 2: FindCoordinator v6", onKafka3, "there are no share groups"},
	{"feature twice: UpdateFeatures v1", onKafka4, "the later level counts"},
	{"feature.*: UpdateFeatures v1|unknown feature: UpdateFeatures v1", onKafka3, "version 1 tells the error of each feature"},
	{"defaults: ConsumerGroupHeartbeat v0", onKafka4, "the protocol is served"},
	{"ApiVersions (99|-1).*", onKafka4, "version 5 is the newest"},
}

// differences are the answers that Quire means to give differently.
var differences = []difference{
	// What there is not.
	{"(versions of|defaults:|a key that is not served:|end of|offsets to|partitions to) .*(Txn|Share|Streams|Raft|UnregisterController).*", ".*",
		"transactions, share groups, streams groups and changes of the quorum are not served"},
	{"(features|software.*|cluster and node): ApiVersions v.*", ".*Features.*", "the one feature to agree on is the consumer group protocol"},
	{"transactional batch .*: Produce v.*", "Topics.Partitions.ErrorCode = .*", "no transaction is open, since none is served"},
	{"(a|delete a) (credential|user): (Alter|Describe)UserSCRAMCredentials v0", ".*", "credentials are not stored"},
	{"quota dry: AlterClientQuotas v.*", "Entries.*", "quotas are not stored"},
	{"change client metrics: IncrementalAlterConfigs v.*", "Resources.*", "client metrics are not collected"},
	{"(directories.*|defaults): DescribeLogDirs v[45]", "Dirs.(Total|Usable)Bytes = .*", "data lies in ledgers; the directory that is told has no size"},
	{"quorum: DescribeQuorum v.*", "Topics.Partitions.LeaderEpoch = some|Nodes.Listeners.*", "the quorum is etcd's, which the one node speaks for at its own listener"},
	{"settings of a group: DescribeConfigs v.*", "Resources.*", "groups have the settings that are heeded"},
	{"(all|an empty list of) settings.*: DescribeConfigs v.*", "Resources.Configs.*(errors.deadletterqueue|max.decompressed|remote.copy.lag|min.insync.replicas|segment.bytes).*", "settings that are heeded, with the sources that they have here"},
	{"settings of a topic.*: DescribeConfigs v.*", "Resources.Configs.*", "nothing is set in a file of properties here, as Kafka's runs have it"},
	{"settings of a broker: DescribeConfigs v.*", "Resources.Configs.*", "nothing is set in a file of properties here, and no setting changes while the server runs"},

	// What is taken that Kafka refuses.
	{"(a batch in lz4 of magic 0|codec said, not used|.* in gzip|.* that is not)(, stored: Fetch v12|: Produce v.*)", ".*",
		"a compressed batch is stored as it came, under its checksum, and not unpacked where the topic does not demand it (quire.verify.compressed)"},
	{"old set of magic 1, lz4 of magic 0.*", ".*", "either checksum of an lz4 frame's header is taken from old clients"},
	{"create factor 2: CreateTopics v.*", "Topics.*", "copies are the ledgers' matter, any factor is accepted"},
	{"commit.*: Offset(Commit|Fetch) v0", "Topics.*", "version 0 went to ZooKeeper; here it is stored like every other"},
	{"(unknown isolation|partitions of -1 bytes|-1 bytes in all): (Fetch|ListOffsets) v.*", ".*", "Kafka throws an exception; here the nearest sense is taken"},
	{"by neither id nor name: Metadata v.*", ".*", "Kafka throws an exception; here the rest is answered"},
	{"leader epoch -2: ListOffsets v.*", "Topics.*", "every negative epoch says that none is known, as in Kafka's Fetch"},
	{"create with timeout 0: CreateTopics v.*", "Topics.*", "Kafka waits for its other brokers for no time at all, and says so"},
	{"ApiVersions 99 of (garbage|nothing)|defaults: DescribeACLs v.*|null array where none may be", ".*", "answered, where Kafka closes the connection"},
	{"topic to be created: Metadata v.*", "Topics.*", "a topic is created before the answer and told in it"},

	// What is refused that Kafka takes.
	{"(log append time|first offset delta of 1)(, stored: Fetch v12|: Produce v.*)", ".*", "clients of this format send one whole batch, whose offsets count from 0, with times of their own"},
	{"array of -2|client id of -2", ".*", "no length is below -1"},

	// Errors that are told more exactly.
	{"topic that collides.*: Metadata v.*", "Topics.ErrorCode = .*", "Kafka answers before the controller refuses"},
	{"(codec [57]|old set of .*): Produce v.*", "Topics.Partitions.(ErrorCode = (-1|87|76|32) .*|LogStartOffset = 0)", "Kafka throws an exception"},
	{"old set to partition 9999, acks 2: Produce v.*", "Topics.Partitions.ErrorCode = .*", "acks are looked at first"},
	{"at most -1 offsets.*: ListOffsets v0|change by an unknown way: .*|partitions of impossible names: .*", ".*ErrorCode = .*", "Kafka throws an exception"},

	// Form.
	{".*: Fetch v.*", "Topics.Partitions.AbortedTransactions = \\[\\]", "an error has no list of transactions, be that null or empty"},
	{"create.*: CreateTopics v7", "Topics.TopicID = an id", "a dry run makes no topic, hence no id"},
	{"(a partition|a topic|batches of two producers|several partitions|no partitions).*: (Produce|Fetch|ListOffsets) v.*", ".*", "every entry of a request is answered by itself, in its order"},
	{"old set of magic 2, zstd, .*: Fetch v[0-3]", "Topics.Partitions.RecordBatches = empty", "an error has no records, be that null or empty"},
	{"session of nothing: Fetch v.*", ".*", "a session of nothing is none"},
	{"(from the beginning|as a debugging consumer|waiting for more than there is|negative least|(all|from within a batch) of read-.*|zstd and another topic|partitions of .*|.* bytes? in all|1 byte of .*): Fetch v[0-3]", "Topics.Partitions.RecordBatches(: (inner message|message|wrapper|the beginning of a batch).*| = empty)",
		"how many messages fit is measured after conversion, not before; one that does not is sent in part, so that old clients tell that their limit is too low"},
}

// differencesOfNodes are those of several nodes.
var differencesOfNodes = []difference{
	{"((unknown producer, (sequence of 9|next)|last sequence|sequence after the last|sequences around the last|sequence after those)(, stored)?: (Produce|Fetch)|producers of idempotent2?: DescribeProducers) v.*", ".*",
		"a producer of which nothing is known begins with sequence 0: what comes before may be lost on another node"},
}
