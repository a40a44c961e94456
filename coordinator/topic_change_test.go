package coordinator_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/quirelog/quire/coordinator"
)

// Every node is told of every change of a topic, in order, whoever makes it.
func TestOnTopicChange(t *testing.T) {
	s := newMem(t)
	var mu sync.Mutex
	told := make(map[string][]string)
	tell := func(name string) func(*coordinator.Config) {
		return func(c *coordinator.Config) {
			c.NodeName = name
			c.OnTopicChange = func(t *coordinator.Topic, deleted bool) {
				mu.Lock()
				defer mu.Unlock()
				told[name] = append(told[name], fmt.Sprint(t.Name, " ", t.Partitions, " ", t.Config, " ", deleted))
			}
		}
	}
	a := open(t, s, tell("a"))
	old := createOne(t, a, "old")
	b := open(t, s, tell("b"))
	createOne(t, b, "new")
	eventually(t, "the topic is everywhere", func() bool { return a.Topic("new") != nil })
	if err := a.GrowTopic(t.Context(), "old", 3, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is larger everywhere", func() bool { return b.Topic("old").Partitions == 3 })
	if _, err := b.AlterTopicConfig(t.Context(), "old", false, func(map[string]string) (map[string]string, error) {
		return map[string]string{"retention.ms": "5"}, nil
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is changed everywhere", func() bool { return a.Topic("old").Config != nil })
	if err := a.DeleteTopic(t.Context(), "old", old.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is gone everywhere", func() bool { return b.Topic("old") == nil })
	createOne(t, b, "old")
	want := []string{"new 1 map[] false", "old 3 map[] false", "old 3 map[retention.ms:5] false", "old 3 map[retention.ms:5] true", "old 1 map[] false"}
	for _, name := range []string{"a", "b"} {
		expected := want
		if name == "a" {
			expected = append([]string{"old 1 map[] false"}, want...)
		}
		eventually(t, "node "+name+" is told of everything", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(told[name]) >= len(expected)
		})
		mu.Lock()
		if !slices.Equal(told[name], expected) {
			t.Errorf("node %s is told %q, want %q", name, told[name], expected)
		}
		mu.Unlock()
	}
}
