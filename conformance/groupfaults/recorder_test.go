package main

import (
	"testing"

	"github.com/quirelog/quire/conformance/groupcheck"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What a library calls committed counts as far as the server has said so before.
func TestOnlyTheServerPromises(t *testing.T) {
	r := newRecorder(map[string]groupcheck.Group{})
	onWire := func(offset int64, code int16) {
		req, resp := kmsg.NewPtrOffsetCommitRequest(), kmsg.NewPtrOffsetCommitResponse()
		asked := kmsg.NewOffsetCommitRequestTopic()
		asked.Partitions = []kmsg.OffsetCommitRequestTopicPartition{{Partition: 7, Offset: offset}}
		req.Topics = append(req.Topics, asked)
		answered := kmsg.NewOffsetCommitResponseTopic()
		answered.Partitions = []kmsg.OffsetCommitResponseTopicPartition{{Partition: 7, ErrorCode: code}}
		resp.Topics = append(resp.Topics, answered)
		r.answeredOnWire(r.now(), "g", "m", req, resp)
	}
	commit := func(offset int64) {
		n := r.commit([]groupcheck.Commit{{Group: "g", Member: "m", Partition: groupcheck.Partition{Topic: topic, Number: 7}, Offset: offset, Called: r.now()}})
		r.answered(n, true)
	}
	onWire(21, 0)
	commit(21)
	commit(40) // never sent
	onWire(41, kerr.StaleMemberEpoch.Code)
	commit(41)
	commit(42) // before the server
	onWire(42, 0)
	h, _, unsent := r.history()
	if unsent != 3 {
		t.Errorf("%d commits were acknowledged by the library alone, want 3", unsent)
	}
	for i, want := range []bool{true, false, false, false} {
		if h.Commits[i].Acked != want {
			t.Errorf("offset %d counts as acknowledged: %t", h.Commits[i].Offset, h.Commits[i].Acked)
		}
	}
}
