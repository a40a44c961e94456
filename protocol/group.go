package protocol

import (
	"fmt"
	"time"
)

// Keys of the APIs that are about one group, and begin with its id.
const (
	keyOffsetCommit           = 8
	keyOffsetFetch            = 9
	keyJoinGroup              = 11
	keyHeartbeat              = 12
	keyLeaveGroup             = 13
	keySyncGroup              = 14
	keyOffsetDelete           = 47
	keyConsumerGroupHeartbeat = 68

	offsetFetchOfMany = 8 // from this version on OffsetFetch is about many groups
)

// NamesGroup says whether requests of that key and version are about one group.
func NamesGroup(key, version int16) bool {
	switch key {
	case keyOffsetCommit, keyJoinGroup, keyHeartbeat, keyLeaveGroup, keySyncGroup, keyOffsetDelete, keyConsumerGroupHeartbeat:
		return true
	case keyOffsetFetch:
		return version < offsetFetchOfMany
	}
	return false
}

// PeekGroup returns the id of the group that a request is about, without reading
// more than that. NamesGroup says of which requests. The id aliases body.
func PeekGroup(key, version int16, body []byte) (string, error) {
	r := reader{src: body}
	id := r.string(FlexibleRequest(key, version))
	if r.bad {
		return "", fmt.Errorf("%w: group of API key %d v%d: %s", ErrMalformed, key, version, r.why)
	}
	return id, nil
}

// PeekJoinTimeout returns how long a JoinGroup request may wait for the other
// members: the rebalance timeout, or the session timeout in v0, which has no other.
func PeekJoinTimeout(version int16, body []byte) (time.Duration, error) {
	r := reader{src: body}
	r.string(FlexibleRequest(keyJoinGroup, version))
	ms := r.int32()
	if version >= 1 {
		ms = r.int32()
	}
	if r.bad {
		return 0, fmt.Errorf("%w: timeouts of JoinGroup v%d: %s", ErrMalformed, version, r.why)
	}
	return time.Duration(max(ms, 0)) * time.Millisecond, nil
}
