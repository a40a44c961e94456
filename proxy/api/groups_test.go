package api

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/storage/meta"
)

// newGroupServer is a server whose groups are loaded.
func newGroupServer(t testing.TB, change ...func(*options)) *server {
	t.Helper()
	s := newServer(t, change...)
	until(t, "the groups are loaded", func() bool {
		loaded := make(chan error, 1)
		s.coord.Groups().List(func(coordinator.ListedGroup) bool { return false }, func(_ []coordinator.ListedGroup, err error) { loaded <- err })
		return <-loaded == nil
	})
	return s
}

// subscription is what a consumer tells of itself in JoinGroup.
func subscription(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Topics = topics
	return m.AppendTo(nil)
}

func newJoin(version int16, id, member string) *kmsg.JoinGroupRequest {
	q := kmsg.NewPtrJoinGroupRequest()
	q.Version, q.Group, q.MemberID = version, id, member
	q.SessionTimeoutMillis, q.RebalanceTimeoutMillis, q.ProtocolType = 10_000, 10_000, "consumer"
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", subscription("orders")
	q.Protocols = append(q.Protocols, p)
	return q
}

// join joins a group that has no other members and is given its id.
func (c *client) join(version int16, id string) *kmsg.JoinGroupResponse {
	c.t.Helper()
	resp := do[*kmsg.JoinGroupResponse](c, newJoin(version, id, ""))
	if version >= 4 {
		wantCode(c.t, "JoinGroup without a member id", resp.ErrorCode, protocol.MemberIDRequired)
		resp = do[*kmsg.JoinGroupResponse](c, newJoin(version, id, resp.MemberID))
	}
	wantCode(c.t, "JoinGroup", resp.ErrorCode, protocol.None)
	return resp
}

func newSync(version int16, id string, j *kmsg.JoinGroupResponse) *kmsg.SyncGroupRequest {
	q := kmsg.NewPtrSyncGroupRequest()
	q.Version, q.Group, q.MemberID, q.Generation = version, id, j.MemberID, j.Generation
	q.ProtocolType, q.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	for _, m := range j.Members {
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = m.MemberID, []byte("for "+m.MemberID)
		q.GroupAssignment = append(q.GroupAssignment, a)
	}
	return q
}

// stable joins and syncs: the group is stable with this one member.
func (c *client) stable(id string) *kmsg.JoinGroupResponse {
	c.t.Helper()
	j := c.join(9, id)
	resp := do[*kmsg.SyncGroupResponse](c, newSync(5, id, j))
	wantCode(c.t, "SyncGroup", resp.ErrorCode, protocol.None)
	return j
}

func newHeartbeat(version int16, id, member string, generation int32) *kmsg.HeartbeatRequest {
	q := kmsg.NewPtrHeartbeatRequest()
	q.Version, q.Group, q.MemberID, q.Generation = version, id, member, generation
	return q
}

func (c *client) leave(version int16, id, member string) *kmsg.LeaveGroupResponse {
	c.t.Helper()
	q := kmsg.NewPtrLeaveGroupRequest()
	q.Version, q.Group, q.MemberID = version, id, member
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = member
	q.Members = append(q.Members, m)
	return do[*kmsg.LeaveGroupResponse](c, q)
}

// newCommit is a commit of one partition by nobody in particular.
func newCommitRequest(version int16, id string, topic *coordinator.Topic, partition int32, offset int64) *kmsg.OffsetCommitRequest {
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Version, q.Group, q.Generation, q.RetentionTimeMillis = version, id, -1, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.TopicID = topic.Name, topic.ID
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, offset, 3, kmsg.StringPtr(fmt.Sprint("at ", offset))
	t.Partitions = append(t.Partitions, p)
	q.Topics = append(q.Topics, t)
	return q
}

// commit returns the code of the one partition of q.
func (c *client) commit(q *kmsg.OffsetCommitRequest) int16 {
	c.t.Helper()
	resp := do[*kmsg.OffsetCommitResponse](c, q)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		c.t.Fatalf("OffsetCommit v%d answers %+v", q.Version, resp)
	}
	return resp.Topics[0].Partitions[0].ErrorCode
}

// fetched is a committed offset in an answer of any version.
type fetched struct {
	offset   int64
	epoch    int32
	metadata string
	code     protocol.Code
}

// fetchOffsets asks for partitions of a topic in any version.
func (c *client) fetchOffsets(version int16, id string, topic *coordinator.Topic, partitions ...int32) (group protocol.Code, out []fetched) {
	c.t.Helper()
	q := kmsg.NewPtrOffsetFetchRequest()
	q.Version, q.RequireStable = version, true
	if version < 8 {
		q.Group = id
		q.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: topic.Name, Partitions: partitions}}
	} else {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = id
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic.Name, TopicID: topic.ID, Partitions: partitions}}
		q.Groups = append(q.Groups, g)
	}
	resp := do[*kmsg.OffsetFetchResponse](c, q)
	add := func(offset int64, epoch int32, metadata *string, code int16) {
		if metadata == nil {
			c.t.Errorf("OffsetFetch v%d: metadata is null", version)
			metadata = kmsg.StringPtr("")
		}
		out = append(out, fetched{offset, epoch, *metadata, protocol.Code(code)})
	}
	group = protocol.Code(resp.ErrorCode)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			add(p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode)
		}
	}
	for _, g := range resp.Groups {
		group = protocol.Code(g.ErrorCode)
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				add(p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode)
			}
		}
	}
	return group, out
}

// TestGroupInEveryVersion takes a member through its life, in each version of
// every request.
func TestGroupInEveryVersion(t *testing.T) {
	s := newGroupServer(t)
	topic := s.createTopic("orders", 2)
	for v := int16(0); v <= 10; v++ {
		t.Run(fmt.Sprint("v", v), func(t *testing.T) {
			c := s.dialFor(t)
			id := fmt.Sprint("g", v)
			j := c.join(min(v, 9), id)
			if j.Generation != 1 || j.LeaderID != j.MemberID || len(j.Members) != 1 || j.Members[0].MemberID != j.MemberID ||
				!bytes.Equal(j.Members[0].ProtocolMetadata, subscription("orders")) || j.Protocol == nil || *j.Protocol != "range" || j.SkipAssignment {
				t.Errorf("JoinGroup answers %+v", j)
			}
			if v >= 7 && (j.ProtocolType == nil || *j.ProtocolType != "consumer") {
				t.Errorf("the protocol type is %v", j.ProtocolType)
			}
			if !strings.HasPrefix(j.MemberID, "test-") {
				t.Errorf("the member id is %q, which does not begin with the client id", j.MemberID)
			}
			a := do[*kmsg.SyncGroupResponse](c, newSync(min(v, 5), id, j))
			wantCode(t, "SyncGroup", a.ErrorCode, protocol.None)
			if string(a.MemberAssignment) != "for "+j.MemberID || v >= 5 && (*a.ProtocolType != "consumer" || *a.Protocol != "range") {
				t.Errorf("SyncGroup answers %+v", a)
			}
			hb := min(v, 4)
			wantCode(t, "Heartbeat", do[*kmsg.HeartbeatResponse](c, newHeartbeat(hb, id, j.MemberID, 1)).ErrorCode, protocol.None)
			wantCode(t, "Heartbeat of another generation", do[*kmsg.HeartbeatResponse](c, newHeartbeat(hb, id, j.MemberID, 2)).ErrorCode, protocol.IllegalGeneration)
			wantCode(t, "Heartbeat of nobody", do[*kmsg.HeartbeatResponse](c, newHeartbeat(hb, id, "x", 1)).ErrorCode, protocol.UnknownMemberID)

			q := newCommitRequest(v, id, topic, 1, 100+int64(v))
			q.Generation, q.MemberID = 1, j.MemberID
			if v == 0 {
				// Version 0 cannot say who it is.
				wantCode(t, "OffsetCommit v0 into a live group", c.commit(q), protocol.UnknownMemberID)
				q.Version = 1
				q.Topics[0].Partitions[0].Timestamp = time.Now().UnixMilli()
			}
			wantCode(t, "OffsetCommit", c.commit(q), protocol.None)
			epoch := int32(3)
			if v < 6 {
				epoch = -1 // it was not in the commit
			}
			for fv := int16(0); fv <= 10; fv++ {
				want := []fetched{{100 + int64(v), epoch, fmt.Sprint("at ", 100+v), 0}, {-1, -1, "", 0}}
				if fv < 5 {
					want[0].epoch, want[1].epoch = -1, -1 // it is not in the answer
				}
				if code, got := c.fetchOffsets(fv, id, topic, 1, 0); code != 0 || !slices.Equal(got, want) {
					t.Errorf("OffsetFetch v%d answers %v, %+v, want %+v", fv, code.Name(), got, want)
				}
			}

			l := c.leave(min(v, 5), id, j.MemberID)
			wantCode(t, "LeaveGroup", l.ErrorCode, protocol.None)
			l = c.leave(min(v, 5), id, j.MemberID)
			if v < 3 {
				wantCode(t, "LeaveGroup of nobody", l.ErrorCode, protocol.UnknownMemberID)
			} else if l.ErrorCode != 0 || len(l.Members) != 1 || protocol.Code(l.Members[0].ErrorCode) != protocol.UnknownMemberID || l.Members[0].MemberID != j.MemberID {
				t.Errorf("LeaveGroup of nobody answers %+v", l)
			}
			// Now that the group is empty, anybody may commit.
			wantCode(t, "OffsetCommit into an empty group", c.commit(newCommitRequest(v, id, topic, 0, 1)), protocol.None)
		})
	}
}

func TestJoinGroupRefuses(t *testing.T) {
	s := newGroupServer(t, func(o *options) { o.coord.Groups.Group.MaxSize = 1 })
	c := s.dial()
	c.stable("full")
	for v := int16(0); v <= 9; v++ {
		for _, tc := range []struct {
			what   string
			change func(*kmsg.JoinGroupRequest)
			want   protocol.Code
		}{
			{"no group id", func(q *kmsg.JoinGroupRequest) { q.Group = "" }, protocol.InvalidGroupID},
			{"a group id that is too long", func(q *kmsg.JoinGroupRequest) { q.Group = strings.Repeat("x", 5000) }, protocol.InvalidGroupID},
			{"a short session", func(q *kmsg.JoinGroupRequest) { q.SessionTimeoutMillis = 5999 }, protocol.InvalidSessionTimeout},
			{"a long session", func(q *kmsg.JoinGroupRequest) { q.SessionTimeoutMillis = 1_800_001 }, protocol.InvalidSessionTimeout},
			{"an unknown member", func(q *kmsg.JoinGroupRequest) { q.MemberID = "x" }, protocol.UnknownMemberID},
			{"no protocol type", func(q *kmsg.JoinGroupRequest) { q.ProtocolType = "" }, protocol.InconsistentGroupProtocol},
			{"no protocols", func(q *kmsg.JoinGroupRequest) { q.Protocols = nil }, protocol.InconsistentGroupProtocol},
			{"another protocol type", func(q *kmsg.JoinGroupRequest) { q.Group, q.ProtocolType = "full", "connect" }, protocol.InconsistentGroupProtocol},
			{"a full group", func(q *kmsg.JoinGroupRequest) { q.Group = "full" }, protocol.GroupMaxSizeReached},
		} {
			q := newJoin(v, "g", "")
			tc.change(q)
			resp := do[*kmsg.JoinGroupResponse](c, q)
			if tc.what == "another protocol type" && protocol.Code(resp.ErrorCode) == protocol.GroupMaxSizeReached {
				continue // either is right
			}
			wantCode(t, fmt.Sprintf("v%d: %s", v, tc.what), resp.ErrorCode, tc.want)
			if resp.Generation != -1 || resp.LeaderID != "" || len(resp.Members) > 0 || resp.MemberID != q.MemberID {
				t.Errorf("v%d: %s: answered with %+v", v, tc.what, resp)
			}
			if v >= 7 && resp.Protocol != nil || v < 7 && (resp.Protocol == nil || *resp.Protocol != "") {
				t.Errorf("v%d: %s: the protocol is %v", v, tc.what, resp.Protocol)
			}
		}
	}
}

func TestSyncGroupRefuses(t *testing.T) {
	s := newGroupServer(t)
	c := s.dial()
	j := c.stable("g")
	for v := int16(0); v <= 5; v++ {
		for _, tc := range []struct {
			what   string
			change func(*kmsg.SyncGroupRequest)
			want   protocol.Code
			from   int16
		}{
			{"no group id", func(q *kmsg.SyncGroupRequest) { q.Group = "" }, protocol.InvalidGroupID, 0},
			{"no group", func(q *kmsg.SyncGroupRequest) { q.Group = "none" }, protocol.UnknownMemberID, 0},
			{"an unknown member", func(q *kmsg.SyncGroupRequest) { q.MemberID = "x" }, protocol.UnknownMemberID, 0},
			{"an older generation", func(q *kmsg.SyncGroupRequest) { q.Generation-- }, protocol.IllegalGeneration, 0},
			{"another protocol", func(q *kmsg.SyncGroupRequest) { q.Protocol = kmsg.StringPtr("x") }, protocol.InconsistentGroupProtocol, 5},
			{"another protocol type", func(q *kmsg.SyncGroupRequest) { q.ProtocolType = kmsg.StringPtr("x") }, protocol.InconsistentGroupProtocol, 5},
			{"no protocol", func(q *kmsg.SyncGroupRequest) { q.Protocol = nil }, protocol.InconsistentGroupProtocol, 5},
			{"what it has", func(q *kmsg.SyncGroupRequest) {}, protocol.None, 0},
		} {
			if v < tc.from {
				continue
			}
			q := newSync(v, "g", j)
			tc.change(q)
			resp := do[*kmsg.SyncGroupResponse](c, q)
			wantCode(t, fmt.Sprintf("v%d: %s", v, tc.what), resp.ErrorCode, tc.want)
			if (len(resp.MemberAssignment) > 0) != (tc.want == protocol.None) {
				t.Errorf("v%d: %s: the assignment is %q", v, tc.what, resp.MemberAssignment)
			}
		}
	}
}

func TestOffsetCommitRefuses(t *testing.T) {
	s := newGroupServer(t)
	topic := s.createTopic("orders", 2)
	c := s.dial()
	j := c.stable("live")
	member := func(q *kmsg.OffsetCommitRequest) {
		q.Group, q.Generation, q.MemberID = "live", j.Generation, j.MemberID
	}
	for v := int16(0); v <= 10; v++ {
		unknown := protocol.UnknownTopicOrPartition
		if v >= 10 {
			unknown = protocol.UnknownTopicID
		}
		unknownGroup := protocol.IllegalGeneration
		if v >= 9 {
			unknownGroup = protocol.GroupIDNotFound
		}
		for _, tc := range []struct {
			what   string
			change func(*kmsg.OffsetCommitRequest)
			want   protocol.Code
			from   int16
		}{
			{"a topic that does not exist", func(q *kmsg.OffsetCommitRequest) { q.Topics[0].Topic, q.Topics[0].TopicID = "none", [16]byte{1} }, unknown, 0},
			{"a partition that does not exist", func(q *kmsg.OffsetCommitRequest) { q.Topics[0].Partitions[0].Partition = 2 }, protocol.UnknownTopicOrPartition, 0},
			{"a negative partition", func(q *kmsg.OffsetCommitRequest) { q.Topics[0].Partitions[0].Partition = -1 }, protocol.UnknownTopicOrPartition, 0},
			{"metadata that is too long", func(q *kmsg.OffsetCommitRequest) {
				q.Topics[0].Partitions[0].Metadata = kmsg.StringPtr(strings.Repeat("x", 4097))
			}, protocol.OffsetMetadataTooLarge, 0},
			{"the longest metadata", func(q *kmsg.OffsetCommitRequest) {
				q.Topics[0].Partitions[0].Metadata = kmsg.StringPtr(strings.Repeat("x", 4096))
			}, protocol.None, 0},
			{"no metadata", func(q *kmsg.OffsetCommitRequest) { q.Topics[0].Partitions[0].Metadata = nil }, protocol.None, 0},
			{"no group id", func(q *kmsg.OffsetCommitRequest) { q.Group = "" }, protocol.None, 0},
			{"a group id with slashes", func(q *kmsg.OffsetCommitRequest) { q.Group = "a/b//\x00ü" }, protocol.None, 0},
			{"a simple consumer", func(*kmsg.OffsetCommitRequest) {}, protocol.None, 0},
			{"a simple consumer into a live group", func(q *kmsg.OffsetCommitRequest) { q.Group = "live" }, protocol.UnknownMemberID, 0},
			{"a member of a group that does not exist", func(q *kmsg.OffsetCommitRequest) { q.Group, q.Generation, q.MemberID = "none", 1, "m" }, unknownGroup, 1},
			{"an unknown member", func(q *kmsg.OffsetCommitRequest) { member(q); q.MemberID = "x" }, protocol.UnknownMemberID, 1},
			{"an older generation", func(q *kmsg.OffsetCommitRequest) { member(q); q.Generation-- }, protocol.IllegalGeneration, 1},
			{"a later generation", func(q *kmsg.OffsetCommitRequest) { member(q); q.Generation++ }, protocol.IllegalGeneration, 1},
			{"an unknown instance", func(q *kmsg.OffsetCommitRequest) { member(q); q.InstanceID = kmsg.StringPtr("i") }, protocol.UnknownMemberID, 7},
			{"a member", member, protocol.None, 1},
		} {
			if v < tc.from {
				continue
			}
			q := newCommitRequest(v, "simple", topic, 0, 5)
			q.Topics[0].Partitions[0].Timestamp = -1
			tc.change(q)
			wantCode(t, fmt.Sprintf("v%d: %s", v, tc.what), c.commit(q), tc.want)
		}
	}
}

// TestOffsetCommitIsPerPartition: what is wrong with one partition does not
// concern the others.
func TestOffsetCommitIsPerPartition(t *testing.T) {
	s := newGroupServer(t)
	topic := s.createTopic("orders", 2)
	c := s.dial()
	q := newCommitRequest(8, "g", topic, 0, 5)
	q.Topics = append(q.Topics, newCommitRequest(8, "g", &coordinator.Topic{Name: "none"}, 0, 6).Topics...)
	q.Topics[0].Partitions = append(q.Topics[0].Partitions,
		newCommitRequest(8, "g", topic, 7, 7).Topics[0].Partitions[0], newCommitRequest(8, "g", topic, 1, 8).Topics[0].Partitions[0])
	q.Topics[0].Partitions[2].Metadata = kmsg.StringPtr(strings.Repeat("x", 5000))
	resp := do[*kmsg.OffsetCommitResponse](c, q)
	var got []protocol.Code
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			got = append(got, protocol.Code(p.ErrorCode))
		}
	}
	if want := []protocol.Code{protocol.None, protocol.UnknownTopicOrPartition, protocol.OffsetMetadataTooLarge, protocol.UnknownTopicOrPartition}; !slices.Equal(got, want) {
		t.Errorf("codes are %v, want %v", got, want)
	}
	if _, got := c.fetchOffsets(8, "g", topic, 0, 1); got[0].offset != 5 || got[1].offset != -1 {
		t.Errorf("committed is %+v", got)
	}
}

// TestOffsetsDoNotOutliveTheirTopic: the id counts, not the name.
func TestOffsetsDoNotOutliveTheirTopic(t *testing.T) {
	s := newGroupServer(t)
	old := s.createTopic("orders", 1)
	c := s.dial()
	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(10, "g", old, 0, 5)), protocol.None)
	check(t, s.coord.DeleteTopic(t.Context(), "orders", old.ID))
	topic := s.createTopic("orders", 1)
	wantCode(t, "OffsetCommit by the old id", c.commit(newCommitRequest(10, "g", old, 0, 6)), protocol.UnknownTopicID)
	if code, got := c.fetchOffsets(10, "g", old, 0); code != 0 || len(got) != 1 || got[0].code != protocol.UnknownTopicID || got[0].offset != -1 {
		t.Errorf("OffsetFetch by the old id answers %v, %+v", code, got)
	}
	for v := int16(0); v <= 10; v++ {
		if code, got := c.fetchOffsets(v, "g", topic, 0); code != 0 || !slices.Equal(got, []fetched{{-1, -1, "", 0}}) {
			t.Errorf("OffsetFetch v%d answers %v, %+v", v, code, got)
		}
	}
	q := kmsg.NewPtrOffsetFetchRequest()
	q.Version, q.Group = 7, "g"
	if resp := do[*kmsg.OffsetFetchResponse](c, q); resp.ErrorCode != 0 || len(resp.Topics) != 0 {
		t.Errorf("OffsetFetch of everything answers %+v", resp)
	}
}

func TestOffsetFetch(t *testing.T) {
	s := newGroupServer(t)
	topic, other := s.createTopic("orders", 3), s.createTopic("other", 1)
	c := s.dial()
	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "g", topic, 0, 5)), protocol.None)
	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "g", topic, 2, 7)), protocol.None)
	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "h", other, 0, 9)), protocol.None)

	// A group or a topic that does not exist has no offsets, which is no error.
	for v := int16(0); v <= 10; v++ {
		if code, got := c.fetchOffsets(v, "none", topic, 0); code != 0 || !slices.Equal(got, []fetched{{-1, -1, "", 0}}) {
			t.Errorf("v%d: a group that does not exist: %v, %+v", v, code, got)
		}
		if v < 10 {
			if code, got := c.fetchOffsets(v, "g", &coordinator.Topic{Name: "none"}, 0); code != 0 || !slices.Equal(got, []fetched{{-1, -1, "", 0}}) {
				t.Errorf("v%d: a topic that does not exist: %v, %+v", v, code, got)
			}
		}
		if code, got := c.fetchOffsets(v, "g", topic, 99); code != 0 || !slices.Equal(got, []fetched{{-1, -1, "", 0}}) {
			t.Errorf("v%d: a partition that does not exist: %v, %+v", v, code, got)
		}
	}
	// What is asked by nothing is nothing before v2, everything after.
	for v := int16(0); v <= 7; v++ {
		for _, topics := range [][]kmsg.OffsetFetchRequestTopic{nil, {}} {
			q := kmsg.NewPtrOffsetFetchRequest()
			q.Version, q.Group, q.Topics = v, "g", topics
			resp := do[*kmsg.OffsetFetchResponse](c, q)
			want := 0
			if v >= 2 && topics == nil {
				want = 1
			}
			if resp.ErrorCode != 0 || len(resp.Topics) != want {
				t.Fatalf("v%d: topics %v give %+v", v, topics, resp)
			}
			if want == 1 && (len(resp.Topics[0].Partitions) != 2 || resp.Topics[0].Topic != "orders" || resp.Topics[0].Partitions[1].Offset != 7) {
				t.Errorf("v%d: everything is %+v", v, resp.Topics)
			}
		}
	}
	// Many groups, each with its own answer.
	for v := int16(8); v <= 10; v++ {
		q := kmsg.NewPtrOffsetFetchRequest()
		q.Version = v
		for _, id := range []string{"g", "none", "h", strings.Repeat("x", 5000)} {
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group = id
			q.Groups = append(q.Groups, g)
		}
		resp := do[*kmsg.OffsetFetchResponse](c, q)
		if len(resp.Groups) != 4 {
			t.Fatalf("v%d: answers are %+v", v, resp.Groups)
		}
		for i, want := range []struct {
			topics int
			code   protocol.Code
		}{{1, 0}, {0, 0}, {1, 0}, {0, protocol.InvalidGroupID}} {
			g := resp.Groups[i]
			if g.Group != q.Groups[i].Group || len(g.Topics) != want.topics || protocol.Code(g.ErrorCode) != want.code {
				t.Errorf("v%d: group %d is %+v", v, i, g)
			}
		}
		if g := resp.Groups[0].Topics[0]; v < 10 && g.Topic != "orders" || v == 10 && g.TopicID != topic.ID || len(g.Partitions) != 2 {
			t.Errorf("v%d: topics of the first are %+v", v, g)
		}
		q.Groups = nil
		if resp := do[*kmsg.OffsetFetchResponse](c, q); len(resp.Groups) != 0 {
			t.Errorf("v%d: no groups give %+v", v, resp)
		}
	}
	// The error of a group is each partition's before v2.
	for v := int16(0); v <= 7; v++ {
		code, got := c.fetchOffsets(v, strings.Repeat("x", 5000), topic, 0, 1)
		if v < 2 {
			if want := (fetched{-1, -1, "", protocol.InvalidGroupID}); len(got) != 2 || got[0] != want || got[1] != want {
				t.Errorf("v%d: a group that is refused: %+v", v, got)
			}
		} else if code != protocol.InvalidGroupID || len(got) != 0 {
			t.Errorf("v%d: a group that is refused: %v, %+v", v, code, got)
		}
	}
}

func TestFindCoordinator(t *testing.T) {
	s := newGroupServer(t)
	c := s.dial()
	host, port, err := net.SplitHostPort(s.addr)
	check(t, err)
	type answer struct {
		code protocol.Code
		node int32
		host string
		port string
	}
	ask := func(v int16, kind int8, keys ...string) (out []answer) {
		q := kmsg.NewPtrFindCoordinatorRequest()
		q.Version, q.CoordinatorType, q.CoordinatorKeys = v, kind, keys
		if v < 4 {
			q.CoordinatorKey = keys[0]
		}
		resp := do[*kmsg.FindCoordinatorResponse](c, q)
		if v < 4 {
			return []answer{{protocol.Code(resp.ErrorCode), resp.NodeID, resp.Host, fmt.Sprint(resp.Port)}}
		}
		for i, r := range resp.Coordinators {
			if r.Key != keys[i] {
				t.Errorf("v%d: answer %d is for %q", v, i, r.Key)
			}
			out = append(out, answer{protocol.Code(r.ErrorCode), r.NodeID, r.Host, fmt.Sprint(r.Port)})
		}
		return out
	}
	here := answer{0, 1, host, port}
	refused := func(code protocol.Code) []answer { return []answer{{code, -1, "", "-1"}} }
	for v := int16(0); v <= 6; v++ {
		if got := ask(v, 0, "g"); !slices.Equal(got, []answer{here}) {
			t.Errorf("v%d: the coordinator is %+v", v, got)
		}
		if v == 0 {
			continue
		}
		if got := ask(v, 1, "txn"); !slices.Equal(got, []answer{here}) {
			t.Errorf("v%d: the coordinator of a transaction is %+v", v, got)
		}
		share := protocol.InvalidRequest
		if v == 6 {
			share = protocol.CoordinatorNotAvailable
		}
		if got := ask(v, 2, "share"); !slices.Equal(got, refused(share)) {
			t.Errorf("v%d: the coordinator of a share group is %+v", v, got)
		}
		if got := ask(v, -1, "x"); !slices.Equal(got, refused(protocol.InvalidRequest)) {
			t.Errorf("v%d: the coordinator of a negative type is %+v", v, got)
		}
		if got := ask(v, 3, "x"); !slices.Equal(got, refused(protocol.InvalidRequest)) {
			t.Errorf("v%d: the coordinator of what does not exist is %+v", v, got)
		}
		if v >= 4 {
			if got := ask(v, 0, "a", "b", ""); !slices.Equal(got, []answer{here, here, here}) {
				t.Errorf("v%d: the coordinators are %+v", v, got)
			}
			if got := ask(v, 0); len(got) != 0 {
				t.Errorf("v%d: no keys give %+v", v, got)
			}
		}
	}
}

// TestFindCoordinatorByListener: a node without the client's listener cannot be named.
func TestFindCoordinatorByListener(t *testing.T) {
	s := newGroupServer(t, func(o *options) { o.otherListener = true })
	q := kmsg.NewPtrFindCoordinatorRequest()
	q.Version, q.CoordinatorKey = 3, "g"
	resp := do[*kmsg.FindCoordinatorResponse](s.dial(), q)
	wantCode(t, "FindCoordinator", resp.ErrorCode, protocol.CoordinatorNotAvailable)
}

func TestDescribeGroups(t *testing.T) {
	s := newGroupServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	j := c.stable("g")
	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "simple", topic, 0, 5)), protocol.None)
	for v := int16(0); v <= 6; v++ {
		q := kmsg.NewPtrDescribeGroupsRequest()
		q.Version, q.Groups = v, []string{"g", "none", "simple", ""}
		q.IncludeAuthorizedOperations = v >= 3
		resp := do[*kmsg.DescribeGroupsResponse](c, q)
		if len(resp.Groups) != 4 {
			t.Fatalf("v%d: answers are %+v", v, resp)
		}
		g := resp.Groups[0]
		if g.ErrorCode != 0 || g.Group != "g" || g.State != "Stable" || g.ProtocolType != "consumer" || g.Protocol != "range" || len(g.Members) != 1 {
			t.Fatalf("v%d: the group is %+v", v, g)
		}
		m := g.Members[0]
		if m.MemberID != j.MemberID || m.ClientID != "test" || m.ClientHost != "/127.0.0.1" || m.InstanceID != nil ||
			!bytes.Equal(m.ProtocolMetadata, subscription("orders")) || string(m.MemberAssignment) != "for "+j.MemberID {
			t.Errorf("v%d: the member is %+v", v, m)
		}
		if v >= 3 && g.AuthorizedOperations != authorizedGroup {
			t.Errorf("v%d: authorized operations are %x", v, g.AuthorizedOperations)
		}
		want := protocol.None
		if v >= 6 {
			want = protocol.GroupIDNotFound
		}
		for _, i := range []int{1, 3} {
			g := resp.Groups[i]
			wantCode(t, fmt.Sprintf("v%d: a group that does not exist", v), g.ErrorCode, want)
			if g.State != "Dead" || len(g.Members) > 0 || (g.ErrorMessage != nil) != (v >= 6) {
				t.Errorf("v%d: a group that does not exist is %+v", v, g)
			}
		}
		if g := resp.Groups[2]; g.ErrorCode != 0 || g.State != "Empty" || g.ProtocolType != "" || len(g.Members) != 0 {
			t.Errorf("v%d: the simple group is %+v", v, g)
		}
	}
	q := kmsg.NewPtrDescribeGroupsRequest()
	q.Version, q.Groups = 5, []string{"g"}
	if g := do[*kmsg.DescribeGroupsResponse](c, q).Groups[0]; g.AuthorizedOperations != -1<<31 {
		t.Errorf("authorized operations that nobody asked for are %x", g.AuthorizedOperations)
	}
}

func TestListGroups(t *testing.T) {
	s := newGroupServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.stable("stable")
	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "simple", topic, 0, 5)), protocol.None)
	hb := newConsumerHeartbeat(1, "next", "m", 0)
	wantCode(t, "ConsumerGroupHeartbeat", do[*kmsg.ConsumerGroupHeartbeatResponse](c, hb).ErrorCode, protocol.None)
	for v := int16(0); v <= 5; v++ {
		for _, tc := range []struct {
			states, types []string
			from          int16
			want          []string
		}{
			{nil, nil, 0, []string{"next consumer", "simple ", "stable consumer"}},
			{[]string{"sTaBlE"}, nil, 4, []string{"next consumer", "stable consumer"}},
			{[]string{"Empty", "Dead"}, nil, 4, []string{"simple "}},
			{[]string{"nonsense"}, nil, 4, nil},
			{nil, []string{"CLASSIC"}, 5, []string{"simple ", "stable consumer"}},
			{nil, []string{"consumer", "share"}, 5, []string{"next consumer"}},
			{[]string{"Stable"}, []string{"classic"}, 5, []string{"stable consumer"}},
			{nil, []string{"nonsense"}, 5, nil},
		} {
			if v < tc.from {
				continue
			}
			q := kmsg.NewPtrListGroupsRequest()
			q.Version, q.StatesFilter, q.TypesFilter = v, tc.states, tc.types
			resp := do[*kmsg.ListGroupsResponse](c, q)
			wantCode(t, "ListGroups", resp.ErrorCode, protocol.None)
			var got []string
			for _, g := range resp.Groups {
				got = append(got, g.Group+" "+g.ProtocolType)
				if (g.GroupState != "") != (v >= 4) || (g.GroupType != "") != (v >= 5) {
					t.Errorf("v%d: group is %+v", v, g)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("v%d: states %q, types %q: groups are %q, want %q", v, tc.states, tc.types, got, tc.want)
			}
		}
	}
}

func TestDeleteGroups(t *testing.T) {
	s := newGroupServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.stable("live")
	for v := int16(0); v <= 2; v++ {
		wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "simple", topic, 0, 5)), protocol.None)
		wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "", topic, 0, 5)), protocol.None)
		q := kmsg.NewPtrDeleteGroupsRequest()
		q.Version, q.Groups = v, []string{"live", "simple", "none", "simple", ""}
		resp := do[*kmsg.DeleteGroupsResponse](c, q)
		var got []protocol.Code
		for i, g := range resp.Groups {
			if g.Group != q.Groups[i] {
				t.Errorf("v%d: answer %d is for %q", v, i, g.Group)
			}
			got = append(got, protocol.Code(g.ErrorCode))
		}
		if want := []protocol.Code{protocol.NonEmptyGroup, protocol.None, protocol.GroupIDNotFound, protocol.GroupIDNotFound, protocol.None}; !slices.Equal(got, want) {
			t.Errorf("v%d: codes are %v, want %v", v, got, want)
		}
		if _, got := c.fetchOffsets(8, "simple", topic, 0); got[0].offset != -1 {
			t.Errorf("v%d: the deleted group has committed %+v", v, got)
		}
	}
}

func TestOffsetDelete(t *testing.T) {
	s := newGroupServer(t)
	topic, other := s.createTopic("orders", 2), s.createTopic("other", 1)
	c := s.dial()
	del := func(id string, partitions ...string) (protocol.Code, []protocol.Code) {
		q := kmsg.NewPtrOffsetDeleteRequest()
		q.Group = id
		for _, p := range partitions {
			name, number, _ := strings.Cut(p, "/")
			qt := kmsg.NewOffsetDeleteRequestTopic()
			qp := kmsg.NewOffsetDeleteRequestTopicPartition()
			qp.Partition = int32(number[0] - '0')
			qt.Topic, qt.Partitions = name, append(qt.Partitions, qp)
			q.Topics = append(q.Topics, qt)
		}
		resp := do[*kmsg.OffsetDeleteResponse](c, q)
		var codes []protocol.Code
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				codes = append(codes, protocol.Code(p.ErrorCode))
			}
		}
		return protocol.Code(resp.ErrorCode), codes
	}
	want := func(what string, code, wantCode protocol.Code, codes []protocol.Code, wantCodes ...protocol.Code) {
		t.Helper()
		if code != wantCode || !slices.Equal(codes, wantCodes) {
			t.Errorf("%s: %v %v, want %v %v", what, code, codes, wantCode, wantCodes)
		}
	}
	code, codes := del("none", "orders/0")
	want("no group", code, protocol.GroupIDNotFound, codes)
	code, codes = del("none", "none/0")
	want("no group and no topic", code, 0, codes, protocol.UnknownTopicOrPartition)

	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "g", topic, 0, 5)), protocol.None)
	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "g", topic, 1, 6)), protocol.None)
	code, codes = del("g", "orders/0", "none/0", "orders/7", "orders/0")
	want("an empty group", code, 0, codes, protocol.None, protocol.UnknownTopicOrPartition, protocol.UnknownTopicOrPartition, protocol.None)
	if _, got := c.fetchOffsets(8, "g", topic, 0, 1); got[0].offset != -1 || got[1].offset != 6 {
		t.Errorf("left is %+v", got)
	}

	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "g", other, 0, 7)), protocol.None)
	c.stable("g")
	code, codes = del("g", "orders/1", "other/0")
	want("a live group of consumers", code, 0, codes, protocol.GroupSubscribedToTopic, protocol.None)
	if _, got := c.fetchOffsets(8, "g", topic, 1); got[0].offset != 6 {
		t.Errorf("left is %+v", got)
	}

	q := newJoin(3, "workers", "")
	q.ProtocolType = "connect"
	wantCode(t, "JoinGroup", do[*kmsg.JoinGroupResponse](c, q).ErrorCode, protocol.None)
	code, codes = del("workers", "orders/1")
	want("a live group of something else", code, protocol.NonEmptyGroup, codes)
}

func newConsumerHeartbeat(version int16, id, member string, epoch int32) *kmsg.ConsumerGroupHeartbeatRequest {
	q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	q.Version, q.Group, q.MemberID, q.MemberEpoch = version, id, member, epoch
	if epoch == 0 {
		q.RebalanceTimeoutMillis = 10_000
		q.SubscribedTopicNames = []string{"orders"}
		q.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	return q
}

// TestConsumerGroup takes a member of the consumer protocol through its life.
func TestConsumerGroup(t *testing.T) {
	s := newGroupServer(t)
	topic := s.createTopic("orders", 3)
	for v := int16(0); v <= 1; v++ {
		t.Run(fmt.Sprint("v", v), func(t *testing.T) {
			c := s.dialFor(t)
			id, member := fmt.Sprint("g", v), ""
			if v >= 1 {
				wantCode(t, "a join without an id", do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(v, id, "", 0)).ErrorCode, protocol.InvalidRequest)
				member = "mine"
			}
			wantCode(t, "a group that does not exist", do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(v, id, "x", 1)).ErrorCode, protocol.GroupIDNotFound)
			resp := do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(v, id, member, 0))
			wantCode(t, "a join", resp.ErrorCode, protocol.None)
			if resp.MemberID == nil || *resp.MemberID == "" || v >= 1 && *resp.MemberID != member || resp.MemberEpoch < 1 || resp.HeartbeatIntervalMillis != 100 {
				t.Fatalf("joined %+v", resp)
			}
			if a := resp.Assignment; a == nil || len(a.Topics) != 1 || a.Topics[0].TopicID != topic.ID || len(a.Topics[0].Partitions) != 3 {
				t.Fatalf("assigned is %+v", a)
			}
			member = *resp.MemberID
			epoch := resp.MemberEpoch
			q := newConsumerHeartbeat(v, id, member, epoch)
			q.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: topic.ID, Partitions: []int32{0, 1, 2}}}
			resp = do[*kmsg.ConsumerGroupHeartbeatResponse](c, q)
			wantCode(t, "a heartbeat", resp.ErrorCode, protocol.None)
			wantCode(t, "a heartbeat of nobody", do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(v, id, "x", 1)).ErrorCode, protocol.UnknownMemberID)
			wantCode(t, "a later epoch", do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(v, id, member, epoch+1)).ErrorCode, protocol.FencedMemberEpoch)
			if v >= 1 {
				bad := newConsumerHeartbeat(v, id, member, epoch)
				bad.SubscribedTopicRegex = kmsg.StringPtr("a(")
				wantCode(t, "a bad expression", do[*kmsg.ConsumerGroupHeartbeatResponse](c, bad).ErrorCode, protocol.InvalidRegularExpression)
			}
			bad := newConsumerHeartbeat(v, id, member, epoch)
			bad.ServerAssignor = kmsg.StringPtr("none")
			wantCode(t, "an unknown assignor", do[*kmsg.ConsumerGroupHeartbeatResponse](c, bad).ErrorCode, protocol.UnsupportedAssignor)

			commit := newCommitRequest(9, id, topic, 0, 5)
			commit.Generation, commit.MemberID = epoch, member
			wantCode(t, "OffsetCommit", c.commit(commit), protocol.None)
			commit.Generation--
			wantCode(t, "OffsetCommit of an older epoch", c.commit(commit), protocol.StaleMemberEpoch)
			commit.Generation, commit.Version = epoch, 8
			wantCode(t, "OffsetCommit without epochs", c.commit(commit), protocol.UnsupportedVersion)
			fetch := kmsg.NewPtrOffsetFetchRequest()
			fetch.Version = 9
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group, g.MemberID, g.MemberEpoch = id, &member, epoch
			fetch.Groups = append(fetch.Groups, g)
			if r := do[*kmsg.OffsetFetchResponse](c, fetch); r.Groups[0].ErrorCode != 0 || len(r.Groups[0].Topics) != 1 {
				t.Errorf("OffsetFetch answers %+v", r)
			}
			fetch.Groups[0].MemberEpoch++
			wantCode(t, "OffsetFetch of another epoch", do[*kmsg.OffsetFetchResponse](c, fetch).Groups[0].ErrorCode, protocol.StaleMemberEpoch)
			fetch.Groups[0].MemberID = kmsg.StringPtr("x")
			wantCode(t, "OffsetFetch of nobody", do[*kmsg.OffsetFetchResponse](c, fetch).Groups[0].ErrorCode, protocol.UnknownMemberID)

			for dv := int16(0); dv <= 1; dv++ {
				d := kmsg.NewPtrConsumerGroupDescribeRequest()
				d.Version, d.Groups, d.IncludeAuthorizedOperations = dv, []string{id, "none"}, true
				r := do[*kmsg.ConsumerGroupDescribeResponse](c, d)
				wantCode(t, "a group that does not exist", r.Groups[1].ErrorCode, protocol.GroupIDNotFound)
				got := r.Groups[0]
				if got.ErrorCode != 0 || got.State != string(group.Stable) || got.Epoch != epoch || got.AssignmentEpoch != epoch || got.AssignorName != "uniform" ||
					got.AuthorizedOperations != authorizedGroup || len(got.Members) != 1 {
					t.Fatalf("described is %+v", got)
				}
				m := got.Members[0]
				if m.MemberID != member || m.MemberEpoch != epoch || m.ClientID != "test" || m.ClientHost != "/127.0.0.1" || !slices.Equal(m.SubscribedTopics, []string{"orders"}) ||
					len(m.Assignment.TopicPartitions) != 1 || m.Assignment.TopicPartitions[0].Topic != "orders" || len(m.TargetAssignment.TopicPartitions) != 1 {
					t.Errorf("the member is %+v", m)
				}
				if dv >= 1 && m.MemberType != consumerMember {
					t.Errorf("the member is of type %d", m.MemberType)
				}
			}
			old := kmsg.NewPtrDescribeGroupsRequest()
			old.Version, old.Groups = 5, []string{id}
			if g := do[*kmsg.DescribeGroupsResponse](c, old).Groups[0]; g.State != "Dead" || g.ErrorCode != 0 {
				t.Errorf("DescribeGroups answers %+v", g)
			}

			resp = do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(v, id, member, -1))
			if resp.ErrorCode != 0 || resp.MemberEpoch != -1 {
				t.Errorf("a leave is answered %+v", resp)
			}
		})
	}
}

func TestClassicOnly(t *testing.T) {
	s := newGroupServer(t, func(o *options) { o.coord.Groups.ClassicOnly = true })
	c := s.dial()
	wantCode(t, "ConsumerGroupHeartbeat", do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(1, "g", "m", 0)).ErrorCode, protocol.UnsupportedVersion)
	q := kmsg.NewPtrApiVersionsRequest()
	q.Version, q.NodeID, q.ClientSoftwareName, q.ClientSoftwareVersion = 4, -1, "a", "1"
	if resp := do[*kmsg.ApiVersionsResponse](c, q); len(resp.FinalizedFeatures) != 0 || len(resp.SupportedFeatures) != 1 {
		t.Errorf("features are %+v, %+v", resp.SupportedFeatures, resp.FinalizedFeatures)
	}
}

// abort closes the connection by a reset.
func (c *client) abort() {
	c.t.Helper()
	check(c.t, c.conn.(*net.TCPConn).SetLinger(0))
	check(c.t, c.conn.Close())
}

// TestParkedJoin: a join that waits for other members ends with its connection,
// but its member does not; one on a connection that is about to close does not
// wait; and what a connection sends after it waits for it.
func TestParkedJoin(t *testing.T) {
	// Whoever waits at a shutdown must not be cut off instead.
	s := newGroupServer(t, restarts, func(o *options) { o.limits.DrainTimeout = 5 * time.Minute })
	first := s.dial()
	// parked has a second member join on a connection of its own, and wait for the first.
	parked := func(t *testing.T, id string) (j *kmsg.JoinGroupResponse, second *client, q *kmsg.JoinGroupRequest) {
		j = first.stable(id)
		second, q = s.dialFor(t), newJoin(3, id, "")
		second.send(q)
		until(t, "the second member's join waits", func() bool {
			return protocol.Code(do[*kmsg.HeartbeatResponse](first, newHeartbeat(4, id, j.MemberID, j.Generation)).ErrorCode) == protocol.RebalanceInProgress
		})
		return j, second, q
	}
	t.Run("closed", func(t *testing.T) {
		j, second, _ := parked(t, "closed")
		second.abort()
		resp := do[*kmsg.JoinGroupResponse](first, newJoin(9, "closed", j.MemberID))
		wantCode(t, "JoinGroup", resp.ErrorCode, protocol.None)
		if len(resp.Members) != 2 {
			t.Errorf("members are %+v", resp.Members)
		}
	})
	t.Run("half closed", func(t *testing.T) {
		_, second, q := parked(t, "half")
		check(t, second.conn.(*net.TCPConn).CloseWrite())
		resp, err := second.receive(q)
		check(t, err)
		wantCode(t, "JoinGroup", resp.(*kmsg.JoinGroupResponse).ErrorCode, protocol.CoordinatorNotAvailable)
	})
	t.Run("in order", func(t *testing.T) {
		j, second, q := parked(t, "order")
		heartbeat := newHeartbeat(4, "none", "m", 1)
		second.send(heartbeat)
		wantCode(t, "JoinGroup", do[*kmsg.JoinGroupResponse](first, newJoin(9, "order", j.MemberID)).ErrorCode, protocol.None)
		resp, err := second.receive(q)
		check(t, err)
		wantCode(t, "JoinGroup", resp.(*kmsg.JoinGroupResponse).ErrorCode, protocol.None)
		_, err = second.receive(heartbeat)
		check(t, err)
	})
	t.Run("shutdown", func(t *testing.T) {
		// Nobody will ever answer this one.
		_, gone, _ := parked(t, "gone")
		gone.abort()
		_, second, q := parked(t, "shutdown")
		var done sync.WaitGroup
		done.Go(func() {
			resp, err := second.receive(q)
			if err != nil || protocol.Code(resp.(*kmsg.JoinGroupResponse).ErrorCode) != protocol.CoordinatorNotAvailable {
				t.Errorf("JoinGroup: %+v, %v", resp, err)
			}
			second.conn.Close()
		})
		first.conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.proxy.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		s.stopped()
		done.Wait()
		check(t, s.coord.Close())
		s.start()
	})
}

// TestLargeSyncGroup is decoded on a worker.
func TestLargeSyncGroup(t *testing.T) {
	s := newGroupServer(t)
	c := s.dial()
	j := c.join(9, "g")
	q := newSync(5, "g", j)
	q.GroupAssignment[0].MemberAssignment = bytes.Repeat([]byte("x"), 100<<10)
	resp := do[*kmsg.SyncGroupResponse](c, q)
	wantCode(t, "SyncGroup", resp.ErrorCode, protocol.None)
	if len(resp.MemberAssignment) != 100<<10 {
		t.Errorf("an assignment of %d bytes", len(resp.MemberAssignment))
	}
}

// loseSlot makes another node the owner of a group's slot.
func (s *server) loseSlot(id string) {
	s.t.Helper()
	key := fmt.Sprintf("quire/test/own/%04d", coordinator.SlotOf(id))
	_, ok, err := s.meta.Txn(s.t.Context(), nil, []meta.Op{
		meta.Put("quire/test/node/2", []byte(`{"v":1,"inc":"other","name":"other"}`)),
		meta.Put(key, []byte(`{"v":1,"node":2,"inc":"other","epoch":9}`)),
	})
	check(s.t, err)
	if !ok {
		s.t.Fatal("the slot was not taken")
	}
}

// TestGroupOfAnotherNode: a group that another process owns is never told to be empty.
func TestGroupOfAnotherNode(t *testing.T) {
	s := newGroupServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	j := c.stable("g")
	s.loseSlot("g")
	until(t, "the slot is lost", func() bool {
		return protocol.Code(do[*kmsg.HeartbeatResponse](c, newHeartbeat(4, "g", j.MemberID, 1)).ErrorCode) == protocol.NotCoordinator
	})
	for v := int16(0); v <= 10; v++ {
		code, got := c.fetchOffsets(v, "g", topic, 0)
		if v < 2 && (len(got) != 1 || got[0].code != protocol.NotCoordinator) || v >= 2 && (code != protocol.NotCoordinator || len(got) != 0) {
			t.Errorf("OffsetFetch v%d answers %v, %+v", v, code, got)
		}
		wantCode(t, "OffsetCommit", c.commit(newCommitRequest(v, "g", topic, 0, 1)), protocol.NotCoordinator)
	}
	wantCode(t, "JoinGroup", do[*kmsg.JoinGroupResponse](c, newJoin(9, "g", "")).ErrorCode, protocol.NotCoordinator)
	wantCode(t, "SyncGroup", do[*kmsg.SyncGroupResponse](c, newSync(5, "g", j)).ErrorCode, protocol.NotCoordinator)
	wantCode(t, "LeaveGroup", c.leave(5, "g", j.MemberID).ErrorCode, protocol.NotCoordinator)
	d := kmsg.NewPtrDescribeGroupsRequest()
	d.Version, d.Groups = 5, []string{"g"}
	wantCode(t, "DescribeGroups", do[*kmsg.DescribeGroupsResponse](c, d).Groups[0].ErrorCode, protocol.NotCoordinator)
	wantCode(t, "ConsumerGroupHeartbeat", do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(1, "g", "m", 0)).ErrorCode, protocol.NotCoordinator)
}
