package api

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
)

// DescribeLogDirs: v0-5
//
//	v2: flexible
//	v3: top-level error
//	v4: total and usable bytes (KIP-827); -1, the ledger tier's business
//	v5: cordoned directories; none
//
// All logs lie in one directory that exists in name only. Topics and
// partitions that are asked for and unknown are absent, as in Kafka, and so is a topic of
// which no partition is left. A log that is not
// open, since nobody has used it, has a size of 0.

func (h *Handlers) describeLogDirs(r *proxy.Request, q *kmsg.DescribeLogDirsRequest) {
	r.Go(func() {
		resp := q.ResponseKind().(*kmsg.DescribeLogDirsResponse)
		dir := kmsg.NewDescribeLogDirsResponseDir()
		dir.Dir = h.c.LogDir
		dir.TotalBytes, dir.UsableBytes = -1, -1
		if q.Topics == nil {
			for _, t := range h.c.Coordinator.Topics() {
				dir.Topics = append(dir.Topics, h.describeLogDir(t, nil))
			}
		}
		for i := range q.Topics {
			t := h.c.Coordinator.Topic(q.Topics[i].Topic)
			if t == nil || len(q.Topics[i].Partitions) == 0 {
				continue
			}
			if out := h.describeLogDir(t, q.Topics[i].Partitions); len(out.Partitions) > 0 {
				dir.Topics = append(dir.Topics, out)
			}
		}
		resp.Dirs = append(resp.Dirs, dir)
		h.respond(r, resp)
	})
}

// describeLogDir tells the sizes of a topic's logs, of all if partitions is nil.
func (h *Handlers) describeLogDir(t *coordinator.Topic, partitions []int32) kmsg.DescribeLogDirsResponseDirTopic {
	out := kmsg.NewDescribeLogDirsResponseDirTopic()
	out.Topic = t.Name
	if partitions == nil {
		partitions = make([]int32, t.Partitions)
		for i := range partitions {
			partitions[i] = int32(i)
		}
	}
	for _, i := range partitions {
		if i < 0 || i >= t.Partitions {
			continue
		}
		p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		p.Partition = i
		if l := h.c.Store.Log(storage.LogID{Topic: t.ID, Partition: i}); l != nil {
			p.Size = l.Size()
		}
		out.Partitions = append(out.Partitions, p)
	}
	slices.SortFunc(out.Partitions, func(a, b kmsg.DescribeLogDirsResponseDirTopicPartition) int {
		return cmp.Compare(a.Partition, b.Partition)
	})
	return out
}
