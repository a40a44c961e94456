package main

import (
	"context"
	"fmt"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// askAPIs returns what a server advertises, by key.
func askAPIs(ctx context.Context, addr string) (map[int]apiRange, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := wire.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	resp, err := conn.Call(ctx, kmsg.NewPtrApiVersionsRequest(), 0)
	if err != nil {
		return nil, fmt.Errorf("ask for API versions: %w", err)
	}
	answer := resp.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, fmt.Errorf("ask for API versions: %w", err)
	}
	apis := map[int]apiRange{}
	for _, k := range answer.ApiKeys {
		name := kmsg.NameForKey(k.ApiKey)
		if kafka, ok := kafkaNames[name]; ok {
			name = kafka
		}
		apis[int(k.ApiKey)] = apiRange{Name: name, Min: int(k.MinVersion), Max: int(k.MaxVersion)}
	}
	return apis, nil
}

// kafkaNames are Kafka's names of APIs that kmsg spells otherwise.
var kafkaNames = map[string]string{
	"AlterPartitionAssignments":    "AlterPartitionReassignments",
	"DescribeUserSCRAMCredentials": "DescribeUserScramCredentials",
	"AlterUserSCRAMCredentials":    "AlterUserScramCredentials",
	"CreateACLs":                   "CreateAcls",
	"DeleteACLs":                   "DeleteAcls",
	"DescribeACLs":                 "DescribeAcls",
	"InitProducerID":               "InitProducerId",
	"SASLHandshake":                "SaslHandshake",
	"SASLAuthenticate":             "SaslAuthenticate",
}
