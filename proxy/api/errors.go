package api

import (
	"context"
	"errors"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/meta"
)

// codes maps errors of the domain to Kafka's codes for one group of APIs. What no
// row names is an internal failure and becomes otherwise, a code that clients of
// those APIs retry: UNKNOWN_SERVER_ERROR is not retried and never sent.
type codes struct {
	rows      []codeOf
	only      bool // rows are all that these clients understand, everywhere is not looked at
	otherwise protocol.Code
}

type codeOf struct {
	err  error
	code protocol.Code
}

// code returns the code of err, None for nil.
func (c *codes) code(err error) protocol.Code {
	if err == nil {
		return protocol.None
	}
	for i := range c.rows {
		if errors.Is(err, c.rows[i].err) {
			return c.rows[i].code
		}
	}
	for i := range everywhere {
		if c.only {
			break
		}
		if errors.Is(err, everywhere[i].err) {
			return everywhere[i].code
		}
	}
	return c.otherwise
}

// everywhere holds the rows that are the same for all APIs.
var everywhere = []codeOf{
	{batch.ErrCorrupt, protocol.CorruptMessage},
	{batch.ErrInvalid, protocol.InvalidRecord},
	{batch.ErrTooLarge, protocol.MessageTooLarge},
	{batch.ErrTimestamp, protocol.InvalidTimestamp},
	{batch.ErrUnknownCodec, protocol.UnsupportedCompressionType},

	{storage.ErrOffsetOutOfRange, protocol.OffsetOutOfRange},
	{storage.ErrFencedEpoch, protocol.FencedLeaderEpoch},
	{storage.ErrUnknownEpoch, protocol.UnknownLeaderEpoch},
	{storage.ErrLostOwnership, protocol.NotLeaderOrFollower},
	{storage.ErrClosed, protocol.NotLeaderOrFollower},
	{storage.ErrNoSpace, protocol.KafkaStorageError},
	{storage.ErrStorage, protocol.KafkaStorageError},
	{storage.ErrCorrupt, protocol.CorruptMessage},
	{storage.ErrOutOfSequence, protocol.OutOfOrderSequenceNumber},
	{storage.ErrUnknownProducer, protocol.UnknownProducerID},
	{storage.ErrProducerEpoch, protocol.InvalidProducerEpoch},
	{storage.ErrTxnState, protocol.InvalidTxnState},
	{storage.ErrCoordinatorFenced, protocol.TransactionCoordinatorFenced},
	{storage.ErrMessageTooLarge, protocol.MessageTooLarge},
	{storage.ErrListTooLarge, protocol.RecordListTooLarge},
	{storage.ErrPolicy, protocol.PolicyViolation},
	{storage.ErrUnknownTimestamp, protocol.UnsupportedVersion},

	{coordinator.ErrTopicExists, protocol.TopicAlreadyExists},
	{coordinator.ErrUnknownTopic, protocol.UnknownTopicOrPartition},
	{coordinator.ErrUnknownTopicID, protocol.UnknownTopicID},
	{coordinator.ErrInvalidTopicName, protocol.InvalidTopicException},
	{coordinator.ErrInvalidPartitions, protocol.InvalidPartitions},
	{coordinator.ErrInvalidReplication, protocol.InvalidReplicationFactor},
	{coordinator.ErrInvalidAssignment, protocol.InvalidReplicaAssignment},
	{coordinator.ErrInvalidConfig, protocol.InvalidConfig},
	{coordinator.ErrPolicy, protocol.PolicyViolation},

	{forward.ErrLost, protocol.RequestTimedOut},
	{forward.ErrProtocol, protocol.RequestTimedOut},
	{errRequest, protocol.InvalidRequest},
	{errUnknownPartition, protocol.UnknownTopicOrPartition},
	{errAcks, protocol.InvalidRequiredAcks},
	{errNoRecords, protocol.InvalidRecord},
	{errInternalTopic, protocol.InvalidTopicException},
	{errDeletionDisabled, protocol.TopicDeletionDisabled},
	{errNotOffered, protocol.UnsupportedVersion},
	{errNoReassignment, protocol.NoReassignmentInProgress},
	{errFeature, protocol.InvalidUpdateVersion},
}

// Errors of requests, that the domain does not know.
var (
	errRequest          = errors.New("invalid request")
	errUnknownPartition = errors.New("unknown partition")
	errAcks             = errors.New("acks must be -1, 0 or 1")
	errNoRecords        = errors.New("no records: a message set may be empty, but not null")
	errZstdTopic        = errors.New("the topic's compression.type is zstd, which needs Fetch v10")
	errNoDownConversion = errors.New("message.downconversion.enable is false: use Fetch v4 or later")
	errInternalTopic    = errors.New("internal topics are written by the broker alone")
	errDeletionDisabled = errors.New("delete.topic.enable is false")
	errNotOffered       = errors.New("this server does not offer them")
	errNoReassignment   = errors.New("no reassignment is in progress")
	errFeature          = errors.New("the version of the feature is not updated")
)

var (
	// fetchErrors serves Fetch. Java's consumer throws IllegalStateException
	// on any code that it does not expect there.
	fetchErrors = codes{
		rows: []codeOf{
			{storage.ErrOffsetOutOfRange, protocol.OffsetOutOfRange},
			{storage.ErrFencedEpoch, protocol.FencedLeaderEpoch},
			{storage.ErrUnknownEpoch, protocol.UnknownLeaderEpoch},
			{storage.ErrLostOwnership, protocol.NotLeaderOrFollower},
			{storage.ErrClosed, protocol.NotLeaderOrFollower},
			{errNotServed, protocol.NotLeaderOrFollower},
			{storage.ErrCorrupt, protocol.CorruptMessage},
			{coordinator.ErrUnknownTopic, protocol.UnknownTopicOrPartition},
			{coordinator.ErrUnknownTopicID, protocol.UnknownTopicID},
			{errUnknownPartition, protocol.UnknownTopicOrPartition},
			{errZstdTopic, protocol.UnsupportedCompressionType},
			{errNoDownConversion, protocol.UnsupportedVersion},
			{batch.ErrUnknownCodec, protocol.UnsupportedCompressionType},
			{batch.ErrCorrupt, protocol.CorruptMessage},
			{batch.ErrInvalid, protocol.CorruptMessage},
			{batch.ErrTooLarge, protocol.CorruptMessage},
		},
		only:      true,
		otherwise: protocol.KafkaStorageError,
	}
	// dataErrors serves Produce, ListOffsets and what else goes to a
	// partition's leader: clients look for the leader anew and try again.
	dataErrors = codes{
		rows: []codeOf{
			// Else NOT_LEADER_OR_FOLLOWER would say that the batch is not stored.
			{storage.ErrUnknownOutcome, protocol.RequestTimedOut},
			{context.DeadlineExceeded, protocol.RequestTimedOut},
			{errNotServed, protocol.NotLeaderOrFollower},
			{coordinator.ErrNotOwner, protocol.NotLeaderOrFollower},
			{coordinator.ErrUnavailable, protocol.NotLeaderOrFollower},
			{forward.ErrUnreachable, protocol.NotLeaderOrFollower},
			{forward.ErrBusy, protocol.NotLeaderOrFollower},
			{forward.ErrTooLarge, protocol.MessageTooLarge},
			{meta.ErrUnavailable, protocol.NotLeaderOrFollower},
			{meta.ErrUnknownOutcome, protocol.NotLeaderOrFollower},
		},
		otherwise: protocol.KafkaStorageError,
	}
	// adminErrors serves what changes or describes topics.
	adminErrors = codes{
		rows:      []codeOf{{group.ErrInvalidGroupID, protocol.InvalidGroupID}},
		otherwise: protocol.RequestTimedOut,
	}
	// metadataErrors serves Metadata's creation of topics.
	metadataErrors = codes{
		rows:      []codeOf{{coordinator.ErrTopicExists, protocol.LeaderNotAvailable}},
		otherwise: protocol.LeaderNotAvailable,
	}
	// groupErrors serves groups and committed offsets. An internal failure
	// makes clients look for the coordinator anew and try again.
	groupErrors = codes{
		rows: []codeOf{
			{group.ErrNotLoaded, protocol.CoordinatorLoadInProgress},
			{group.ErrUnavailable, protocol.CoordinatorNotAvailable},
			{group.ErrNotCoordinator, protocol.NotCoordinator},
			{coordinator.ErrNotOwner, protocol.NotCoordinator},
			{group.ErrIllegalGeneration, protocol.IllegalGeneration},
			{group.ErrInconsistentProtocol, protocol.InconsistentGroupProtocol},
			{group.ErrInvalidGroupID, protocol.InvalidGroupID},
			{group.ErrUnknownMember, protocol.UnknownMemberID},
			{group.ErrInvalidSessionTimeout, protocol.InvalidSessionTimeout},
			{group.ErrRebalanceInProgress, protocol.RebalanceInProgress},
			{group.ErrUnsupportedVersion, protocol.UnsupportedVersion},
			{group.ErrInvalidRequest, protocol.InvalidRequest},
			{group.ErrNonEmptyGroup, protocol.NonEmptyGroup},
			{group.ErrGroupNotFound, protocol.GroupIDNotFound},
			{group.ErrMemberIDRequired, protocol.MemberIDRequired},
			{group.ErrMaxSizeReached, protocol.GroupMaxSizeReached},
			{group.ErrFencedInstance, protocol.FencedInstanceID},
			{group.ErrSubscribedTo, protocol.GroupSubscribedToTopic},
			{group.ErrFencedMemberEpoch, protocol.FencedMemberEpoch},
			{group.ErrUnreleasedInstance, protocol.UnreleasedInstanceID},
			{group.ErrUnsupportedAssignor, protocol.UnsupportedAssignor},
			{group.ErrStaleMemberEpoch, protocol.StaleMemberEpoch},
			{group.ErrInvalidRegex, protocol.InvalidRegularExpression},
			{errNotServed, protocol.CoordinatorNotAvailable},
			{forward.ErrLost, protocol.CoordinatorNotAvailable},
			{forward.ErrProtocol, protocol.CoordinatorNotAvailable},
			{offsets.ErrNotOwner, protocol.NotCoordinator},
			{offsets.ErrClosed, protocol.NotCoordinator},
			{offsets.ErrTooLarge, protocol.InvalidCommitOffsetSize},
		},
		otherwise: protocol.CoordinatorNotAvailable,
	}
	// producerIDErrors serves InitProducerId without a transactional id.
	producerIDErrors = codes{otherwise: protocol.CoordinatorLoadInProgress}
)

// message is the standard text of a code, nil for None.
func message(code protocol.Code) *string {
	if code == protocol.None {
		return nil
	}
	s := code.Message()
	return &s
}

// text is what an error says, nil for nil.
func text(err error) *string {
	if err == nil {
		return nil
	}
	s := err.Error()
	return &s
}
