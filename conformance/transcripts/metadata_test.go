package transcripts

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	versionsOf  = "versions of "
	rangeFormat = "%d to %d"
)

// versions notes the ranges that are advertised, and how ApiVersions answers.
func (s *script) versions() {
	for key := range int16(kmsg.MaxKey + 1) {
		line := notServed
		if r, ok := s.ranges[key]; ok {
			line = fmt.Sprintf(rangeFormat, r[0], r[1])
		}
		s.note(versionsOf+kmsg.NameForKey(key), line)
	}
	const key = int16(kmsg.ApiVersions)
	// The keys were noted already; what is left are the features.
	ask := func(situation string, v int16, change func(r *kmsg.ApiVersionsRequest)) {
		s.t.Helper()
		r := kmsg.NewPtrApiVersionsRequest()
		r.ClientSoftwareName, r.ClientSoftwareVersion = "transcript", "1.0"
		change(r)
		name := fmt.Sprintf("%s: ApiVersions v%d", situation, v)
		if !s.serves(key, v) {
			s.note(name, notServed)
			return
		}
		r.SetVersion(v)
		answer, err := s.exchange(r)
		if err != nil {
			s.t.Fatalf("%s: %v", name, err)
		}
		resp := answer.(*kmsg.ApiVersionsResponse)
		some := len(resp.ApiKeys) > 0
		resp.ApiKeys = nil
		s.note(name, append(s.fields(resp), fmt.Sprintf("has keys = %v", some))...)
	}
	for v := range int16(6) {
		ask("features", v, func(*kmsg.ApiVersionsRequest) {})
	}
	for _, v := range []int16{3, 4, 5} {
		for _, name := range []string{"", "-a", "a-", "a b", "ä", "a.b-c"} {
			ask(fmt.Sprintf("software %q", name), v, func(r *kmsg.ApiVersionsRequest) { r.ClientSoftwareName = name })
			ask(fmt.Sprintf("software version %q", name), v, func(r *kmsg.ApiVersionsRequest) { r.ClientSoftwareVersion = name })
		}
	}
	cluster := *s.must(kmsg.NewPtrMetadataRequest(), 2).(*kmsg.MetadataResponse).ClusterID
	for name, change := range inOrder(map[string]func(*kmsg.ApiVersionsRequest){
		"cluster only":         func(r *kmsg.ApiVersionsRequest) { r.ClusterID = &cluster },
		"node only":            func(r *kmsg.ApiVersionsRequest) { r.NodeID = 1 },
		"cluster and node":     func(r *kmsg.ApiVersionsRequest) { r.ClusterID, r.NodeID = &cluster, 1 },
		"another node":         func(r *kmsg.ApiVersionsRequest) { r.ClusterID, r.NodeID = &cluster, 7 },
		"another cluster":      func(r *kmsg.ApiVersionsRequest) { r.ClusterID, r.NodeID = kmsg.StringPtr("another"), 1 },
		"another cluster only": func(r *kmsg.ApiVersionsRequest) { r.ClusterID = kmsg.StringPtr("another") },
	}) {
		ask(name, 5, change)
	}
}

func metadataOf(topics ...string) *kmsg.MetadataRequest {
	r := kmsg.NewPtrMetadataRequest()
	r.Topics, r.AllowAutoTopicCreation = []kmsg.MetadataRequestTopic{}, true
	for _, topic := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &topic
		r.Topics = append(r.Topics, t)
	}
	return r
}

func (s *script) metadata() {
	s.create(topicSpec{"meta", 2, nil}, topicSpec{"meta-other", 1, nil})
	strict := func(topics ...string) *kmsg.MetadataRequest {
		r := metadataOf(topics...)
		r.AllowAutoTopicCreation = false
		return r
	}
	s.only = "meta"
	s.all("all topics", func(v int16) kmsg.Request {
		r := strict()
		if v > 0 {
			r.Topics = nil
		}
		return r
	})
	s.all("an empty list of topics", same(strict()), 1, 99)
	s.only = ""
	s.all("one topic", same(strict("meta")))
	s.all("a topic twice", same(strict("meta", "meta-other", "meta")))
	s.all("topic that is not there, not to be created", same(strict("nothing")), 4, 99)
	s.all("topics that are there and not", same(strict("nothing", "meta")), 4, 99)
	s.all("topic without name", same(strict("")))
	s.all("topic of an impossible name", same(strict("a/b")))
	s.all("topic of an impossible name, to be created", same(metadataOf("a/b")))
	s.all("topic of too long a name, to be created", same(metadataOf(string(slices.Repeat([]byte("x"), 250)))))
	s.create(topicSpec{"col.lide", 1, nil})
	s.all("topic that collides, to be created", same(metadataOf("col_lide")))
	// Whether the first answer knows of the new topic is a race in Kafka, what
	// it says of a topic created is not.
	s.all("topic to be created", func(v int16) kmsg.Request { return metadataOf("created-" + itoa(int64(v))) })
	s.all("topic that was created", func(v int16) kmsg.Request {
		topic := "created-" + itoa(int64(v))
		if s.serves(int16(kmsg.Metadata), v) {
			s.await(topic, 1)
		}
		return strict(topic)
	})
	s.all("authorized operations", same(changed(strict("meta"), func(r *kmsg.MetadataRequest) {
		r.IncludeTopicAuthorizedOperations, r.IncludeClusterAuthorizedOperations = true, true
	})), 8, 99)
	byID := func(id [16]byte, name *string) *kmsg.MetadataRequest {
		r := strict("")
		r.Topics[0].Topic, r.Topics[0].TopicID = name, id
		return r
	}
	for name, r := range inOrder(map[string]*kmsg.MetadataRequest{
		"by id":                        byID(s.id("meta"), nil),
		"by unknown id":                byID(unknownID, nil),
		"by id and name":               byID(s.id("meta"), kmsg.StringPtr("meta")),
		"by unknown id and name":       byID(unknownID, kmsg.StringPtr("meta")),
		"by id and the name of others": byID(s.id("meta"), kmsg.StringPtr("meta-other")),
		"by neither id nor name":       byID([16]byte{}, nil),
	}) {
		s.all(name, same(r), 10, 99)
	}
	s.all("by id and by name", same(changed(byID(s.id("meta"), nil), func(r *kmsg.MetadataRequest) {
		r.Topics = append(r.Topics, strict("meta-other").Topics...)
	})), 12, 99)
}

func (s *script) describe() {
	cluster := kmsg.NewPtrDescribeClusterRequest()
	s.all("cluster", same(cluster))
	s.all("cluster, authorized operations", same(changed(kmsg.NewPtrDescribeClusterRequest(), func(r *kmsg.DescribeClusterRequest) { r.IncludeClusterAuthorizedOperations = true })))
	for _, kind := range []int8{0, 2, 9} {
		s.all(fmt.Sprint("cluster by endpoints of type ", kind), same(changed(kmsg.NewPtrDescribeClusterRequest(), func(r *kmsg.DescribeClusterRequest) { r.EndpointType = kind })), 1, 99)
	}
	s.all("cluster, fenced too", same(changed(kmsg.NewPtrDescribeClusterRequest(), func(r *kmsg.DescribeClusterRequest) { r.IncludeFencedBrokers = true })), 2, 99)

	partitions := func(limit int32, cursor *kmsg.DescribeTopicPartitionsRequestCursor, topics ...string) *kmsg.DescribeTopicPartitionsRequest {
		r := kmsg.NewPtrDescribeTopicPartitionsRequest()
		r.ResponsePartitionLimit, r.Cursor = limit, cursor
		for _, topic := range topics {
			t := kmsg.NewDescribeTopicPartitionsRequestTopic()
			t.Topic = topic
			r.Topics = append(r.Topics, t)
		}
		return r
	}
	cursor := func(topic string, partition int32) *kmsg.DescribeTopicPartitionsRequestCursor {
		c := kmsg.NewDescribeTopicPartitionsRequestCursor()
		c.Topic, c.Partition = topic, partition
		return &c
	}
	for name, r := range inOrder(map[string]*kmsg.DescribeTopicPartitionsRequest{
		"partitions of topics":                     partitions(2000, nil, "read", "meta"),
		"partitions, two at most":                  partitions(2, nil, "read", "meta"),
		"partitions, two at most of one":           partitions(2, nil, "meta"),
		"partitions, none":                         partitions(0, nil, "meta"),
		"partitions, fewer than none":              partitions(-1, nil, "meta"),
		"partitions from a cursor":                 partitions(2000, cursor("read", 1), "read", "meta"),
		"partitions from a cursor of another":      partitions(2000, cursor("nothing", 0), "meta", "read"),
		"partitions from a cursor behind the last": partitions(2000, cursor("read", 9), "read"),
		"partitions from a negative cursor":        partitions(2000, cursor("read", -1), "read"),
		"partitions of unknown topics":             partitions(2000, nil, "nothing", "meta"),
		"partitions of impossible names":           partitions(2000, nil, "a/b", ""),
		"partitions of a topic twice":              partitions(2000, nil, "meta", "meta"),
	}) {
		s.ask(name, r, 0)
	}
	s.only = "meta"
	s.ask("partitions of all topics", partitions(2000, nil), 0)
	s.only = "read"
	dirs := kmsg.NewPtrDescribeLogDirsRequest()
	s.all("directories", same(changed(dirs, func(r *kmsg.DescribeLogDirsRequest) { r.Topics = nil })))
	s.only = ""
	dirsOf := func(topic string, partitions ...int32) *kmsg.DescribeLogDirsRequest {
		r := kmsg.NewPtrDescribeLogDirsRequest()
		t := kmsg.NewDescribeLogDirsRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		r.Topics = []kmsg.DescribeLogDirsRequestTopic{t}
		return r
	}
	s.all("directories of partitions", same(dirsOf("read", 0, 2)))
	s.all("directories of unknown partitions", same(dirsOf("read", 0, 9)))
	s.all("directories of an unknown topic", same(dirsOf("nothing", 0)))
	s.all("directories of no partitions", same(dirsOf("read")))
	s.all("directories of no topics", same(changed(dirsOf("read"), func(r *kmsg.DescribeLogDirsRequest) { r.Topics = []kmsg.DescribeLogDirsRequestTopic{} })))

	s.ask("producers of a partition", s.describeProducers("read-idempotent", 0), 0)
	s.ask("producers of nobody", s.describeProducers("read", 0), 0)
	s.ask("producers of an unknown partition", s.describeProducers("read", 9), 0)
	s.ask("producers of an unknown topic", s.describeProducers("nothing", 0), 0)
	s.ask("producers of an impossible topic", s.describeProducers("a/b", 0), 0)
	s.ask("producers of no topics", kmsg.NewPtrDescribeProducersRequest(), 0)
}

func (s *script) describeProducers(topic string, partition int32) *kmsg.DescribeProducersRequest {
	r := kmsg.NewPtrDescribeProducersRequest()
	t := kmsg.NewDescribeProducersRequestTopic()
	t.Topic, t.Partitions = topic, []int32{partition}
	r.Topics = append(r.Topics, t)
	return r
}
