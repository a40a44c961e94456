//go:build !kafkago0_2

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quirelog/quire/conformance/clients/goclient"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
)

func setCodec(settings *kafka.WriterConfig, codec string) {
	switch codec {
	case "gzip":
		settings.CompressionCodec = compress.Gzip.Codec()
	case "snappy":
		settings.CompressionCodec = compress.Snappy.Codec()
	case "lz4":
		settings.CompressionCodec = compress.Lz4.Codec()
	case "zstd":
		settings.CompressionCodec = compress.Zstd.Codec()
	}
}

func setHeaders(m *kafka.Message, headers []goclient.Header) {
	for _, h := range headers {
		m.Headers = append(m.Headers, kafka.Header{Key: h.Name, Value: h.Value})
	}
}

func headers(m kafka.Message) (headers []goclient.Header) {
	for _, h := range m.Headers {
		headers = append(headers, goclient.Header{Name: h.Key, Value: h.Value})
	}
	return headers
}

func client() *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(goclient.Bootstrap()), Timeout: 10 * time.Second}
}

var newerChecks = []goclient.Check{
	{Name: "admin-list-topics", Run: func(ctx context.Context, env goclient.Env) error {
		r, err := client().Metadata(ctx, &kafka.MetadataRequest{})
		if err != nil {
			return err
		}
		for _, t := range r.Topics {
			if t.Name == env.Topic {
				return t.Error
			}
		}
		return fmt.Errorf("%s is not among %d topics", env.Topic, len(r.Topics))
	}},
	{Name: "admin-create-partitions", Run: func(ctx context.Context, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 1); err != nil {
			return err
		}
		r, err := client().CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
			Topics: []kafka.TopicPartitionsConfig{{Name: env.Fresh, Count: 3}},
		})
		if err != nil {
			return err
		}
		return r.Errors[env.Fresh]
	}},
	{Name: "admin-describe-configs", Run: func(ctx context.Context, env goclient.Env) error {
		_, err := topicConfig(ctx, env.Topic, "retention.ms")
		return err
	}},
	{Name: "admin-alter-configs", Run: func(ctx context.Context, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 1); err != nil {
			return err
		}
		r, err := client().AlterConfigs(ctx, &kafka.AlterConfigsRequest{Resources: []kafka.AlterConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: env.Fresh,
			Configs: []kafka.AlterConfigRequestConfig{{Name: "retention.ms", Value: "7200000"}},
		}}})
		if err != nil {
			return err
		}
		for _, err := range r.Errors {
			if err != nil {
				return err
			}
		}
		return hasConfig(ctx, env.Fresh, "retention.ms", "7200000")
	}},
	{Name: "admin-incremental-alter-configs", Run: func(ctx context.Context, env goclient.Env) error {
		if err := createTopic(ctx, env.Fresh, 1); err != nil {
			return err
		}
		r, err := client().IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: env.Fresh,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: "7200000", ConfigOperation: kafka.ConfigOperationSet}},
		}}})
		if err != nil {
			return err
		}
		return cmp.Or(r.Resources[0].Error, hasConfig(ctx, env.Fresh, "retention.ms", "7200000"))
	}},
	{Name: "admin-elect-leaders", Run: func(ctx context.Context, env goclient.Env) error {
		r, err := client().ElectLeaders(ctx, &kafka.ElectLeadersRequest{Topic: env.Topic, Partitions: []int{0}, Timeout: time.Second})
		if err != nil {
			return err
		}
		for _, p := range r.PartitionResults {
			if p.Error != nil && !errors.Is(p.Error, kafka.ElectionNotNeeded) {
				return p.Error
			}
		}
		return r.Error
	}},
	{Name: "admin-list-reassignments", Run: func(ctx context.Context, env goclient.Env) error {
		r, err := client().ListPartitionReassignments(ctx, &kafka.ListPartitionReassignmentsRequest{
			Topics:  map[string]kafka.ListPartitionReassignmentsRequestTopic{env.Topic: {PartitionIndexes: []int{0}}},
			Timeout: time.Second,
		})
		if err == nil && len(r.Topics) != 0 {
			return fmt.Errorf("partitions are moving: %v", r.Topics)
		}
		return err
	}},
	{Name: "admin-list-groups", Run: func(ctx context.Context, env goclient.Env) error {
		r, err := client().ListGroups(ctx, &kafka.ListGroupsRequest{})
		if err != nil {
			return err
		}
		for _, g := range r.Groups {
			if g.GroupID == env.Group {
				return r.Error
			}
		}
		return fmt.Errorf("%s is not among %d groups", env.Group, len(r.Groups))
	}},
	{Name: "admin-describe-group", Run: func(ctx context.Context, env goclient.Env) error {
		r, err := client().DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{env.Group}})
		if err == nil && (len(r.Groups) != 1 || r.Groups[0].Error != nil || r.Groups[0].GroupState != "Empty") {
			return fmt.Errorf("unexpected answer %+v", r.Groups)
		}
		return err
	}},
	{Name: "admin-list-group-offsets", Run: func(ctx context.Context, env goclient.Env) error {
		r, err := client().OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: env.Group, Topics: map[string][]int{env.Topic: {0}}})
		if err != nil {
			return err
		}
		want := int64(len(goclient.Canonical()))
		if p := r.Topics[env.Topic]; len(p) != 1 || p[0].Error != nil || p[0].CommittedOffset != want {
			return fmt.Errorf("unexpected answer %+v, want %d", p, want)
		}
		return r.Error
	}},
	{Name: "admin-offset-delete", Run: func(ctx context.Context, env goclient.Env) error {
		r, err := client().OffsetDelete(ctx, &kafka.OffsetDeleteRequest{GroupID: env.Group, Topics: map[string][]int{env.Topic: {0}}})
		if err != nil {
			return err
		}
		for _, p := range r.Topics[env.Topic] {
			if p.Error != nil {
				return p.Error
			}
		}
		return r.Error
	}},
	{Name: "admin-delete-group", Run: func(ctx context.Context, env goclient.Env) error {
		r, err := client().DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{env.Group}})
		if err != nil {
			return err
		}
		return r.Errors[env.Group]
	}},
}

func topicConfig(ctx context.Context, topic, name string) (string, error) {
	r, err := client().DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}},
	})
	if err != nil {
		return "", err
	}
	if r.Resources[0].Error != nil {
		return "", r.Resources[0].Error
	}
	for _, e := range r.Resources[0].ConfigEntries {
		if e.ConfigName == name {
			return e.ConfigValue, nil
		}
	}
	return "", fmt.Errorf("%s is not among %d configs of %s", name, len(r.Resources[0].ConfigEntries), topic)
}

func hasConfig(ctx context.Context, topic, name, want string) error {
	got, err := topicConfig(ctx, topic, name)
	if err == nil && got != want {
		return fmt.Errorf("%s is %s, want %s", name, got, want)
	}
	return err
}
