package main

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage"
)

// startSweep looks after the logs that nobody uses, every retention interval
// until it is closed. The first look comes an interval after the start, which
// has better things to do.
func (n *node) startSweep() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(max(n.config.millis("log.retention.check.interval.ms"), time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				n.sweep(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	n.onClose("sweep", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

// sweep opens the logs that are not open, one after another, since retention
// works on open logs only. The logs of topics that are gone it deletes: a
// process may end between the deletion of a topic and that of its logs. Other nodes
// make topics too, and this one may hear of a log before it hears of its topic: so
// whether a topic is gone is asked where it was made.
func (n *node) sweep(ctx context.Context) {
	gone := map[[16]byte]int32{} // partitions to delete by topic id
	n.store.Unopened(func(id storage.LogID) bool {
		topic := n.coordinator.TopicByID(id.Topic)
		if topic == nil {
			gone[id.Topic] = max(gone[id.Topic], id.Partition+1)
			return ctx.Err() == nil
		}
		_, err := n.store.OpenLog(ctx, id, topic.LogConfig)
		if err != nil && !errors.Is(err, context.Canceled) {
			n.log.Warn("log cannot be opened for retention", zap.String("topic", topic.Name), zap.Int32("partition", id.Partition), zap.Error(err))
		}
		return ctx.Err() == nil
	})
	for topic, partitions := range gone {
		deleted, err := n.coordinator.TopicDeleted(ctx, topic)
		if err != nil || !deleted {
			continue
		}
		if err := n.store.DeleteLogs(ctx, topic, partitions); err != nil && !errors.Is(err, context.Canceled) {
			n.log.Warn("logs of a deleted topic are left", zap.Binary("topic_id", topic[:]), zap.Error(err))
		}
	}
}
