package group

import "time"

// Requests are read, and the byte slices and strings in them kept: they must
// not alias a buffer that is used again. An instance id of "" is Kafka's null.

// JoinGroupRequest is JoinGroup v0–v9.
type JoinGroupRequest struct {
	MemberID, InstanceID string
	ClientID, ClientHost string
	SessionTimeout       time.Duration
	RebalanceTimeout     time.Duration // v0 has none: the session timeout
	ProtocolType         string
	Protocols            []Protocol // in the member's order of preference
	// RequireKnownMember (v4+): a dynamic member without an id is given one
	// first and must join with it (KIP-394).
	RequireKnownMember bool
	// SupportsSkipAssignment (v9+): KIP-814.
	SupportsSkipAssignment bool
	// Topics are the cluster's topics now. Only a consumer group looks at them,
	// to assign partitions to a classic member; nil means none are known.
	Topics Topics
}

// Protocol is one way of assigning that a member offers; the group does not
// look into Metadata, except to learn the topics of ConsumerProtocol.
type Protocol struct {
	Name     string
	Metadata []byte
}

// JoinGroupResponse with an error has Generation -1 and no leader, protocol or
// members; MemberID is the one to join with if Err is ErrMemberIDRequired, else
// the member's, or "" if it has none now.
type JoinGroupResponse struct {
	Err                        error
	Generation                 int32
	ProtocolType, ProtocolName string
	LeaderID, MemberID         string
	SkipAssignment             bool
	// Members are listed for the leader only, with the metadata of ProtocolName.
	Members []JoinedMember
}

// JoinedMember is what the leader learns of a member.
type JoinedMember struct {
	MemberID, InstanceID string
	Metadata             []byte
}

// SyncGroupRequest is SyncGroup v0–v5.
type SyncGroupRequest struct {
	MemberID, InstanceID string
	Generation           int32
	// RequireProtocol (v5+): ProtocolType and ProtocolName must be the group's;
	// before, they are not looked at.
	RequireProtocol            bool
	ProtocolType, ProtocolName string
	Assignments                []MemberAssignment // of the leader
}

// MemberAssignment is what the leader gives one member.
type MemberAssignment struct {
	MemberID   string
	Assignment []byte
}

// SyncGroupResponse with an error has nothing else.
type SyncGroupResponse struct {
	Err                        error
	ProtocolType, ProtocolName string
	Assignment                 []byte
}

// HeartbeatRequest is Heartbeat v0–v4.
type HeartbeatRequest struct {
	MemberID, InstanceID string
	Generation           int32
}

// LeaveGroupRequest is LeaveGroup v0–v5; v0–v2 name one member.
type LeaveGroupRequest struct {
	Members []LeavingMember
}

// LeavingMember with an instance id and no member id removes the static member,
// whoever it is (Admin.removeMembersFromConsumerGroup).
type LeavingMember struct {
	MemberID, InstanceID string
}

// LeaveGroupResponse has one entry per LeavingMember, in order, unless Err is
// set. v0–v2 answer Err, or the one member's.
type LeaveGroupResponse struct {
	Err     error
	Members []LeftMember
}

// LeftMember echoes a LeavingMember.
type LeftMember struct {
	MemberID, InstanceID string
	Err                  error
}

// DeleteResponse answers Delete.
type DeleteResponse struct {
	Err error // nil, ErrNonEmptyGroup, ErrGroupNotFound, ErrUnavailable or ErrNotCoordinator
}

// CommitIdentity is who commits or fetches offsets. The zero value with Epoch
// -1 is nobody: a simple consumer or an admin tool.
type CommitIdentity struct {
	MemberID, InstanceID string
	// Epoch is the generation of a classic member, the member epoch of a
	// consumer member, -1 for none.
	Epoch int32
	// EpochIsMember (OffsetCommit v9+, OffsetFetch v9+): the client knows member epochs.
	EpochIsMember bool
}

// response is what answers a ticket.
type response interface {
	// refused is the response that says err instead.
	refused(err error) response
}

func (r *JoinGroupResponse) refused(err error) response {
	// The member id is not durable.
	return &JoinGroupResponse{Err: err, Generation: -1}
}

func (r *SyncGroupResponse) refused(err error) response { return &SyncGroupResponse{Err: err} }

func (r *LeaveGroupResponse) refused(err error) response { return &LeaveGroupResponse{Err: err} }

func (r *DeleteResponse) refused(err error) response { return &DeleteResponse{Err: err} }
