package protocol

import (
	"errors"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TestCodes holds names and retriability to franz-go's table, but where that
// differs from Apache Kafka's Errors.java and exception classes.
func TestCodes(t *testing.T) {
	renamed := map[Code]string{NotLeaderOrFollower: "NOT_LEADER_OR_FOLLOWER"} // KIP-392
	retriable := map[Code]bool{
		BrokerNotAvailable:       false,
		ConcurrentTransactions:   true,
		ShareSessionNotFound:     true,
		InvalidShareSessionEpoch: true,
	}
	for c := UnknownServerError; c <= ControllerIDNotRegistered; c++ {
		if c == None {
			continue
		}
		want := kerr.TypedErrorForCode(int16(c))
		name, again := want.Message, want.Retriable
		if n, ok := renamed[c]; ok {
			name = n
		}
		if r, ok := retriable[c]; ok {
			again = r
		}
		if c.Name() != name || c.Retriable() != again {
			t.Errorf("code %d: %s, retriable %v, want %s, %v", c, c.Name(), c.Retriable(), name, again)
		}
		if c.Message() == "" || c.Error() != name+": "+c.Message() {
			t.Errorf("code %d: %q", c, c.Error())
		}
	}
	if None.Name() != "NONE" || None.Retriable() {
		t.Error("code 0 is not NONE")
	}
	for _, c := range []Code{math.MinInt16, -2, ControllerIDNotRegistered + 1, math.MaxInt16} {
		if c.Retriable() || c.Name() == "" || c.Message() == "" {
			t.Errorf("unknown code %d: %v", c, c)
		}
	}
	var err error = NotCoordinator
	if !errors.Is(err, NotCoordinator) || errors.Is(err, NotController) {
		t.Error("codes do not compare as errors")
	}
}
