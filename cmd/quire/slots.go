package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/storage"
)

// newestFeatureLevel is what this program tells the other nodes that it knows.
var newestFeatureLevel int32 = coordinator.NewestFeatureLevel

// logSlot is the slot with which a log comes and goes.
func logSlot(id storage.LogID) int { return coordinator.PartitionSlot(id.Topic, id.Partition) }

// serves says which logs this node is to serve, nil for all: a node whose records no
// other one can serve asks nobody.
func (n *node) serves() func(storage.LogID) bool {
	if !n.shared {
		return nil
	}
	return func(id storage.LogID) bool { return n.coordinator.Route(logSlot(id)).Here }
}

// housekeeper says whether this node deletes the ledgers that no log has.
func (n *node) housekeeper() bool {
	if n.restore != nil && n.restore.keepOrphans.Load() {
		return false
	}
	return !n.shared || n.coordinator.Housekeeper()
}

// marksLedgers says whether this node marks the ledgers whose replicas are lost. It
// may be asked before the coordinator is open.
func (n *node) marksLedgers() bool {
	return n.logs.Load() != nil && (!n.shared || n.coordinator.Housekeeper())
}

// topicChanged lets open logs know what any node has made of their topic.
func (n *node) topicChanged(t *coordinator.Topic, deleted bool) {
	logs := n.logs.Load()
	switch {
	case logs == nil: // none is open, and those that will be ask for their topic
	case deleted:
		logs.CloseTopic(t.ID)
	default:
		logs.SetConfigs(t.ID, t.LogConfig)
	}
}

// drain gives all slots to other nodes while clients are still served, if there are
// other nodes, for half of the time that ctx has left, and waits until load balancers
// send new clients there. A node that has failed does not: it may be one whose id
// another process has by now.
func (n *node) drain(ctx context.Context) {
	if !n.orderly || !n.serving.Load() || !n.shared || len(n.coordinator.Nodes()) < 2 {
		return
	}
	n.giveSlots(ctx)
	if n.agent == nil {
		return
	}
	ctx, cancel := share(ctx, 3)
	defer cancel()
	if err := n.agent.awaitDrain(ctx); err != nil {
		n.log.Warn("new clients may still be sent to this node, and are refused when it ends", zap.Error(err))
	}
}

// share is the nth part of the time that ctx has left.
func share(ctx context.Context, n time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/n)
}

func (n *node) giveSlots(ctx context.Context) {
	ctx, cancel := share(ctx, 2)
	defer cancel()
	started := time.Now()
	if err := n.coordinator.Drain(ctx); err != nil {
		n.log.Warn("not all is handed over; the other nodes take the rest when this one is gone", zap.Error(err))
		return
	}
	n.log.Info("all is handed over to other nodes", zap.Duration("took", time.Since(started)))
	n.part(ctx)
}

const (
	// partingQuiet is for how long no client may have come for what is handed over
	// before connections are closed, and partingMost how long that is waited for.
	partingQuiet = 150 * time.Millisecond
	partingMost  = time.Second
	partingLook  = 10 * time.Millisecond
)

// part serves on until the clients that know nodes have learnt who serves their
// partitions now: one that finds its connection closed under a request waits for far
// longer than one that is told. Those behind one address learn nothing.
func (n *node) part(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, partingMost)
	defer cancel()
	n.handlers.Leave()
	began := time.Now()
	tick := time.NewTicker(partingLook)
	defer tick.Stop()
	for min(time.Since(began), time.Since(n.handlers.LastAstray())) < partingQuiet {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
