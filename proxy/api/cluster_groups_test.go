package api

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy/forward"
)

// moveAbout moves slots from node to node, one after the other, until stop is called.
func (c *cluster) moveAbout(slots ...int) (stop func()) {
	c.t.Helper()
	done := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			slot := slots[i%len(slots)]
			to := c.nodes[(i/len(slots)+i)%len(c.nodes)]
			began := time.Now()
			if err := to.coord.Override(context.Background(), slot, to.id); err != nil {
				c.t.Errorf("move slot %d: %v", slot, err)
				return
			}
			// It need not have arrived before the next one goes: the pace at which slots
			// move, no condition of the test.
			for end := began.Add(50 * time.Millisecond); !to.coord.Route(slot).Here && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			// The pace again: those who ask, of whom nothing tells when they have got on with
			// it, have as long as the move took, however slow the machine is.
			time.Sleep(time.Since(began))
		}
	})
	stop = sync.OnceFunc(func() {
		close(done)
		moving.Wait()
	})
	c.t.Cleanup(stop)
	return stop
}

// TestCommitsStayInOrder: the commits of a connection take effect in the order in
// which they were sent, however often their group moves while they are on their way.
func TestCommitsStayInOrder(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 1)
	id := "group"
	stop := c.moveAbout(coordinator.SlotOf(id))
	reader := c.nodes[2].dialProxy()
	looked, last := make(chan struct{}), int64(-1)
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-looked:
				return
			default:
			}
			code, found := reader.fetchOffsets(9, id, topic, 0)
			if code != protocol.None || len(found) != 1 {
				t.Errorf("OffsetFetch: %s, %v", code.Name(), found)
				return
			}
			if found[0].offset < last {
				t.Errorf("the committed offset went from %d back to %d", last, found[0].offset)
				return
			}
			last = found[0].offset
		}
	})
	const rounds, each = 60, 20
	committed, refused := int64(-1), 0
	w := c.nodes[0].dialProxy()
	for round := range rounds {
		var sent []*kmsg.OffsetCommitRequest
		for i := range each {
			q := newCommitRequest(8, id, topic, 0, int64(round*each+i))
			sent = append(sent, q)
			w.send(q)
		}
		for i, q := range sent {
			resp, err := w.receive(q)
			check(t, err)
			switch code := protocol.Code(resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode); code {
			case protocol.None:
				committed = int64(round*each + i)
			case protocol.NotCoordinator:
				refused++
			default:
				t.Fatalf("commit %d: %s", round*each+i, code.Name())
			}
		}
	}
	stop()
	close(looked)
	looking.Wait()
	if refused > rounds*each/4 {
		t.Errorf("%d of %d commits were refused", refused, rounds*each)
	}
	code, found := reader.fetchOffsets(9, id, topic, 0)
	if code != protocol.None || found[0].offset != committed {
		t.Errorf("%d was committed last, %v is found (%s)", committed, found, code.Name())
	}
}

// holding is a way to other nodes on which calls are held, and do not leave when they
// are let go.
type holding struct {
	forward.Sender
	mu   sync.Mutex
	held []*forward.Call
}

func (h *holding) Send(_ int32, c *forward.Call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = append(h.held, c)
}

func (h *holding) calls() []*forward.Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.held)
}

// TestLargeCommitIsNotOvertaken: a commit that a worker has to read stays before the
// next one of its connection, also when both have come back from another node.
func TestLargeCommitIsNotOvertaken(t *testing.T) {
	c := newCluster(t, 2, func(o *options) { o.way = func(p *forward.Peers) forward.Sender { return &holding{Sender: p} } })
	n, other := c.nodes[0], c.nodes[1]
	topic := n.createTopic("orders", 2500)
	id := other.groupOf(0)
	way := n.handler.c.Peers.(*holding)
	r := n.dialProxy()
	large := newCommitRequest(8, id, topic, 0, 1)
	for p := range topic.Partitions - 1 {
		large.Topics[0].Partitions = append(large.Topics[0].Partitions, newCommitRequest(8, id, topic, p+1, 1).Topics[0].Partitions...)
	}
	if len(large.AppendTo(nil)) <= inlineBytes {
		t.Fatal("the commit is not large")
	}
	r.send(large)
	small := newCommitRequest(8, id, topic, 0, 2)
	r.send(small)
	until(t, "both are on their way", func() bool { return len(way.calls()) == 2 })
	c.move(coordinator.SlotOf(id), n)
	for _, call := range way.calls() {
		call.Done(call, forward.Answer{Status: forward.Failed, Err: forward.ErrUnreachable})
	}
	for _, q := range []*kmsg.OffsetCommitRequest{large, small} {
		resp, err := r.receive(q)
		check(t, err)
		wantCode(t, "commit", resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode, protocol.None)
	}
	code, found := r.fetchOffsets(9, id, topic, 0)
	if code != protocol.None || found[0].offset != 2 {
		t.Errorf("2 was committed last, %v is found (%s)", found, code.Name())
	}
}

// TestMalformedCommitIsForgotten: a commit that cannot be read ends its connection, and
// leaves nothing behind.
func TestMalformedCommitIsForgotten(t *testing.T) {
	c := newCluster(t, 1)
	n := c.nodes[0]
	topic := n.createTopic("orders", 1)
	for range 3 {
		r := n.dial()
		q := newCommitRequest(8, n.groupOf(0), topic, 0, 1)
		frame := kmsg.NewRequestFormatter().AppendRequest(nil, q, 1)
		frame = frame[:len(frame)-3]
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
		_, err := r.conn.Write(frame)
		check(t, err)
		if !r.dropped() {
			t.Fatal("half a commit is answered")
		}
	}
	lines := &n.handler.lines
	lines.mu.Lock()
	defer lines.mu.Unlock()
	if len(lines.byConn) > 0 {
		t.Errorf("%d connections are remembered", len(lines.byConn))
	}
}

// TestListIsWholeWhileSlotsMove: a list of all groups, asked of any node, has all
// of them also while their coordinators change.
func TestListIsWholeWhileSlotsMove(t *testing.T) {
	c := newCluster(t, 3)
	topic := c.nodes[0].createTopic("orders", 4)
	var ids []string
	var slots []int
	w := c.nodes[0].dialProxy()
	for i := range 12 {
		ids = append(ids, fmt.Sprint("group ", i))
		slots = append(slots, coordinator.SlotOf(ids[i]))
		wantCode(t, "commit", w.commit(newCommitRequest(8, ids[i], topic, 0, 1)), protocol.None)
	}
	for p := range topic.Partitions {
		slots = append(slots, coordinator.PartitionSlot(topic.ID, p))
	}
	slices.Sort(ids)
	stop := c.moveAbout(slots...)
	defer stop()
	for round := range 60 {
		r := c.nodes[round%3].dialProxy()
		resp := do[*kmsg.ListGroupsResponse](r, &kmsg.ListGroupsRequest{Version: 4})
		wantCode(t, "ListGroups", resp.ErrorCode, protocol.None)
		var listed []string
		for _, g := range resp.Groups {
			listed = append(listed, g.Group)
		}
		if !slices.Equal(listed, ids) {
			t.Fatalf("listed are %q of %q", listed, ids)
		}
		d := do[*kmsg.DescribeLogDirsResponse](r, &kmsg.DescribeLogDirsRequest{Version: 4})
		wantCode(t, "DescribeLogDirs", d.ErrorCode, protocol.None)
		if len(d.Dirs) != 1 || len(d.Dirs[0].Topics) != 1 || len(d.Dirs[0].Topics[0].Partitions) != 4 {
			t.Fatalf("the directories are %+v", d.Dirs)
		}
		g := kmsg.NewPtrDescribeGroupsRequest()
		g.Version, g.Groups = 5, ids
		for _, out := range do[*kmsg.DescribeGroupsResponse](r, g).Groups {
			wantCode(t, "DescribeGroups of "+out.Group, out.ErrorCode, protocol.None)
			if out.State != "Empty" {
				t.Fatalf("%q is %s", out.Group, out.State)
			}
		}
		q := listOffset(4, topic, 0, -1)
		for p := range topic.Partitions - 1 {
			q.Topics[0].Partitions = append(q.Topics[0].Partitions, listOffset(4, topic, p+1, -1).Topics[0].Partitions...)
		}
		for _, p := range do[*kmsg.ListOffsetsResponse](r, q).Topics[0].Partitions {
			wantCode(t, "ListOffsets", p.ErrorCode, protocol.None)
		}
	}
}
