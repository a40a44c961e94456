package coordinator_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quirelog/quire/coordinator"
)

// TestFindTopic: what another node has made is found before the watch brings it,
// in its newest form, and stays found.
func TestFindTopic(t *testing.T) {
	s := newMem(t)
	cut := &cuttable{Store: s}
	a, b := open(t, cut, named("a")), open(t, s, named("b"))
	createOne(t, b, "first")
	eventually(t, "the first node follows", func() bool { return a.Topic("first") != nil })
	cut.cut()
	defer cut.mend()
	made := createOne(t, b, "made.later")
	if a.Topic("made.later") != nil {
		t.Fatal("the watch is not cut")
	}
	found, err := a.FindTopic(t.Context(), "made.later")
	if err != nil || found.ID != made.ID || a.Topic("made.later") == nil || a.TopicByID(made.ID) == nil {
		t.Errorf("found %+v, %v", found, err)
	}
	if err := b.GrowTopic(t.Context(), "made.later", 5, false); err != nil {
		t.Fatal(err)
	}
	if found, err = a.FindTopicByID(t.Context(), made.ID); err != nil || found.Partitions != 5 || a.Topic("made.later").Partitions != 5 {
		t.Errorf("found %+v, %v", found, err)
	}
	for range 2 { // the second time it is remembered
		if _, err := a.FindTopic(t.Context(), "made_later"); !errors.Is(err, coordinator.ErrUnknownTopic) {
			t.Errorf("a name that collides with the topic's: %v", err)
		}
		if _, err := a.FindTopicByID(t.Context(), [16]byte{1}); !errors.Is(err, coordinator.ErrUnknownTopicID) {
			t.Errorf("an id that no topic has: %v", err)
		}
	}
	if err := b.DeleteTopic(t.Context(), "made.later", made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.FindTopic(t.Context(), "made.later"); !errors.Is(err, coordinator.ErrUnknownTopic) || a.Topic("made.later") != nil || a.TopicByID(made.ID) != nil {
		t.Errorf("a topic that is gone: %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.FindTopic(canceled, "another"); !errors.Is(err, coordinator.ErrUnavailable) {
		t.Errorf("no time: %v", err)
	}
}

// TestFindTopicAway: once the lease has run out unanswered, nobody waits for the
// metadata store any more to say whether it has a topic.
func TestFindTopicAway(t *testing.T) {
	s := newMem(t)
	var ahead atomic.Int64
	began := time.Now()
	a := open(t, s, named("a"), func(c *coordinator.Config) {
		c.Clock = func() (time.Duration, time.Time) {
			d := time.Duration(ahead.Load())
			return time.Since(began) + time.Second + d, time.Now().Add(d)
		}
	})
	createOne(t, open(t, s, named("b")), "made.later")
	ahead.Store(int64(time.Hour))
	if _, err := a.FindTopic(t.Context(), "another"); !errors.Is(err, coordinator.ErrUnavailable) {
		t.Errorf("by name: %v", err)
	}
	if _, err := a.FindTopicByID(t.Context(), [16]byte{1}); !errors.Is(err, coordinator.ErrUnavailable) {
		t.Errorf("by id: %v", err)
	}
}
