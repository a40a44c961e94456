package transcripts

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func newTopic(name string, partitions int32, factor int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, factor
	for i := 0; i < len(configs); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = configs[i], &configs[i+1]
		t.Configs = append(t.Configs, c)
	}
	return t
}

func assigned(t kmsg.CreateTopicsRequestTopic, replicas map[int32][]int32) kmsg.CreateTopicsRequestTopic {
	for p := int32(-1); p < 10; p++ {
		if r, ok := replicas[p]; ok {
			a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
			a.Partition, a.Replicas = p, r
			t.ReplicaAssignment = append(t.ReplicaAssignment, a)
		}
	}
	return t
}

func (s *script) createTopics() {
	// Names are of the version: what one creates no other meets.
	create := func(situation string, build func(name string) []kmsg.CreateTopicsRequestTopic, change func(*kmsg.CreateTopicsRequest)) {
		s.t.Helper()
		s.all(situation, func(v int16) kmsg.Request {
			r := kmsg.NewPtrCreateTopicsRequest()
			r.TimeoutMillis = 30_000
			r.Topics = build(strings.ReplaceAll(situation, " ", "-") + "-" + itoa(int64(v)))
			if change != nil {
				change(r)
			}
			return r
		})
	}
	s.only = ""
	one := func(situation string, build func(name string) kmsg.CreateTopicsRequestTopic) {
		s.t.Helper()
		create("create "+situation, func(name string) []kmsg.CreateTopicsRequestTopic { return []kmsg.CreateTopicsRequestTopic{build(name)} }, func(r *kmsg.CreateTopicsRequest) {
			// Version 0 has no dry run.
			r.ValidateOnly = true
		})
	}
	type topics = []kmsg.CreateTopicsRequestTopic
	create("create two topics", func(name string) topics { return topics{newTopic(name, 2, 1), newTopic(name+"-b", 1, 1)} }, nil)
	create("create them again", func(string) topics { return topics{newTopic("meta", 2, 1)} }, nil)
	create("create good and bad", func(name string) topics {
		return topics{newTopic(name, 1, 1), newTopic("meta", 1, 1), newTopic("a/b", 1, 1)}
	}, nil)
	create("create twice", func(name string) topics { return topics{newTopic(name, 1, 1), newTopic(name, 1, 1)} }, nil)
	create("create nothing", func(string) topics { return nil }, nil)
	create("create with timeout 0", func(name string) topics { return topics{newTopic("meta", 1, 1)} }, func(r *kmsg.CreateTopicsRequest) { r.TimeoutMillis = 0 })
	one("dry", func(name string) kmsg.CreateTopicsRequestTopic { return newTopic(name, 3, 1) })
	one("what exists", func(string) kmsg.CreateTopicsRequestTopic { return newTopic("meta", 1, 1) })
	for _, n := range []int32{0, -1, -2} {
		one(fmt.Sprint("partitions ", n), func(name string) kmsg.CreateTopicsRequestTopic { return newTopic(name, n, 1) })
	}
	for _, n := range []int16{0, -1, -2, 2} {
		one(fmt.Sprint("factor ", n), func(name string) kmsg.CreateTopicsRequestTopic { return newTopic(name, 1, n) })
	}
	for what, name := range inOrder(map[string]string{
		"without name": "", "dot": ".", "dots": "..", "slash": "a/b", "blank": "a b", "too long": strings.Repeat("x", 250), "umlaut": "ä",
		"colliding": "col_lide", "internal": "__consumer_offsets", "of the controllers": "__cluster_metadata",
	}) {
		if name == "__consumer_offsets" {
			// Whether it exists by now is a server's own matter.
			continue
		}
		one(what, func(string) kmsg.CreateTopicsRequestTopic { return newTopic(name, 1, 1) })
	}
	for what, configs := range inOrder(map[string][]string{
		"with settings":            {"retention.ms", "1000", "cleanup.policy", "compact"},
		"unknown setting":          {"confused", "1"},
		"bad value":                {"retention.ms", "soon"},
		"value out of range":       {"retention.ms", "-2"},
		"bad policy":               {"cleanup.policy", "burn"},
		"bad codec":                {"compression.type", "rar"},
		"setting twice":            {"retention.ms", "1000", "retention.ms", "2000"},
		"contradicting settings":   {"min.compaction.lag.ms", "2000", "max.compaction.lag.ms", "1000"},
		"bad replicas to throttle": {"leader.replication.throttled.replicas", "x"},
		"tiered":                   {"remote.storage.enable", "true"},
		"old format":               {"message.format.version", "0.10.0"},
		"no down-conversion":       {"message.downconversion.enable", "false"},
		"old time difference":      {"message.timestamp.difference.max.ms", "1000"},
		"small segments":           {"segment.bytes", "14"},
		"tiny segments":            {"segment.bytes", "1"},
		"empty value":              {"cleanup.policy", ""},
		"value with blanks":        {"retention.ms", " 1000 "},
		"two policies":             {"cleanup.policy", "compact, delete"},
		"more replicas in sync":    {"min.insync.replicas", "3"},
	}) {
		one(what, func(name string) kmsg.CreateTopicsRequestTopic { return newTopic(name, 1, 1, configs...) })
	}
	one("null value", func(name string) kmsg.CreateTopicsRequestTopic {
		t := newTopic(name, 1, 1, "retention.ms", "")
		t.Configs[0].Value = nil
		return t
	})
	for what, replicas := range inOrder(map[string]map[int32][]int32{
		"assigned":                   {0: {1}, 1: {1}},
		"assigned with a gap":        {0: {1}, 2: {1}},
		"assigned from 1":            {1: {1}},
		"assigned to -1":             {-1: {1}},
		"assigned to a stranger":     {0: {99}},
		"assigned twice to a broker": {0: {1, 1}},
		"assigned to nobody":         {0: {}},
		"assigned to more and less":  {0: {1}, 1: {1, 99}},
	}) {
		one(what, func(name string) kmsg.CreateTopicsRequestTopic { return assigned(newTopic(name, -1, -1), replicas) })
	}
	one("assigned and counted", func(name string) kmsg.CreateTopicsRequestTopic {
		return assigned(newTopic(name, 1, 1), map[int32][]int32{0: {1}})
	})
	one("assigned and factored", func(name string) kmsg.CreateTopicsRequestTopic {
		return assigned(newTopic(name, -1, 1), map[int32][]int32{0: {1}})
	})
}

func (s *script) createPartitions() {
	s.create(topicSpec{"grow-0", 2, nil}, topicSpec{"grow-1", 2, nil}, topicSpec{"grow-2", 2, nil}, topicSpec{"grow-3", 2, nil})
	type spec = kmsg.CreatePartitionsRequestTopic
	to := func(topic string, count int32, assignment ...[]int32) spec {
		t := kmsg.NewCreatePartitionsRequestTopic()
		t.Topic, t.Count = topic, count
		for _, replicas := range assignment {
			a := kmsg.NewCreatePartitionsRequestTopicAssignment()
			a.Replicas = replicas
			t.Assignment = append(t.Assignment, a)
		}
		return t
	}
	grow := func(situation string, dry bool, build func(topic string) []spec) {
		s.t.Helper()
		s.all(situation, func(v int16) kmsg.Request {
			r := kmsg.NewPtrCreatePartitionsRequest()
			r.TimeoutMillis, r.ValidateOnly = 30_000, dry
			r.Topics = build("grow-" + itoa(int64(v)))
			return r
		})
	}
	grow("grow to as many", false, func(t string) []spec { return []spec{to(t, 2)} })
	grow("grow to fewer", false, func(t string) []spec { return []spec{to(t, 1)} })
	grow("grow to none", false, func(t string) []spec { return []spec{to(t, 0)} })
	grow("grow to -1", false, func(t string) []spec { return []spec{to(t, -1)} })
	grow("grow dry", true, func(t string) []spec { return []spec{to(t, 3)} })
	grow("grow dry, assigned", true, func(t string) []spec { return []spec{to(t, 4, []int32{1}, []int32{1})} })
	grow("grow, too few assigned", false, func(t string) []spec { return []spec{to(t, 4, []int32{1})} })
	grow("grow, too many assigned", false, func(t string) []spec { return []spec{to(t, 3, []int32{1}, []int32{1})} })
	grow("grow, assigned to strangers", false, func(t string) []spec { return []spec{to(t, 3, []int32{99})} })
	grow("grow, assigned twice to a broker", false, func(t string) []spec { return []spec{to(t, 3, []int32{1, 1})} })
	grow("grow, assigned to nobody", false, func(t string) []spec { return []spec{to(t, 3, []int32{})} })
	grow("grow, unknown topic", false, func(string) []spec { return []spec{to("nothing", 3)} })
	grow("grow, topic without name", false, func(string) []spec { return []spec{to("", 3)} })
	grow("grow twice", false, func(t string) []spec { return []spec{to(t, 3), to(t, 4)} })
	grow("grow good and bad", true, func(t string) []spec { return []spec{to(t, 3), to("nothing", 3)} })
	grow("grow nothing", false, func(string) []spec { return nil })
	grow("grow", false, func(t string) []spec { return []spec{to(t, 3)} })
	for v := range int32(4) {
		s.await("grow-"+itoa(int64(v)), 3)
	}
	s.ask("grown", metadataOf("grow-0"), 9)
}

func (s *script) deleteTopics() {
	var specs []topicSpec
	for v := range 7 {
		for _, name := range []string{"gone", "gone-b", "gone-id"} {
			specs = append(specs, topicSpec{fmt.Sprint(name, "-", v), 1, nil})
		}
	}
	s.create(specs...)
	type topic = kmsg.DeleteTopicsRequestTopic
	remove := func(situation string, build func(v int16) []topic, versions ...int16) {
		s.t.Helper()
		s.all(situation, func(v int16) kmsg.Request {
			r := kmsg.NewPtrDeleteTopicsRequest()
			r.TimeoutMillis = 30_000
			for _, t := range build(v) {
				r.Topics = append(r.Topics, t)
				if t.Topic != nil {
					r.TopicNames = append(r.TopicNames, *t.Topic)
				}
			}
			return r
		}, versions...)
	}
	named := func(name string) topic {
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = &name
		return t
	}
	of := func(name string, v int16) string { return fmt.Sprint(name, "-", v) }
	identified := func(id [16]byte, name *string) topic {
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic, t.TopicID = name, id
		return t
	}
	remove("remove nothing", func(int16) []topic { return nil })
	remove("remove an unknown topic", func(int16) []topic { return []topic{named("nothing")} })
	remove("remove a topic without name", func(int16) []topic { return []topic{named("")} })
	remove("remove an impossible topic", func(int16) []topic { return []topic{named("a/b")} })
	remove("remove a topic twice", func(v int16) []topic { return []topic{named(of("gone", v)), named(of("gone", v))} })
	remove("remove two topics, one unknown", func(v int16) []topic { return []topic{named(of("gone-b", v)), named("nothing")} })
	remove("remove what was removed", func(v int16) []topic { return []topic{named(of("gone-b", v))} })
	remove("remove by neither name nor id", func(int16) []topic { return []topic{identified([16]byte{}, nil)} }, 6, 6)
	remove("remove by an unknown id", func(int16) []topic { return []topic{identified(unknownID, nil)} }, 6, 6)
	remove("remove by both", func(v int16) []topic {
		name := of("gone-id", 6)
		return []topic{identified(s.id(name), &name)}
	}, 6, 6)
	remove("remove by id", func(v int16) []topic { return []topic{identified(s.id(of("gone-id", 6)), nil)} }, 6, 6)
	s.until("topic is gone", func() bool {
		r := metadataOf("gone-id-6")
		r.AllowAutoTopicCreation = false
		return s.must(r, 12).(*kmsg.MetadataResponse).Topics[0].ErrorCode != 0 &&
			s.must(listOffsets("gone-id-6", -1, 0), 4).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode != 0
	})
	gone := s.id("gone-id-6")
	s.all("after removal", func(int16) kmsg.Request { return s.produceTo(part{"gone-id-6", 0, plain(sample(1)...).bytes()}) }, 3, 99)
	s.all("after removal", func(int16) kmsg.Request { return s.fetchFrom(fetchPart{"gone-id-6", 0, 0, 1 << 20}) })
	s.all("after removal", same(listOffsets("gone-id-6", -1, 0)))
	s.create(topicSpec{"gone-id-6", 1, nil})
	delete(s.ids, gone)
	s.ask("after its return", s.produceTo(part{"gone-id-6", 0, plain(sample(1)...).bytes()}), 9)
	stale := s.fetchFrom(fetchPart{"gone-id-6", 0, 0, 1 << 20})
	stale.Topics[0].TopicID = gone
	s.all("after its return, by the old id", same(stale), 13, 99)
}
