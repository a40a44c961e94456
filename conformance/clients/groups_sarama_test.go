package clients

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

var saramaStrategies = map[string]sarama.BalanceStrategy{
	"range":      sarama.NewBalanceStrategyRange(),
	"roundrobin": sarama.NewBalanceStrategyRoundRobin(),
	"sticky":     sarama.NewBalanceStrategySticky(),
}

var saramaMembers = []memberKind{
	{library: "sarama", protocol: "classic", assignor: "range", static: true, start: startSarama, short: true},
	{library: "sarama", protocol: "classic", assignor: "roundrobin", static: true, start: startSarama},
	{library: "sarama", protocol: "classic", assignor: "sticky", static: true, start: startSarama, short: true},
}

// saramaHandler is the consumer of one group session.
// saramaCut is what a connection that was cut leads to; it is made again.
var saramaCut = []error{io.EOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, sarama.ErrNotConnected, sarama.ErrOutOfBrokers}

type saramaHandler struct {
	m     *member
	topic string
}

func (h saramaHandler) Setup(s sarama.ConsumerGroupSession) error {
	h.m.assign(s.Claims()[h.topic]...)
	return nil
}

func (h saramaHandler) Cleanup(s sarama.ConsumerGroupSession) error {
	h.m.revoke(s.Claims()[h.topic]...)
	return nil
}

func (h saramaHandler) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		h.m.record(message.Partition, message.Offset)
		s.MarkMessage(message, "")
		s.Commit()
	}
	return nil
}

func startSarama(t *testing.T, o memberOptions) *member {
	t.Helper()
	m := newMember(t, "sarama "+o.instance)
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Return.Errors = true
	config.Consumer.MaxWaitTime = 250 * time.Millisecond
	config.Consumer.Group.InstanceId = o.instance
	config.Consumer.Group.Heartbeat.Interval = memberHeartbeat
	config.Consumer.Group.Session.Timeout = memberSession
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{saramaStrategies[o.assignor]}
	group, err := sarama.NewConsumerGroup([]string{broker.Addr()}, o.group, config)
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan struct{})
	go func() {
		defer close(errs)
		for err := range group.Errors() {
			if !slices.ContainsFunc(saramaCut, func(cut error) bool { return errors.Is(err, cut) }) {
				m.fail(err)
			}
		}
	}()
	stop := background(func(ctx context.Context) {
		for ctx.Err() == nil {
			if err := group.Consume(ctx, []string{o.topic}, saramaHandler{m, o.topic}); err != nil && ctx.Err() == nil {
				m.fail(err)
				return
			}
		}
	})
	m.stop = func() error {
		stop()
		err := group.Close()
		<-errs
		if errors.Is(err, sarama.ErrClosedConsumerGroup) {
			return nil
		}
		return err
	}
	return m
}
