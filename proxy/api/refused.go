package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
)

// refusedGroup is the answer with nothing but a code to a request about one
// group (protocol.NamesGroup), with what it names of members and partitions.
func refusedGroup(q kmsg.Request, code protocol.Code) kmsg.Response {
	resp := q.ResponseKind()
	switch q := q.(type) {
	case *kmsg.OffsetCommitRequest:
		resp := resp.(*kmsg.OffsetCommitResponse)
		for i := range q.Topics {
			t := kmsg.NewOffsetCommitResponseTopic()
			t.Topic, t.TopicID = q.Topics[i].Topic, q.Topics[i].TopicID
			for j := range q.Topics[i].Partitions {
				p := kmsg.NewOffsetCommitResponseTopicPartition()
				p.Partition, p.ErrorCode = q.Topics[i].Partitions[j].Partition, int16(code)
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
	case *kmsg.OffsetFetchRequest:
		asked := oldGroup(q)
		g := kmsg.NewOffsetFetchResponseGroup()
		g.ErrorCode = int16(code)
		setOldGroup(resp.(*kmsg.OffsetFetchResponse), &g, &asked)
	case *kmsg.JoinGroupRequest:
		resp := resp.(*kmsg.JoinGroupResponse)
		resp.ErrorCode, resp.Generation, resp.MemberID = int16(code), -1, q.MemberID
	case *kmsg.HeartbeatRequest:
		resp.(*kmsg.HeartbeatResponse).ErrorCode = int16(code)
	case *kmsg.LeaveGroupRequest:
		resp.(*kmsg.LeaveGroupResponse).ErrorCode = int16(code)
	case *kmsg.SyncGroupRequest:
		if code == protocol.CoordinatorLoadInProgress {
			code = protocol.RebalanceInProgress
		}
		resp.(*kmsg.SyncGroupResponse).ErrorCode = int16(code)
	case *kmsg.OffsetDeleteRequest:
		resp.(*kmsg.OffsetDeleteResponse).ErrorCode = int16(code)
	case *kmsg.ConsumerGroupHeartbeatRequest:
		resp := resp.(*kmsg.ConsumerGroupHeartbeatResponse)
		resp.ErrorCode, resp.ErrorMessage = int16(code), message(code)
	}
	return resp
}
