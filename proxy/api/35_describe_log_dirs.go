package api

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
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
// open, since nobody has used it, has a size of 0. A node tells of the partitions that
// it leads; clients that were given one address get those of all nodes at once.

func (h *Handlers) describeLogDirs(r *proxy.Request, q *kmsg.DescribeLogDirsRequest) {
	var asked []int
	if r.Origin != nil {
		for _, s := range r.Origin.Slots {
			asked = append(asked, int(s.Slot))
		}
	}
	h.describedLogDirs(r, q, asked, func(resp kmsg.Response) { h.respond(r, resp) })
}

// describedLogDirs answers with the logs of this node. Those of the slots that are asked
// for must be among them: the directory has NOT_LEADER_OR_FOLLOWER if one is not
// served from the beginning to the end.
func (h *Handlers) describedLogDirs(r *proxy.Request, q *kmsg.DescribeLogDirsRequest, asked []int, reply func(kmsg.Response)) {
	served := h.watchSlots(asked)
	r.Go(func() {
		resp := q.ResponseKind().(*kmsg.DescribeLogDirsResponse)
		dir := kmsg.NewDescribeLogDirsResponseDir()
		dir.Dir = h.c.LogDir
		dir.TotalBytes, dir.UsableBytes = -1, -1
		if q.Topics == nil {
			for _, t := range h.c.Coordinator.Topics() {
				if out := h.describeLogDir(t, nil); len(out.Partitions) > 0 {
					dir.Topics = append(dir.Topics, out)
				}
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
		if !served() {
			dir.ErrorCode, dir.Topics = int16(protocol.NotLeaderOrFollower), nil
		}
		resp.Dirs = append(resp.Dirs, dir)
		reply(resp)
	})
}

func (h *Handlers) describeLogDirsOfMany(r *proxy.Request, q *kmsg.DescribeLogDirsRequest) {
	whole := q.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = h.c.LogDir
	dir.TotalBytes, dir.UsableBytes = -1, -1
	var mu sync.Mutex
	var failed error
	topics := make(map[string]map[int32]kmsg.DescribeLogDirsResponseDirTopicPartition)
	add := func(resp kmsg.Response) (again bool) {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range resp.(*kmsg.DescribeLogDirsResponse).Dirs {
			if protocol.Code(d.ErrorCode) == protocol.NotLeaderOrFollower {
				return true
			}
			for _, t := range d.Topics {
				of := topics[t.Topic]
				if of == nil {
					of = make(map[int32]kmsg.DescribeLogDirsResponseDirTopicPartition)
					topics[t.Topic] = of
				}
				for _, p := range t.Partitions {
					of[p.Partition] = p
				}
			}
		}
		return false
	}
	h.split(r, splitting{
		slots: allSlots, wait: maxRouteWait, timeout: partTimeout, reads: true,
		here: func(items []int, done func(again []int)) {
			h.describedLogDirs(r, q, items, func(resp kmsg.Response) {
				if add(resp) {
					done(items)
				} else {
					done(nil)
				}
			})
		},
		part: func([]int) kmsg.Request {
			part := *q
			return &part
		},
		take: func(items []int, resp kmsg.Response) []int {
			if add(resp) {
				return items
			}
			return nil
		},
		refuse: func(_ []int, why error) {
			mu.Lock()
			defer mu.Unlock()
			failed = why
		},
		respond: func() {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case failed != nil && q.Version >= 3:
				whole.ErrorCode = int16(protocol.RequestTimedOut)
			case failed != nil:
				dir.ErrorCode = int16(protocol.KafkaStorageError)
				whole.Dirs = append(whole.Dirs, dir)
			default:
				for _, name := range slices.Sorted(maps.Keys(topics)) {
					out := kmsg.NewDescribeLogDirsResponseDirTopic()
					out.Topic = name
					for _, i := range slices.Sorted(maps.Keys(topics[name])) {
						out.Partitions = append(out.Partitions, topics[name][i])
					}
					dir.Topics = append(dir.Topics, out)
				}
				whole.Dirs = append(whole.Dirs, dir)
			}
			h.respond(r, whole)
		},
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
		if i < 0 || i >= t.Partitions || !h.serves(coordinator.PartitionSlot(t.ID, i)) {
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
