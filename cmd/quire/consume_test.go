package main

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// TestListWaitsForALeader: what passes is asked again, what stays is told at once.
func TestListWaitsForALeader(t *testing.T) {
	v := &consumeVerb{Topic: "t"}
	for _, c := range []struct {
		name    string
		answers []error // one after the other, of partition 1
		asked   int
		want    error
	}{
		{"a leader", []error{nil}, 1, nil},
		{"none at first", []error{kerr.NotLeaderForPartition, nil}, 2, nil},
		{"damaged", []error{kerr.CorruptMessage, nil}, 1, kerr.CorruptMessage},
		{"forbidden", []error{kerr.TopicAuthorizationFailed, nil}, 1, kerr.TopicAuthorizationFailed},
	} {
		asked := 0
		listed, err := v.list(t.Context(), func(_ context.Context, topics ...string) (kadm.ListedOffsets, error) {
			answer := c.answers[asked]
			asked++
			return kadm.ListedOffsets{topics[0]: {
				0: {Topic: topics[0], Partition: 0, Offset: 5},
				1: {Topic: topics[0], Partition: 1, Offset: 7, Err: answer},
			}}, nil
		})
		if err != nil || asked != c.asked || listed["t"][1].Err != c.want || listed["t"][0].Offset != 5 {
			t.Errorf("%s: %v after %d questions, error %v", c.name, listed, asked, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	listed, err := v.list(ended, func(context.Context, ...string) (kadm.ListedOffsets, error) {
		return kadm.ListedOffsets{"t": {0: {Err: kerr.NotLeaderForPartition}}}, nil
	})
	if err != nil || listed["t"][0].Err != kerr.NotLeaderForPartition {
		t.Errorf("without time: %v, error %v", listed, err)
	}
}
