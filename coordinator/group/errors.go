package group

import "errors"

// Errors that a response carries to a client. Each stands for one error code of
// Kafka's, given in brackets, and is returned as it is, never wrapped: a
// heartbeat must not allocate.
var (
	// ErrNotLoaded (14, COORDINATOR_LOAD_IN_PROGRESS): the group's slot is being read. Only the driver answers it.
	ErrNotLoaded = errors.New("the group is being loaded")
	// ErrUnavailable (15, COORDINATOR_NOT_AVAILABLE): a change could not be made durable, or the group is being deleted. Retriable.
	ErrUnavailable = errors.New("the group's coordinator is not available")
	// ErrNotCoordinator (16): this node does not own the group, or has just lost it.
	ErrNotCoordinator = errors.New("another node owns the group")
	// ErrIllegalGeneration (22): the request is of another generation.
	ErrIllegalGeneration = errors.New("the request is of another generation of the group")
	// ErrInconsistentProtocol (23, INCONSISTENT_GROUP_PROTOCOL): the protocol type differs, or no protocol is common to all members.
	ErrInconsistentProtocol = errors.New("the group's members share no such protocol")
	// ErrInvalidGroupID (24): an empty group id where members are meant.
	ErrInvalidGroupID = errors.New("the group id is empty")
	// ErrUnknownMember (25, UNKNOWN_MEMBER_ID).
	ErrUnknownMember = errors.New("the group has no such member")
	// ErrInvalidSessionTimeout (26): outside Config's bounds.
	ErrInvalidSessionTimeout = errors.New("the session timeout is outside the allowed range")
	// ErrRebalanceInProgress (27): the member has to join again.
	ErrRebalanceInProgress = errors.New("the group is rebalancing")
	// ErrUnsupportedVersion (35): an OffsetCommit below v9 of a member of the consumer protocol.
	ErrUnsupportedVersion = errors.New("this version of the request cannot carry a member epoch")
	// ErrInvalidRequest (42): the request contradicts itself.
	ErrInvalidRequest = errors.New("the group request is not valid")
	// ErrNonEmptyGroup (68): the group has members.
	ErrNonEmptyGroup = errors.New("the group has members")
	// ErrGroupNotFound (69, GROUP_ID_NOT_FOUND): no such group, or it is of the other type.
	ErrGroupNotFound = errors.New("no such group")
	// ErrMemberIDRequired (79): the response carries the member id to join with (KIP-394).
	ErrMemberIDRequired = errors.New("join again with the member id of the response")
	// ErrMaxSizeReached (81, GROUP_MAX_SIZE_REACHED).
	ErrMaxSizeReached = errors.New("the group is full")
	// ErrFencedInstance (82, FENCED_INSTANCE_ID): another process joined with the same instance id (KIP-345).
	ErrFencedInstance = errors.New("another member has taken the group instance id")
	// ErrSubscribedTo (86, GROUP_SUBSCRIBED_TO_TOPIC): offsets of a topic in use are not deleted.
	ErrSubscribedTo = errors.New("the group is subscribed to the topic")
	// ErrFencedMemberEpoch (110): the member must give up its partitions and join again.
	ErrFencedMemberEpoch = errors.New("the member's epoch is fenced")
	// ErrUnreleasedInstance (111, UNRELEASED_INSTANCE_ID): the instance id's member has not left.
	ErrUnreleasedInstance = errors.New("the group instance id is still in use")
	// ErrUnsupportedAssignor (112).
	ErrUnsupportedAssignor = errors.New("the server has no such assignor")
	// ErrStaleMemberEpoch (113): the member's epoch has moved on; retriable after its next heartbeat.
	ErrStaleMemberEpoch = errors.New("the member's epoch is stale")
	// ErrInvalidRegex (128, INVALID_REGULAR_EXPRESSION).
	ErrInvalidRegex = errors.New("the subscribed topic expression does not compile")
)

// ErrCorruptRecord is wrapped by Load's error for a record that cannot be
// understood. No client sees it: the driver answers ErrUnavailable and reports it.
var ErrCorruptRecord = errors.New("corrupt group record")
