package protocol

import "strconv"

// Code is an error code of the Kafka protocol (Errors.java). Codes travel in
// responses; as an error a Code says what a client would be told. None is not an
// error: code that returns error returns nil in its place.
type Code int16

// The codes of the protocol, up to Kafka 4.4. What each means to a client is in its message.
const (
	UnknownServerError                     Code = -1
	None                                   Code = 0
	OffsetOutOfRange                       Code = 1
	CorruptMessage                         Code = 2
	UnknownTopicOrPartition                Code = 3
	InvalidFetchSize                       Code = 4
	LeaderNotAvailable                     Code = 5
	NotLeaderOrFollower                    Code = 6
	RequestTimedOut                        Code = 7
	BrokerNotAvailable                     Code = 8
	ReplicaNotAvailable                    Code = 9
	MessageTooLarge                        Code = 10
	StaleControllerEpoch                   Code = 11
	OffsetMetadataTooLarge                 Code = 12
	NetworkException                       Code = 13
	CoordinatorLoadInProgress              Code = 14
	CoordinatorNotAvailable                Code = 15
	NotCoordinator                         Code = 16
	InvalidTopicException                  Code = 17
	RecordListTooLarge                     Code = 18
	NotEnoughReplicas                      Code = 19
	NotEnoughReplicasAfterAppend           Code = 20
	InvalidRequiredAcks                    Code = 21
	IllegalGeneration                      Code = 22
	InconsistentGroupProtocol              Code = 23
	InvalidGroupID                         Code = 24
	UnknownMemberID                        Code = 25
	InvalidSessionTimeout                  Code = 26
	RebalanceInProgress                    Code = 27
	InvalidCommitOffsetSize                Code = 28
	TopicAuthorizationFailed               Code = 29
	GroupAuthorizationFailed               Code = 30
	ClusterAuthorizationFailed             Code = 31
	InvalidTimestamp                       Code = 32
	UnsupportedSASLMechanism               Code = 33
	IllegalSASLState                       Code = 34
	UnsupportedVersion                     Code = 35
	TopicAlreadyExists                     Code = 36
	InvalidPartitions                      Code = 37
	InvalidReplicationFactor               Code = 38
	InvalidReplicaAssignment               Code = 39
	InvalidConfig                          Code = 40
	NotController                          Code = 41
	InvalidRequest                         Code = 42
	UnsupportedForMessageFormat            Code = 43
	PolicyViolation                        Code = 44
	OutOfOrderSequenceNumber               Code = 45
	DuplicateSequenceNumber                Code = 46
	InvalidProducerEpoch                   Code = 47
	InvalidTxnState                        Code = 48
	InvalidProducerIDMapping               Code = 49
	InvalidTransactionTimeout              Code = 50
	ConcurrentTransactions                 Code = 51
	TransactionCoordinatorFenced           Code = 52
	TransactionalIDAuthorizationFailed     Code = 53
	SecurityDisabled                       Code = 54
	OperationNotAttempted                  Code = 55
	KafkaStorageError                      Code = 56
	LogDirNotFound                         Code = 57
	SASLAuthenticationFailed               Code = 58
	UnknownProducerID                      Code = 59
	ReassignmentInProgress                 Code = 60
	DelegationTokenAuthDisabled            Code = 61
	DelegationTokenNotFound                Code = 62
	DelegationTokenOwnerMismatch           Code = 63
	DelegationTokenRequestNotAllowed       Code = 64
	DelegationTokenAuthorizationFailed     Code = 65
	DelegationTokenExpired                 Code = 66
	InvalidPrincipalType                   Code = 67
	NonEmptyGroup                          Code = 68
	GroupIDNotFound                        Code = 69
	FetchSessionIDNotFound                 Code = 70
	InvalidFetchSessionEpoch               Code = 71
	ListenerNotFound                       Code = 72
	TopicDeletionDisabled                  Code = 73
	FencedLeaderEpoch                      Code = 74
	UnknownLeaderEpoch                     Code = 75
	UnsupportedCompressionType             Code = 76
	StaleBrokerEpoch                       Code = 77
	OffsetNotAvailable                     Code = 78
	MemberIDRequired                       Code = 79
	PreferredLeaderNotAvailable            Code = 80
	GroupMaxSizeReached                    Code = 81
	FencedInstanceID                       Code = 82
	EligibleLeadersNotAvailable            Code = 83
	ElectionNotNeeded                      Code = 84
	NoReassignmentInProgress               Code = 85
	GroupSubscribedToTopic                 Code = 86
	InvalidRecord                          Code = 87
	UnstableOffsetCommit                   Code = 88
	ThrottlingQuotaExceeded                Code = 89
	ProducerFenced                         Code = 90
	ResourceNotFound                       Code = 91
	DuplicateResource                      Code = 92
	UnacceptableCredential                 Code = 93
	InconsistentVoterSet                   Code = 94
	InvalidUpdateVersion                   Code = 95
	FeatureUpdateFailed                    Code = 96
	PrincipalDeserializationFailure        Code = 97
	SnapshotNotFound                       Code = 98
	PositionOutOfRange                     Code = 99
	UnknownTopicID                         Code = 100
	DuplicateBrokerRegistration            Code = 101
	BrokerIDNotRegistered                  Code = 102
	InconsistentTopicID                    Code = 103
	InconsistentClusterID                  Code = 104
	TransactionalIDNotFound                Code = 105
	FetchSessionTopicIDError               Code = 106
	IneligibleReplica                      Code = 107
	NewLeaderElected                       Code = 108
	OffsetMovedToTieredStorage             Code = 109
	FencedMemberEpoch                      Code = 110
	UnreleasedInstanceID                   Code = 111
	UnsupportedAssignor                    Code = 112
	StaleMemberEpoch                       Code = 113
	MismatchedEndpointType                 Code = 114
	UnsupportedEndpointType                Code = 115
	UnknownControllerID                    Code = 116
	UnknownSubscriptionID                  Code = 117
	TelemetryTooLarge                      Code = 118
	InvalidRegistration                    Code = 119
	TransactionAbortable                   Code = 120
	InvalidRecordState                     Code = 121
	ShareSessionNotFound                   Code = 122
	InvalidShareSessionEpoch               Code = 123
	FencedStateEpoch                       Code = 124
	InvalidVoterKey                        Code = 125
	DuplicateVoter                         Code = 126
	VoterNotFound                          Code = 127
	InvalidRegularExpression               Code = 128
	RebootstrapRequired                    Code = 129
	StreamsInvalidTopology                 Code = 130
	StreamsInvalidTopologyEpoch            Code = 131
	StreamsTopologyFenced                  Code = 132
	ShareSessionLimitReached               Code = 133
	GroupDeletionFailed                    Code = 134
	StreamsTopologyDescriptionUpdateFailed Code = 135
	ControllerIDNotRegistered              Code = 136
)

type codeInfo struct {
	name, message string
	retriable     bool
}

// codes is indexed by code + 1.
var codes = [...]codeInfo{
	UnknownServerError + 1:                     {"UNKNOWN_SERVER_ERROR", "the server met an error that it did not expect", false},
	None + 1:                                   {"NONE", "no error", false},
	OffsetOutOfRange + 1:                       {"OFFSET_OUT_OF_RANGE", "the offset lies before the start or after the end of the partition", false},
	CorruptMessage + 1:                         {"CORRUPT_MESSAGE", "the bytes do not match their checksum or size", true},
	UnknownTopicOrPartition + 1:                {"UNKNOWN_TOPIC_OR_PARTITION", "there is no such topic or partition here", true},
	InvalidFetchSize + 1:                       {"INVALID_FETCH_SIZE", "the fetch size is not valid", false},
	LeaderNotAvailable + 1:                     {"LEADER_NOT_AVAILABLE", "the partition has no leader at the moment", true},
	NotLeaderOrFollower + 1:                    {"NOT_LEADER_OR_FOLLOWER", "this broker does not lead the partition", true},
	RequestTimedOut + 1:                        {"REQUEST_TIMED_OUT", "the request was not done in its time", true},
	BrokerNotAvailable + 1:                     {"BROKER_NOT_AVAILABLE", "the broker is not available", false},
	ReplicaNotAvailable + 1:                    {"REPLICA_NOT_AVAILABLE", "the replica is not available", true},
	MessageTooLarge + 1:                        {"MESSAGE_TOO_LARGE", "the batch is larger than max.message.bytes", false},
	StaleControllerEpoch + 1:                   {"STALE_CONTROLLER_EPOCH", "the controller has a newer epoch", false},
	OffsetMetadataTooLarge + 1:                 {"OFFSET_METADATA_TOO_LARGE", "the metadata of the committed offset is too large", false},
	NetworkException + 1:                       {"NETWORK_EXCEPTION", "the connection broke before the response came", true},
	CoordinatorLoadInProgress + 1:              {"COORDINATOR_LOAD_IN_PROGRESS", "the coordinator is still loading", true},
	CoordinatorNotAvailable + 1:                {"COORDINATOR_NOT_AVAILABLE", "the coordinator is not available", true},
	NotCoordinator + 1:                         {"NOT_COORDINATOR", "this broker is not the coordinator", true},
	InvalidTopicException + 1:                  {"INVALID_TOPIC_EXCEPTION", "the topic name is not valid, or the topic is internal", false},
	RecordListTooLarge + 1:                     {"RECORD_LIST_TOO_LARGE", "the batch is larger than segment.bytes", false},
	NotEnoughReplicas + 1:                      {"NOT_ENOUGH_REPLICAS", "fewer replicas are in sync than min.insync.replicas asks for", true},
	NotEnoughReplicasAfterAppend + 1:           {"NOT_ENOUGH_REPLICAS_AFTER_APPEND", "the batch was written to fewer replicas than min.insync.replicas asks for", true},
	InvalidRequiredAcks + 1:                    {"INVALID_REQUIRED_ACKS", "acks is none of -1, 0 and 1", false},
	IllegalGeneration + 1:                      {"ILLEGAL_GENERATION", "the generation is not that of the group", false},
	InconsistentGroupProtocol + 1:              {"INCONSISTENT_GROUP_PROTOCOL", "the member has no protocol in common with the group", false},
	InvalidGroupID + 1:                         {"INVALID_GROUP_ID", "the group id is not valid", false},
	UnknownMemberID + 1:                        {"UNKNOWN_MEMBER_ID", "the group does not know the member", false},
	InvalidSessionTimeout + 1:                  {"INVALID_SESSION_TIMEOUT", "the session timeout lies outside what the broker allows", false},
	RebalanceInProgress + 1:                    {"REBALANCE_IN_PROGRESS", "the group rebalances, so rejoin it", false},
	InvalidCommitOffsetSize + 1:                {"INVALID_COMMIT_OFFSET_SIZE", "the offset commit is too large to be stored", false},
	TopicAuthorizationFailed + 1:               {"TOPIC_AUTHORIZATION_FAILED", "not authorized for the topic", false},
	GroupAuthorizationFailed + 1:               {"GROUP_AUTHORIZATION_FAILED", "not authorized for the group", false},
	ClusterAuthorizationFailed + 1:             {"CLUSTER_AUTHORIZATION_FAILED", "not authorized for the cluster", false},
	InvalidTimestamp + 1:                       {"INVALID_TIMESTAMP", "the timestamp of a record lies outside what the topic allows", false},
	UnsupportedSASLMechanism + 1:               {"UNSUPPORTED_SASL_MECHANISM", "the SASL mechanism is not enabled", false},
	IllegalSASLState + 1:                       {"ILLEGAL_SASL_STATE", "the request does not fit the state of the SASL exchange", false},
	UnsupportedVersion + 1:                     {"UNSUPPORTED_VERSION", "the version of the API is not supported", false},
	TopicAlreadyExists + 1:                     {"TOPIC_ALREADY_EXISTS", "a topic of this name exists already", false},
	InvalidPartitions + 1:                      {"INVALID_PARTITIONS", "the number of partitions is not valid", false},
	InvalidReplicationFactor + 1:               {"INVALID_REPLICATION_FACTOR", "the replication factor is not valid", false},
	InvalidReplicaAssignment + 1:               {"INVALID_REPLICA_ASSIGNMENT", "the replica assignment is not valid", false},
	InvalidConfig + 1:                          {"INVALID_CONFIG", "the configuration is not valid", false},
	NotController + 1:                          {"NOT_CONTROLLER", "this broker is not the controller", true},
	InvalidRequest + 1:                         {"INVALID_REQUEST", "the request contradicts itself or the protocol", false},
	UnsupportedForMessageFormat + 1:            {"UNSUPPORTED_FOR_MESSAGE_FORMAT", "the message format does not support this", false},
	PolicyViolation + 1:                        {"POLICY_VIOLATION", "a policy of the broker forbids this", false},
	OutOfOrderSequenceNumber + 1:               {"OUT_OF_ORDER_SEQUENCE_NUMBER", "the sequence number does not follow the last one of this producer", false},
	DuplicateSequenceNumber + 1:                {"DUPLICATE_SEQUENCE_NUMBER", "the sequence number was seen before", false},
	InvalidProducerEpoch + 1:                   {"INVALID_PRODUCER_EPOCH", "the producer has an epoch older than the last one seen", false},
	InvalidTxnState + 1:                        {"INVALID_TXN_STATE", "the transaction is not in a state for this", false},
	InvalidProducerIDMapping + 1:               {"INVALID_PRODUCER_ID_MAPPING", "the producer id is not that of the transactional id", false},
	InvalidTransactionTimeout + 1:              {"INVALID_TRANSACTION_TIMEOUT", "the transaction timeout is longer than the broker allows", false},
	ConcurrentTransactions + 1:                 {"CONCURRENT_TRANSACTIONS", "another change of the same transaction is still in progress", true},
	TransactionCoordinatorFenced + 1:           {"TRANSACTION_COORDINATOR_FENCED", "the transaction coordinator has a newer epoch", false},
	TransactionalIDAuthorizationFailed + 1:     {"TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "not authorized for the transactional id", false},
	SecurityDisabled + 1:                       {"SECURITY_DISABLED", "security features are disabled", false},
	OperationNotAttempted + 1:                  {"OPERATION_NOT_ATTEMPTED", "the operation was not attempted, as another part of the request failed", false},
	KafkaStorageError + 1:                      {"KAFKA_STORAGE_ERROR", "the storage of the partition failed", true},
	LogDirNotFound + 1:                         {"LOG_DIR_NOT_FOUND", "there is no such log directory", false},
	SASLAuthenticationFailed + 1:               {"SASL_AUTHENTICATION_FAILED", "authentication failed", false},
	UnknownProducerID + 1:                      {"UNKNOWN_PRODUCER_ID", "nothing is known of the producer id", false},
	ReassignmentInProgress + 1:                 {"REASSIGNMENT_IN_PROGRESS", "a reassignment of the partition is in progress", false},
	DelegationTokenAuthDisabled + 1:            {"DELEGATION_TOKEN_AUTH_DISABLED", "delegation tokens are disabled", false},
	DelegationTokenNotFound + 1:                {"DELEGATION_TOKEN_NOT_FOUND", "there is no such delegation token", false},
	DelegationTokenOwnerMismatch + 1:           {"DELEGATION_TOKEN_OWNER_MISMATCH", "the principal is neither owner nor renewer of the token", false},
	DelegationTokenRequestNotAllowed + 1:       {"DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", "delegation tokens cannot be asked for over this connection", false},
	DelegationTokenAuthorizationFailed + 1:     {"DELEGATION_TOKEN_AUTHORIZATION_FAILED", "not authorized for the delegation token", false},
	DelegationTokenExpired + 1:                 {"DELEGATION_TOKEN_EXPIRED", "the delegation token has expired", false},
	InvalidPrincipalType + 1:                   {"INVALID_PRINCIPAL_TYPE", "the principal type is not supported", false},
	NonEmptyGroup + 1:                          {"NON_EMPTY_GROUP", "the group has members", false},
	GroupIDNotFound + 1:                        {"GROUP_ID_NOT_FOUND", "there is no such group", false},
	FetchSessionIDNotFound + 1:                 {"FETCH_SESSION_ID_NOT_FOUND", "there is no such fetch session", true},
	InvalidFetchSessionEpoch + 1:               {"INVALID_FETCH_SESSION_EPOCH", "the epoch is not that of the fetch session", true},
	ListenerNotFound + 1:                       {"LISTENER_NOT_FOUND", "the leader has no listener of the name that was asked", true},
	TopicDeletionDisabled + 1:                  {"TOPIC_DELETION_DISABLED", "deleting topics is disabled", false},
	FencedLeaderEpoch + 1:                      {"FENCED_LEADER_EPOCH", "the leader epoch is older than the partition's", true},
	UnknownLeaderEpoch + 1:                     {"UNKNOWN_LEADER_EPOCH", "the leader epoch is newer than the partition's", true},
	UnsupportedCompressionType + 1:             {"UNSUPPORTED_COMPRESSION_TYPE", "the compression type is not supported in this version", false},
	StaleBrokerEpoch + 1:                       {"STALE_BROKER_EPOCH", "the broker has a newer epoch", false},
	OffsetNotAvailable + 1:                     {"OFFSET_NOT_AVAILABLE", "the new leader does not know the end of the partition yet", true},
	MemberIDRequired + 1:                       {"MEMBER_ID_REQUIRED", "join again with the member id of this response", false},
	PreferredLeaderNotAvailable + 1:            {"PREFERRED_LEADER_NOT_AVAILABLE", "the preferred leader is not available", true},
	GroupMaxSizeReached + 1:                    {"GROUP_MAX_SIZE_REACHED", "the group is full", false},
	FencedInstanceID + 1:                       {"FENCED_INSTANCE_ID", "another member has taken the group instance id", false},
	EligibleLeadersNotAvailable + 1:            {"ELIGIBLE_LEADERS_NOT_AVAILABLE", "no eligible leader is available", true},
	ElectionNotNeeded + 1:                      {"ELECTION_NOT_NEEDED", "the partition needs no election", true},
	NoReassignmentInProgress + 1:               {"NO_REASSIGNMENT_IN_PROGRESS", "no reassignment is in progress", false},
	GroupSubscribedToTopic + 1:                 {"GROUP_SUBSCRIBED_TO_TOPIC", "the group is subscribed to the topic", false},
	InvalidRecord + 1:                          {"INVALID_RECORD", "a record is not valid", false},
	UnstableOffsetCommit + 1:                   {"UNSTABLE_OFFSET_COMMIT", "offsets of an open transaction wait to be committed", true},
	ThrottlingQuotaExceeded + 1:                {"THROTTLING_QUOTA_EXCEEDED", "the quota is used up", true},
	ProducerFenced + 1:                         {"PRODUCER_FENCED", "a newer producer uses the same transactional id", false},
	ResourceNotFound + 1:                       {"RESOURCE_NOT_FOUND", "there is no such resource", false},
	DuplicateResource + 1:                      {"DUPLICATE_RESOURCE", "the resource is named twice or exists already", false},
	UnacceptableCredential + 1:                 {"UNACCEPTABLE_CREDENTIAL", "the credential does not meet the rules", false},
	InconsistentVoterSet + 1:                   {"INCONSISTENT_VOTER_SET", "the voters are not those that were expected", false},
	InvalidUpdateVersion + 1:                   {"INVALID_UPDATE_VERSION", "the version of the update is not valid", false},
	FeatureUpdateFailed + 1:                    {"FEATURE_UPDATE_FAILED", "the features could not be updated", false},
	PrincipalDeserializationFailure + 1:        {"PRINCIPAL_DESERIALIZATION_FAILURE", "the forwarded principal could not be read", false},
	SnapshotNotFound + 1:                       {"SNAPSHOT_NOT_FOUND", "there is no such snapshot", false},
	PositionOutOfRange + 1:                     {"POSITION_OUT_OF_RANGE", "the position lies outside the snapshot", false},
	UnknownTopicID + 1:                         {"UNKNOWN_TOPIC_ID", "there is no topic of this id here", true},
	DuplicateBrokerRegistration + 1:            {"DUPLICATE_BROKER_REGISTRATION", "the broker id is registered already", false},
	BrokerIDNotRegistered + 1:                  {"BROKER_ID_NOT_REGISTERED", "the broker id is not registered", false},
	InconsistentTopicID + 1:                    {"INCONSISTENT_TOPIC_ID", "the topic id is not that of the partition", true},
	InconsistentClusterID + 1:                  {"INCONSISTENT_CLUSTER_ID", "the cluster id is not that of this cluster", false},
	TransactionalIDNotFound + 1:                {"TRANSACTIONAL_ID_NOT_FOUND", "there is no such transactional id", false},
	FetchSessionTopicIDError + 1:               {"FETCH_SESSION_TOPIC_ID_ERROR", "the fetch session mixes topic names and topic ids", true},
	IneligibleReplica + 1:                      {"INELIGIBLE_REPLICA", "the replica may not enter the in-sync set", false},
	NewLeaderElected + 1:                       {"NEW_LEADER_ELECTED", "the change made another broker the leader", false},
	OffsetMovedToTieredStorage + 1:             {"OFFSET_MOVED_TO_TIERED_STORAGE", "the offset lies in tiered storage", false},
	FencedMemberEpoch + 1:                      {"FENCED_MEMBER_EPOCH", "the member has a newer epoch", false},
	UnreleasedInstanceID + 1:                   {"UNRELEASED_INSTANCE_ID", "another member still holds the instance id", false},
	UnsupportedAssignor + 1:                    {"UNSUPPORTED_ASSIGNOR", "the assignor is not supported", false},
	StaleMemberEpoch + 1:                       {"STALE_MEMBER_EPOCH", "the member epoch is stale: retry with a new one", false},
	MismatchedEndpointType + 1:                 {"MISMATCHED_ENDPOINT_TYPE", "the request came to an endpoint of the other type", false},
	UnsupportedEndpointType + 1:                {"UNSUPPORTED_ENDPOINT_TYPE", "the endpoint type is not supported", false},
	UnknownControllerID + 1:                    {"UNKNOWN_CONTROLLER_ID", "there is no such controller", false},
	UnknownSubscriptionID + 1:                  {"UNKNOWN_SUBSCRIPTION_ID", "the telemetry subscription has changed: ask for it again", false},
	TelemetryTooLarge + 1:                      {"TELEMETRY_TOO_LARGE", "the telemetry payload is too large", false},
	InvalidRegistration + 1:                    {"INVALID_REGISTRATION", "the registration is not valid", false},
	TransactionAbortable + 1:                   {"TRANSACTION_ABORTABLE", "the transaction can only be aborted", false},
	InvalidRecordState + 1:                     {"INVALID_RECORD_STATE", "the record is not in a state for this", false},
	ShareSessionNotFound + 1:                   {"SHARE_SESSION_NOT_FOUND", "there is no such share session", true},
	InvalidShareSessionEpoch + 1:               {"INVALID_SHARE_SESSION_EPOCH", "the epoch is not that of the share session", true},
	FencedStateEpoch + 1:                       {"FENCED_STATE_EPOCH", "the share state has a newer epoch", false},
	InvalidVoterKey + 1:                        {"INVALID_VOTER_KEY", "the voter's directory id is not the one that was expected", false},
	DuplicateVoter + 1:                         {"DUPLICATE_VOTER", "the voter is in the set already", false},
	VoterNotFound + 1:                          {"VOTER_NOT_FOUND", "the voter is not in the set", false},
	InvalidRegularExpression + 1:               {"INVALID_REGULAR_EXPRESSION", "the regular expression is not valid", false},
	RebootstrapRequired + 1:                    {"REBOOTSTRAP_REQUIRED", "the client must start again from its bootstrap servers", false},
	StreamsInvalidTopology + 1:                 {"STREAMS_INVALID_TOPOLOGY", "the streams topology is not valid", false},
	StreamsInvalidTopologyEpoch + 1:            {"STREAMS_INVALID_TOPOLOGY_EPOCH", "the streams topology epoch is not valid", false},
	StreamsTopologyFenced + 1:                  {"STREAMS_TOPOLOGY_FENCED", "the group has a newer streams topology", false},
	ShareSessionLimitReached + 1:               {"SHARE_SESSION_LIMIT_REACHED", "there are too many share sessions", true},
	GroupDeletionFailed + 1:                    {"GROUP_DELETION_FAILED", "the group could not be deleted", false},
	StreamsTopologyDescriptionUpdateFailed + 1: {"STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED", "the description of the streams topology could not be updated", false},
	ControllerIDNotRegistered + 1:              {"CONTROLLER_ID_NOT_REGISTERED", "the controller id is not registered", false},
}

func (c Code) info() *codeInfo {
	if i := int(c) + 1; i >= 0 && i < len(codes) {
		return &codes[i]
	}
	return nil
}

// Name returns Kafka's name of the code, such as NOT_LEADER_OR_FOLLOWER.
func (c Code) Name() string {
	if i := c.info(); i != nil {
		return i.name
	}
	return "CODE_" + strconv.Itoa(int(c))
}

// Message says in a few words what the code means.
func (c Code) Message() string {
	if i := c.info(); i != nil {
		return i.message
	}
	return "an error code that this version does not know"
}

// Retriable says whether Java clients take the code for one to try again after.
func (c Code) Retriable() bool {
	i := c.info()
	return i != nil && i.retriable
}

// Error returns name and message.
func (c Code) Error() string { return c.Name() + ": " + c.Message() }
