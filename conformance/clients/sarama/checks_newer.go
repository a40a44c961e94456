//go:build !sarama1_19

package main

import (
	"context"
	"fmt"

	"github.com/IBM/sarama"
	"github.com/quirelog/quire/conformance/clients/goclient"
)

// newerChecks are of calls that version 1.19 does not have.
var newerChecks = []check{
	{"idempotent", sarama.V0_11_0_0, func(ctx context.Context, env goclient.Env) error {
		c := config()
		c.Producer.Idempotent = true
		c.Net.MaxOpenRequests = 1
		if err := produceWith(c, env.Fresh, 0, "none", goclient.Canonical()); err != nil {
			return err
		}
		got, err := consume(ctx, env.Fresh)
		if err == nil && len(got) != len(goclient.Canonical()) {
			return fmt.Errorf("%d records read", len(got))
		}
		return err
	}},
	{"admin-list-topics", sarama.V0_11_0_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		topics, err := a.ListTopics()
		if _, ok := topics[env.Topic]; err == nil && !ok {
			return fmt.Errorf("%s is not among %d topics", env.Topic, len(topics))
		}
		return err
	})},
	{"admin-describe-topic", sarama.V0_10_1_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		topics, err := a.DescribeTopics([]string{env.Topic})
		if err == nil && (len(topics) != 1 || topics[0].Name != env.Topic || topics[0].Err != sarama.ErrNoError || len(topics[0].Partitions) != 1) {
			return fmt.Errorf("unexpected answer %+v", topics)
		}
		return err
	})},
	{"admin-describe-cluster", sarama.V0_10_1_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		brokers, _, err := a.DescribeCluster()
		if err == nil && len(brokers) == 0 {
			return fmt.Errorf("no broker is named")
		}
		return err
	})},
	{"admin-list-groups", sarama.V0_10_2_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		groups, err := a.ListConsumerGroups()
		if _, ok := groups[env.Group]; err == nil && !ok {
			return fmt.Errorf("%s is not among %d groups", env.Group, len(groups))
		}
		return err
	})},
	{"admin-describe-group", sarama.V0_10_2_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		groups, err := a.DescribeConsumerGroups([]string{env.Group})
		if err == nil && (len(groups) != 1 || groups[0].GroupId != env.Group || groups[0].State != "Empty") {
			return fmt.Errorf("unexpected answer %+v", groups)
		}
		return err
	})},
	{"admin-list-group-offsets", sarama.V0_10_2_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		answer, err := a.ListConsumerGroupOffsets(env.Group, map[string][]int32{env.Topic: {0}})
		if err != nil {
			return err
		}
		want := int64(len(goclient.Canonical()))
		if block := answer.GetBlock(env.Topic, 0); block == nil || block.Offset != want {
			return fmt.Errorf("committed offset %+v, want %d", block, want)
		}
		return nil
	})},
	{"admin-describe-log-dirs", sarama.V1_0_0_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		brokers, _, err := a.DescribeCluster()
		if err != nil {
			return err
		}
		dirs, err := a.DescribeLogDirs([]int32{brokers[0].ID()})
		if err == nil && len(dirs[brokers[0].ID()]) == 0 {
			return fmt.Errorf("no folder is named")
		}
		return err
	})},
	{"admin-list-reassignments", sarama.V2_4_0_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		moving, err := a.ListPartitionReassignments(env.Topic, []int32{0})
		if err == nil && len(moving) != 0 {
			return fmt.Errorf("partitions are moving: %v", moving)
		}
		return err
	})},
	{"admin-offset-delete", sarama.V2_4_0_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		return a.DeleteConsumerGroupOffset(env.Group, env.Topic, 0)
	})},
	{"admin-delete-group", sarama.V1_1_0_0, admin(func(a sarama.ClusterAdmin, env goclient.Env) error {
		return a.DeleteConsumerGroup(env.Group)
	})},
}
