//go:build !librdkafka1 && !librdkafka2_3

package main

import (
	"context"
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/quirelog/quire/conformance/clients/goclient"
)

// newestChecks are of calls that came after 2.3.
var newestChecks = []goclient.Check{
	{Name: "group-consumer-protocol", Run: func(ctx context.Context, env goclient.Env) error {
		settings := config("group.protocol", "consumer")
		_, err := groupWith(ctx, settings, env.Fresh, env.Topic, len(goclient.Canonical()))
		return err
	}},
	{Name: "admin-delete-records", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		if err := produce(ctx, env.Fresh, 0, "none", goclient.Canonical()); err != nil {
			return err
		}
		const first = 7
		r, err := a.DeleteRecords(ctx, []kafka.TopicPartition{{Topic: &env.Fresh, Partition: 0, Offset: first}})
		if err != nil {
			return err
		}
		if d := r.DeleteRecordsResults; len(d) != 1 || d[0].TopicPartition.Error != nil || d[0].DeletedRecords.LowWatermark != first {
			return fmt.Errorf("unexpected answer %+v", d)
		}
		return nil
	})},
	{Name: "admin-elect-leaders", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		r, err := a.ElectLeaders(ctx, kafka.NewElectLeadersRequest(kafka.ElectionTypePreferred,
			[]kafka.TopicPartition{{Topic: &env.Topic, Partition: 0}}))
		if err != nil {
			return err
		}
		for _, p := range r.TopicPartitions {
			if e, ok := p.Error.(kafka.Error); ok && e.Code() != kafka.ErrNoError && e.Code() != kafka.ErrElectionNotNeeded {
				return e
			}
		}
		return nil
	})},
}
