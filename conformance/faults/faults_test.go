package main

import (
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/check"
	"github.com/quirelog/quire/conformance/peer"
)

// The short form of the long run that the command does: enough rounds to see
// recovery, replay and idempotent retries at work on every change.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	cases := []struct {
		name string
		plan plan
		with []string
	}{
		{"kill", plan{rounds: 5}, nil},
		{"terminate", plan{rounds: 2, terminate: true}, nil},
		{"kill with a small journal", plan{rounds: 3}, smallJournalOverrides},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			server, err := peer.NewTarget(t.Context(), peer.Options{Dir: t.TempDir(), Overrides: c.with})
			if err != nil {
				t.Fatal(err)
			}
			p := c.plan
			p.server = server
			p.minUp, p.maxUp = 100*time.Millisecond, time.Second
			p.libraries = []string{"franz-go", "librdkafka"}
			p.topics, p.partitions, p.perSecond = 3, 4, 2000
			p.segmentBytes = 1 << 20
			p.seed = uint64(time.Now().UnixNano())
			p.logf = t.Logf
			t.Logf("seed %d", p.seed)
			res, err := p.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Log(res.summary())
			if err := res.verdict(); err != nil {
				t.Fatal(err)
			}
			if res.Rounds != c.plan.rounds {
				t.Fatalf("%d rounds were run, want %d", res.Rounds, c.plan.rounds)
			}
		})
	}
}

func TestValueNamesItsRecord(t *testing.T) {
	for sequence := range uint64(2000) {
		id := check.NewID(3, sequence)
		value := encodeValue(id)
		got, err := decodeValue(value)
		if err != nil || got != id {
			t.Fatalf("decode the value of %s: got %s, %v", id, got, err)
		}
		value[len(value)-1] ^= 1
		if got, err := decodeValue(value); err == nil && got == id {
			t.Fatalf("a flipped bit in the value of %s goes unnoticed", id)
		}
		if _, err := decodeValue(append(encodeValue(id), 0)); err == nil {
			t.Fatalf("a byte too many in the value of %s goes unnoticed", id)
		}
	}
}
