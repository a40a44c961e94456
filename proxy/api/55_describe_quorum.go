package api

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// DescribeQuorum: v0-2
//
//	v1: times of the last fetch and of the last catching up (KIP-836)
//	v2: directory ids, nodes, error messages (KIP-853)
//
// Metadata lies in etcd, whose members are no nodes of this protocol. What is told is
// what a client can make use of: one voter, the node that Metadata calls the controller,
// and as end of its log the revision of the metadata store.

// metadataTopic is the one partition that has a quorum, Topic.java.
const metadataTopic = "__cluster_metadata"

func (h *Handlers) describeQuorum(r *proxy.Request, q *kmsg.DescribeQuorumRequest) {
	resp := q.ResponseKind().(*kmsg.DescribeQuorumResponse)
	brokers, controller := h.brokers(r.Listener())
	right := len(q.Topics) == 1 && q.Topics[0].Topic == metadataTopic &&
		len(q.Topics[0].Partitions) == 1 && q.Topics[0].Partitions[0].Partition == 0
	if !right || controller == -1 {
		code := protocol.UnknownTopicOrPartition
		if right {
			code = protocol.NotLeaderOrFollower
		}
		refuseQuorum(q, resp, code)
		h.respond(r, resp)
		return
	}
	r.GoSlow(func() {
		ctx, cancel := h.timeout(defaultTimeout)
		defer cancel()
		revision, err := h.c.Coordinator.MetadataRevision(ctx)
		if err != nil {
			refuseQuorum(q, resp, dataErrors.code(err))
			h.respond(r, resp)
			return
		}
		p := kmsg.NewDescribeQuorumResponseTopicPartition()
		p.LeaderID, p.HighWatermark = controller, revision
		voter := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		voter.ReplicaID, voter.LogEndOffset = controller, revision
		voter.LastFetchTimestamp = h.c.Now().UnixMilli()
		voter.LastCaughtUpTimestamp = voter.LastFetchTimestamp
		p.CurrentVoters = append(p.CurrentVoters, voter)
		t := kmsg.NewDescribeQuorumResponseTopic()
		t.Topic = metadataTopic
		t.Partitions = append(t.Partitions, p)
		resp.Topics = append(resp.Topics, t)
		for _, b := range brokers {
			if b.id == controller {
				n := kmsg.NewDescribeQuorumResponseNode()
				n.NodeID = b.id
				// RaftVoterEndpoint.java takes names in capital letters only.
				n.Listeners = append(n.Listeners, kmsg.DescribeQuorumResponseNodeListener{
					Name: strings.ToUpper(r.Listener()), Host: b.host, Port: uint16(b.port),
				})
				resp.Nodes = append(resp.Nodes, n)
			}
		}
		h.respond(r, resp)
	})
}

// refuseQuorum answers every partition with one code.
func refuseQuorum(q *kmsg.DescribeQuorumRequest, resp *kmsg.DescribeQuorumResponse, code protocol.Code) {
	for i := range q.Topics {
		t := kmsg.NewDescribeQuorumResponseTopic()
		t.Topic = q.Topics[i].Topic
		t.Partitions = make([]kmsg.DescribeQuorumResponseTopicPartition, len(q.Topics[i].Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			p.Default()
			p.Partition = q.Topics[i].Partitions[j].Partition
			p.ErrorCode, p.ErrorMessage = int16(code), message(code)
		}
		resp.Topics = append(resp.Topics, t)
	}
}
