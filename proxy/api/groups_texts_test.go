package api

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
)

// Which texts are null, empty or filled is part of an answer: clients print
// them, and some decode a field that is never null as such.
func TestGroupTexts(t *testing.T) {
	s := newGroupServer(t)
	c := s.dial()
	for v := int16(1); v <= 6; v++ {
		q := kmsg.NewPtrFindCoordinatorRequest()
		q.Version, q.CoordinatorKey, q.CoordinatorKeys = v, "g", []string{"g"}
		resp := do[*kmsg.FindCoordinatorResponse](c, q)
		said, want := resp.ErrorMessage, "NONE"
		if v >= 4 {
			said, want = resp.Coordinators[0].ErrorMessage, ""
		}
		if said == nil || *said != want {
			t.Errorf("FindCoordinator v%d: without an error the message is %v, want %q", v, said, want)
		}
	}

	if resp := do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(1, "g", "x", 1)); resp.ErrorCode == 0 || resp.ErrorMessage == nil || resp.MemberID != nil {
		t.Errorf("a refused heartbeat is answered %+v, want a message and no member", resp)
	}

	s.createTopic("orders", 1)
	if resp := do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(1, "g", "m", 0)); resp.ErrorCode != 0 || resp.MemberID == nil || *resp.MemberID != "m" {
		t.Fatalf("a join is answered %+v", resp)
	}
	d := kmsg.NewPtrConsumerGroupDescribeRequest()
	d.Version, d.Groups = 1, []string{"g"}
	described := do[*kmsg.ConsumerGroupDescribeResponse](c, d).Groups[0]
	if len(described.Members) != 1 || described.Members[0].SubscribedTopicRegex == nil {
		t.Errorf("a member without an expression is described as %+v, want an empty one", described.Members)
	}

	e := kmsg.NewPtrDeleteGroupsRequest()
	e.Version, e.Groups = 3, []string{"g", "none"}
	for _, g := range do[*kmsg.DeleteGroupsResponse](c, e).Groups {
		if g.ErrorCode == 0 || g.ErrorMessage == nil || *g.ErrorMessage == "" {
			t.Errorf("DeleteGroups of %s, which is refused: %+v", g.Group, g)
		}
	}
}

// The group without a name has offsets, but OffsetDelete refuses it.
func TestOffsetDeleteWithoutName(t *testing.T) {
	s := newGroupServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	wantCode(t, "OffsetCommit", c.commit(newCommitRequest(8, "", topic, 0, 5)), protocol.None)
	q := kmsg.NewPtrOffsetDeleteRequest()
	dt := kmsg.NewOffsetDeleteRequestTopic()
	dt.Topic, dt.Partitions = "orders", []kmsg.OffsetDeleteRequestTopicPartition{kmsg.NewOffsetDeleteRequestTopicPartition()}
	q.Topics = append(q.Topics, dt)
	resp := do[*kmsg.OffsetDeleteResponse](c, q)
	wantCode(t, "OffsetDelete", resp.ErrorCode, protocol.InvalidGroupID)
	if len(resp.Topics) > 0 {
		t.Errorf("the answer names %+v", resp.Topics)
	}
	if _, got := c.fetchOffsets(8, "", topic, 0); got[0].offset != 5 {
		t.Errorf("committed is %+v, want 5", got)
	}
}
