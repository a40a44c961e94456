//go:build !librdkafka1

package main

import (
	"context"
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/quirelog/quire/conformance/clients/goclient"
)

// newerAdminChecks are of calls that came with the 2.x versions.
var newerAdminChecks = append([]goclient.Check{
	{Name: "admin-incremental-alter-configs", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		return alterConfigs(ctx, a, env.Fresh, a.IncrementalAlterConfigs,
			kafka.ConfigEntry{Name: "retention.ms", Value: "7200000", IncrementalOperation: kafka.AlterConfigOpTypeSet})
	})},
	{Name: "admin-describe-topic", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		r, err := a.DescribeTopics(ctx, kafka.NewTopicCollectionOfTopicNames([]string{env.Topic}))
		if err == nil && (len(r.TopicDescriptions) != 1 || r.TopicDescriptions[0].Error.Code() != kafka.ErrNoError || len(r.TopicDescriptions[0].Partitions) != 1) {
			return fmt.Errorf("unexpected answer %+v", r)
		}
		return err
	})},
	{Name: "admin-describe-cluster", Run: admin(func(ctx context.Context, a *kafka.AdminClient, _ goclient.Env) error {
		r, err := a.DescribeCluster(ctx)
		if err == nil && (len(r.Nodes) == 0 || r.Controller == nil) {
			return fmt.Errorf("unexpected answer %+v", r)
		}
		return err
	})},
	{Name: "admin-list-offsets", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		end := kafka.TopicPartition{Topic: &env.Topic, Partition: 0}
		r, err := a.ListOffsets(ctx, map[kafka.TopicPartition]kafka.OffsetSpec{end: kafka.LatestOffsetSpec})
		if err != nil {
			return err
		}
		want := len(goclient.Canonical())
		for _, info := range r.ResultInfos {
			if info.Error.Code() == kafka.ErrNoError && int(info.Offset) == want {
				return nil
			}
		}
		return fmt.Errorf("unexpected answer %+v, want %d", r, want)
	})},
	{Name: "admin-list-groups", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		r, err := a.ListConsumerGroups(ctx)
		if err != nil {
			return err
		}
		for _, g := range r.Valid {
			if g.GroupID == env.Group {
				return nil
			}
		}
		return fmt.Errorf("%s is not among %d groups", env.Group, len(r.Valid))
	})},
	{Name: "admin-describe-group", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		r, err := a.DescribeConsumerGroups(ctx, []string{env.Group})
		if err != nil {
			return err
		}
		if g := r.ConsumerGroupDescriptions; len(g) != 1 || g[0].Error.Code() != kafka.ErrNoError || g[0].State != kafka.ConsumerGroupStateEmpty {
			return fmt.Errorf("unexpected answer %+v", g)
		}
		return nil
	})},
	{Name: "admin-list-group-offsets", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		return committed(ctx, a, env, kafka.Offset(len(goclient.Canonical())))
	})},
	{Name: "admin-alter-group-offsets", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		const offset = 4
		r, err := a.AlterConsumerGroupOffsets(ctx, []kafka.ConsumerGroupTopicPartitions{{
			Group: env.Group, Partitions: []kafka.TopicPartition{{Topic: &env.Topic, Partition: 0, Offset: offset}},
		}})
		if err != nil {
			return err
		}
		if e := r.ConsumerGroupsTopicPartitions[0].Partitions[0].Error; e != nil {
			return e
		}
		return committed(ctx, a, env, offset)
	})},
	{Name: "admin-delete-group", Run: admin(func(ctx context.Context, a *kafka.AdminClient, env goclient.Env) error {
		r, err := a.DeleteConsumerGroups(ctx, []string{env.Group})
		if err != nil {
			return err
		}
		if e := r.ConsumerGroupResults[0].Error; e.Code() != kafka.ErrNoError {
			return e
		}
		return nil
	})},
}, newestChecks...)

func committed(ctx context.Context, a *kafka.AdminClient, env goclient.Env, want kafka.Offset) error {
	r, err := a.ListConsumerGroupOffsets(ctx, []kafka.ConsumerGroupTopicPartitions{{
		Group: env.Group, Partitions: []kafka.TopicPartition{{Topic: &env.Topic, Partition: 0}},
	}})
	if err != nil {
		return err
	}
	if got := r.ConsumerGroupsTopicPartitions[0].Partitions[0]; got.Error != nil || got.Offset != want {
		return fmt.Errorf("committed %v, want %v", got, want)
	}
	return nil
}
