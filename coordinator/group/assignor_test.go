package group

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawSubscribers makes members, topics and what members had before.
func drawSubscribers(t *rapid.T, same bool) ([]subscriber, []Topic) {
	topics := make([]Topic, rapid.IntRange(0, 6).Draw(t, "topics"))
	for i := range topics {
		topics[i] = Topic{Name: fmt.Sprint("t", i), ID: TopicID{byte(i + 1)}, Partitions: rapid.Int32Range(1, 9).Draw(t, "partitions")}
	}
	members := make([]subscriber, rapid.IntRange(1, 7).Draw(t, "members"))
	for i := range members {
		members[i].id = fmt.Sprint("m", i)
		for j := range topics {
			if same || rapid.Bool().Draw(t, "subscribes") {
				members[i].topics = append(members[i].topics, j)
			}
		}
		var had []TopicPartitions
		for range rapid.IntRange(0, 6).Draw(t, "had") {
			had = append(had, TopicPartitions{TopicID{rapid.Byte().Draw(t, "topic") % 8}, []int32{rapid.Int32Range(0, 10).Draw(t, "partition")}})
		}
		members[i].previous = makeAssignment(had)
	}
	return members, topics
}

// checkComplete holds that every partition with a subscriber has one owner, who
// subscribes to it.
func checkComplete(t *rapid.T, members []subscriber, topics []Topic, result []Assignment) {
	owners := map[topicPartition]int{}
	for m, set := range result {
		if !makeAssignment(slices.Clone(set)).Equal(set) {
			t.Fatalf("%v is not in order", set)
		}
		for _, tp := range set {
			at := slices.IndexFunc(topics, func(topic Topic) bool { return topic.ID == tp.Topic })
			if !slices.Contains(members[m].topics, at) {
				t.Fatalf("%s is given %v", members[m].id, tp)
			}
			for _, p := range tp.Partitions {
				if p < 0 || p >= topics[at].Partitions {
					t.Fatalf("partition %d of %v", p, topics[at])
				}
				owners[topicPartition{tp.Topic, p}]++
			}
		}
	}
	want := 0
	for i, list := range subscribersOf(members, topics) {
		if len(list) > 0 {
			want += int(topics[i].Partitions)
		}
	}
	for p, n := range owners {
		if n > 1 {
			t.Fatalf("%v has %d owners", p, n)
		}
	}
	if len(owners) != want {
		t.Fatalf("%d partitions of %d are given", len(owners), want)
	}
}

// TestUniformSame: members that subscribe to the same get the same number, but
// one, and only as many partitions move as must.
func TestUniformSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members, topics := drawSubscribers(t, true)
		result := assignUniform(members, topics)
		checkComplete(t, members, topics, result)
		total := 0
		for i := range topics {
			total += int(topics[i].Partitions)
		}
		least, most := total, 0
		kept := 0
		for m := range members {
			least, most = min(least, result[m].Count()), max(most, result[m].Count())
			common, _ := members[m].previous.split(result[m])
			kept += common.Count()
		}
		if most-least > 1 {
			t.Fatalf("members have between %d and %d partitions", least, most)
		}
		// More may stay: what two members had may come to the second of them.
		if best := mostKept(members, topics, total); kept < best {
			t.Fatalf("%d partitions stay, %d could", kept, best)
		}
		again := slices.Clone(members)
		for m := range again {
			again[m].previous = result[m]
		}
		for m, set := range assignUniform(again, topics) {
			if !set.Equal(result[m]) {
				t.Fatalf("done again %s has %v, not %v", members[m].id, set, result[m])
			}
		}
	})
}

// mostKept is how many partitions can stay at least: of those that a member had and that
// exist, the first to name one counts, up to the larger share for as many as may
// have it, and the smaller for the rest.
func mostKept(members []subscriber, topics []Topic, total int) int {
	seen := map[topicPartition]bool{}
	var had []int
	for _, m := range members {
		n := 0
		for _, tp := range m.previous {
			at := slices.IndexFunc(topics, func(topic Topic) bool { return topic.ID == tp.Topic })
			for _, p := range tp.Partitions {
				key := topicPartition{tp.Topic, p}
				if at >= 0 && p < topics[at].Partitions && !seen[key] {
					seen[key] = true
					n++
				}
			}
		}
		had = append(had, n)
	}
	share, larger := total/len(members), total%len(members)
	kept := 0
	for _, n := range had {
		kept += min(n, share)
		if n > share && larger > 0 {
			kept++
			larger--
		}
	}
	return kept
}

// TestUniformDifferent: no partition could move to a subscriber with two less.
func TestUniformDifferent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members, topics := drawSubscribers(t, false)
		result := assignUniform(members, topics)
		checkComplete(t, members, topics, result)
		for m, set := range result {
			for _, tp := range set {
				at := slices.IndexFunc(topics, func(topic Topic) bool { return topic.ID == tp.Topic })
				for o := range members {
					if slices.Contains(members[o].topics, at) && result[m].Count()-result[o].Count() > 1 {
						t.Fatalf("%s has %d partitions, one of topic %d, and %s has %d",
							members[m].id, result[m].Count(), at, members[o].id, result[o].Count())
					}
				}
			}
		}
	})
}

// TestRange: a subscriber has one range of each topic, in the order of static and
// then dynamic members, and topics alike are divided alike.
func TestRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members, topics := drawSubscribers(t, rapid.Bool().Draw(t, "same"))
		for i := range members {
			members[i].instance = rapid.SampledFrom([]string{"", fmt.Sprint("i", 9-i)}).Draw(t, "instance")
		}
		result := assignRange(members, topics)
		checkComplete(t, members, topics, result)
		order := make([]int, len(members))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int {
			key := func(m subscriber) string {
				if m.instance != "" {
					return "0" + m.instance
				}
				return "1" + m.id
			}
			return slices.Compare([]byte(key(members[a])), []byte(key(members[b])))
		})
		for i, list := range subscribersOf(members, topics) {
			next, last := int32(0), int(topics[i].Partitions)
			for _, m := range order {
				if !slices.Contains(list, m) {
					continue
				}
				partitions := result[m].Of(topics[i].ID)
				if len(partitions) > last {
					t.Fatalf("%s has more of topic %d than one before it", members[m].id, i)
				}
				last = len(partitions)
				for _, p := range partitions {
					if p != next {
						t.Fatalf("%s has %v of topic %d, not from %d", members[m].id, partitions, i, next)
					}
					next++
				}
			}
		}
	})
}

// crowdOf is members that subscribe to topics; every third to the first half only if mixed.
func crowdOf(members, topics, partitions int, mixed bool) ([]subscriber, []Topic) {
	list := make([]Topic, topics)
	all := make([]int, topics)
	for i := range list {
		list[i] = Topic{Name: fmt.Sprint(i), ID: TopicID{byte(i >> 8), byte(i)}, Partitions: int32(partitions / topics)}
		all[i] = i
	}
	crowd := make([]subscriber, members)
	for i := range crowd {
		crowd[i] = subscriber{id: fmt.Sprintf("%05d", i), topics: all}
		if mixed && i%3 == 0 {
			crowd[i].topics = all[:topics/2]
		}
	}
	return crowd, list
}

func BenchmarkAssign(b *testing.B) {
	for _, bench := range []struct {
		name   string
		assign assignor
		mixed  bool
	}{{"uniform", assignUniform, false}, {"mixed", assignUniform, true}, {"range", assignRange, false}} {
		b.Run(bench.name+"/500x1000", func(b *testing.B) {
			members, topics := crowdOf(500, 10, 1000, bench.mixed)
			for b.Loop() {
				bench.assign(members, topics)
			}
		})
	}
}
