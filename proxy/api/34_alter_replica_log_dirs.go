package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// AlterReplicaLogDirs: v0-2
//
//	v1: throttle time
//	v2: flexible
//
// There is one directory, that of DescribeLogDirs, and everything is in it: to move a
// partition there is done at once, any other directory does not exist.

func (h *Handlers) alterReplicaLogDirs(r *proxy.Request, q *kmsg.AlterReplicaLogDirsRequest) {
	resp := q.ResponseKind().(*kmsg.AlterReplicaLogDirsResponse)
	place := make(map[string]int) // of a topic in the answer, where each is named once
	for i := range q.Dirs {
		known := q.Dirs[i].Dir == h.c.LogDir
		for j := range q.Dirs[i].Topics {
			in := &q.Dirs[i].Topics[j]
			at, ok := place[in.Topic]
			if !ok {
				at = len(resp.Topics)
				place[in.Topic] = at
				out := kmsg.NewAlterReplicaLogDirsResponseTopic()
				out.Topic = in.Topic
				resp.Topics = append(resp.Topics, out)
			}
			t := h.c.Coordinator.Topic(in.Topic)
			for _, partition := range in.Partitions {
				p := kmsg.NewAlterReplicaLogDirsResponseTopicPartition()
				p.Partition = partition
				switch {
				case !known:
					p.ErrorCode = int16(protocol.LogDirNotFound)
				case t == nil || partition < 0 || partition >= t.Partitions:
					p.ErrorCode = int16(protocol.UnknownTopicOrPartition)
				}
				resp.Topics[at].Partitions = append(resp.Topics[at].Partitions, p)
			}
		}
	}
	h.respond(r, resp)
}
