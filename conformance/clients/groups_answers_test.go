package clients

import (
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The calls about groups that clients, tools and web interfaces make, at every
// version that Kafka 4.4 serves, for the same situations on both servers.
func TestGroupAnswers(t *testing.T) {
	s := &groupScript{transcript: transcript{t: t, conn: dial(t), names: strings.NewReplacer(), ids: map[[16]byte]string{}}}
	s.orders, s.other = newTopic(t, 2), newTopic(t, 1)
	s.name(s.orders, "orders")
	s.name(s.other, "other")
	s.ordersID = [16]byte(awaitTopic(t, s.orders, 2).ID)
	s.ids[s.ordersID] = "orders"
	s.unknownID = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	s.ids[s.unknownID] = "nothing"
	s.prefix = topicName(t) + "."
	s.name(s.prefix, "")
	host, port, err := net.SplitHostPort(broker.Addr())
	if err != nil {
		t.Fatal(err)
	}
	s.port, err = strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	s.name(host, "HOST")
	s.hidden = func(path string, element reflect.Value) bool {
		group := element.FieldByName
		return path == "Groups" && element.Kind() == reflect.Struct && group("Group").IsValid() && !strings.HasPrefix(group("Group").String(), s.prefix)
	}
	awaitCoordinator(t, s.prefix)

	s.versions()
	s.coordinators()
	s.unknownGroup()
	s.simpleGroup()
	s.classicGroup()
	s.classicVersions()
	s.classicStatic()
	s.consumerGroup()
	s.deletion()
	meant := groupDifferences
	if _, ok := broker.(*peer.Cluster); ok {
		meant = append(slices.Clone(meant), difference{"find a group.*", "(Coordinators\\.)?NodeID = [01]", "nodes behind one address look like one, which has the id 0"})
	}
	s.compare("group_answers.txt", meant)
}

// groupDifferences are the answers in which Quire differs from Kafka 4.4.0 on
// purpose.
var groupDifferences = []difference{
	{"versions: Offset(Commit|Fetch)", "MinVersion = .*", "clients of 0.8 commit with version 0, which went to ZooKeeper; here it is stored like every other"},
	{"(unknown|classic|consumer) group: DeleteGroups v3", "Groups\\.ErrorMessage = .*", "Kafka leaves the message out that version 3 brought"},
	{"consumer group, .*|consumer group: .*", "MemberEpoch = [12]|Groups\\.(Members\\.Member)?Epoch = [123]|Groups\\.AssignmentEpoch = [123]",
		"the first member makes epoch 1, not 2; and an empty group's assignment follows with the next member"},
}

type groupScript struct {
	transcript
	orders, other       string
	ordersID, unknownID [16]byte
	prefix              string // of every group of this run
	port                int
}

func (s *groupScript) group(name string) string { return s.prefix + name }

// awaitCoordinator returns when groups are served: Kafka creates the topic that
// holds them when the first is asked for.
func awaitCoordinator(t *testing.T, prefix string) {
	t.Helper()
	conn := dial(t)
	var code int16
	await(t, "coordinator", nil, func() bool {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey = prefix
		resp, err := conn.Call(step(t), req, 2)
		if err != nil {
			t.Fatal(err)
		}
		if code = resp.(*kmsg.FindCoordinatorResponse).ErrorCode; code != 0 {
			return false
		}
		describe := kmsg.NewPtrDescribeGroupsRequest()
		// Each partition of that topic is loaded by itself.
		for i := range 500 {
			describe.Groups = append(describe.Groups, fmt.Sprint(prefix, i))
		}
		resp, err = conn.Call(step(t), describe, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range resp.(*kmsg.DescribeGroupsResponse).Groups {
			if code = g.ErrorCode; code != 0 {
				return false
			}
		}
		return true
	}, func() string { return fmt.Sprint("error ", code) })
}

// versions notes the ranges of the calls that this script makes.
func (s *groupScript) versions() {
	resp, err := s.conn.Call(step(s.t), kmsg.NewPtrApiVersionsRequest(), 0)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, key := range []kmsg.Key{kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.FindCoordinator, kmsg.JoinGroup, kmsg.Heartbeat, kmsg.LeaveGroup,
		kmsg.SyncGroup, kmsg.DescribeGroups, kmsg.ListGroups, kmsg.DeleteGroups, kmsg.OffsetDelete, kmsg.ConsumerGroupHeartbeat, kmsg.ConsumerGroupDescribe} {
		lines := []string{"not served"}
		for _, k := range resp.(*kmsg.ApiVersionsResponse).ApiKeys {
			if k.ApiKey == key.Int16() {
				lines = []string{fmt.Sprintf("MinVersion = %d", k.MinVersion), fmt.Sprintf("MaxVersion = %d", k.MaxVersion)}
			}
		}
		s.answers = append(s.answers, answer{step: "versions: " + key.Name(), lines: lines})
	}
}

func (s *groupScript) coordinators() {
	find := func(kind int8, key string) func(int16) kmsg.Request {
		return func(int16) kmsg.Request {
			r := kmsg.NewPtrFindCoordinatorRequest()
			r.CoordinatorType, r.CoordinatorKey, r.CoordinatorKeys = kind, key, []string{key}
			return r
		}
	}
	s.name(fmt.Sprint("Port = ", s.port), "Port = PORT")
	s.askAll("find a group", 0, 6, find(0, s.group("any")))
	s.askAll("find an unknown kind", 1, 6, find(9, s.group("any")))
	s.askAll("find no group", 4, 6, func(int16) kmsg.Request { return kmsg.NewPtrFindCoordinatorRequest() })
	s.askAll("find a group without name", 0, 6, find(0, ""))
}

func describeGroups(groups ...string) func(int16) kmsg.Request {
	return func(version int16) kmsg.Request {
		r := kmsg.NewPtrDescribeGroupsRequest()
		r.Groups, r.IncludeAuthorizedOperations = groups, version >= 3
		return r
	}
}

func describeConsumer(groups ...string) func(int16) kmsg.Request {
	return func(int16) kmsg.Request {
		r := kmsg.NewPtrConsumerGroupDescribeRequest()
		r.Groups, r.IncludeAuthorizedOperations = groups, true
		return r
	}
}

func listGroups(states, types []string) func(int16) kmsg.Request {
	return func(int16) kmsg.Request {
		r := kmsg.NewPtrListGroupsRequest()
		r.StatesFilter, r.TypesFilter = states, types
		return r
	}
}

// commit builds a commit of offset 5 for partition 0 and 6 for 1 of orders.
func (s *groupScript) commit(group, member string, generation int32, change ...func(*kmsg.OffsetCommitRequest)) func(int16) kmsg.Request {
	return func(int16) kmsg.Request {
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Group, r.MemberID, r.Generation, r.RetentionTimeMillis = group, member, generation, -1
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic, topic.TopicID = s.orders, s.ordersID
		for p := range int32(2) {
			part := kmsg.NewOffsetCommitRequestTopicPartition()
			part.Partition, part.Offset, part.LeaderEpoch = p, 5+int64(p), 0
			part.Metadata = kmsg.StringPtr("note")
			topic.Partitions = append(topic.Partitions, part)
		}
		r.Topics = []kmsg.OffsetCommitRequestTopic{topic}
		for _, f := range change {
			f(r)
		}
		return r
	}
}

// fetch builds a fetch of three partitions of orders, of which one does not
// exist, or of everything.
func (s *groupScript) fetch(group string, all bool, change ...func(*kmsg.OffsetFetchRequest)) func(int16) kmsg.Request {
	return func(version int16) kmsg.Request {
		r := kmsg.NewPtrOffsetFetchRequest()
		g := kmsg.NewOffsetFetchRequestGroup()
		r.Group, g.Group = group, group
		if !all {
			topic := kmsg.NewOffsetFetchRequestTopic()
			topic.Topic, topic.Partitions = s.orders, []int32{0, 1, 7}
			r.Topics = []kmsg.OffsetFetchRequestTopic{topic}
			gt := kmsg.NewOffsetFetchRequestGroupTopic()
			gt.Topic, gt.TopicID, gt.Partitions = s.orders, s.ordersID, []int32{0, 1, 7}
			g.Topics = []kmsg.OffsetFetchRequestGroupTopic{gt}
		} else if version < 2 {
			r.Topics = []kmsg.OffsetFetchRequestTopic{}
		}
		r.Groups = []kmsg.OffsetFetchRequestGroup{g}
		for _, f := range change {
			f(r)
		}
		return r
	}
}

func heartbeat(group, member string, generation int32, instance *string) func(int16) kmsg.Request {
	return func(version int16) kmsg.Request {
		r := kmsg.NewPtrHeartbeatRequest()
		r.Group, r.MemberID, r.Generation, r.InstanceID = group, member, generation, instance
		return r
	}
}

func leave(group, member string, instance *string) func(int16) kmsg.Request {
	return func(int16) kmsg.Request {
		r := kmsg.NewPtrLeaveGroupRequest()
		r.Group, r.MemberID = group, member
		m := kmsg.NewLeaveGroupRequestMember()
		m.MemberID, m.InstanceID = member, instance
		r.Members = []kmsg.LeaveGroupRequestMember{m}
		return r
	}
}

func (s *groupScript) subscription() []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Topics = []string{s.orders}
	return m.AppendTo(nil)
}

func (s *groupScript) join(group, member, kind string, change ...func(*kmsg.JoinGroupRequest)) *kmsg.JoinGroupRequest {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.MemberID, r.ProtocolType = group, member, kind
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 30_000, 30_000
	for _, name := range []string{"range", "roundrobin"} {
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = name, s.subscription()
		r.Protocols = append(r.Protocols, p)
	}
	for _, f := range change {
		f(r)
	}
	return r
}

func (s *groupScript) sync(group, member string, generation int32, change ...func(*kmsg.SyncGroupRequest)) *kmsg.SyncGroupRequest {
	r := kmsg.NewPtrSyncGroupRequest()
	r.Group, r.MemberID, r.Generation = group, member, generation
	r.ProtocolType, r.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	a := kmsg.NewSyncGroupRequestGroupAssignment()
	a.MemberID, a.MemberAssignment = member, []byte("assigned to it")
	r.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{a}
	for _, f := range change {
		f(r)
	}
	return r
}

// consumerHeartbeat builds the first heartbeat of a member.
func (s *groupScript) consumerHeartbeat(group, member string, epoch int32, change ...func(*kmsg.ConsumerGroupHeartbeatRequest)) *kmsg.ConsumerGroupHeartbeatRequest {
	r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	r.Group, r.MemberID, r.MemberEpoch, r.RebalanceTimeoutMillis = group, member, epoch, 30_000
	r.SubscribedTopicNames = []string{s.orders}
	r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	for _, f := range change {
		f(r)
	}
	return r
}

func (s *groupScript) deleteOffsets(group, topic string) *kmsg.OffsetDeleteRequest {
	r := kmsg.NewPtrOffsetDeleteRequest()
	r.Group = group
	dt := kmsg.NewOffsetDeleteRequestTopic()
	dt.Topic = topic
	for _, p := range []int32{0, 1} {
		part := kmsg.NewOffsetDeleteRequestTopicPartition()
		part.Partition = p
		dt.Partitions = append(dt.Partitions, part)
	}
	r.Topics = []kmsg.OffsetDeleteRequestTopic{dt}
	return r
}

func deleteGroups(groups ...string) func(int16) kmsg.Request {
	return func(int16) kmsg.Request {
		r := kmsg.NewPtrDeleteGroupsRequest()
		r.Groups = groups
		return r
	}
}

func (s *groupScript) unknownGroup() {
	const of = "unknown group"
	group := s.group("unknown")
	s.askAll(of, 0, 6, describeGroups(group))
	s.askAll(of, 0, 1, describeConsumer(group))
	s.askAll(of, 1, 10, s.fetch(group, false))
	s.askAll(of+", all offsets", 2, 10, s.fetch(group, true))
	s.askAll(of, 0, 4, heartbeat(group, "nobody", 1, nil))
	s.askAll(of, 0, 5, leave(group, "nobody", nil))
	s.askAll(of, 0, 5, func(int16) kmsg.Request { return s.sync(group, "nobody", 1) })
	s.askAll(of, 2, 10, s.commit(group, "nobody", 1))
	s.askAll(of+", unknown member", 0, 9, func(int16) kmsg.Request { return s.join(group, "nobody", "consumer") })
	s.askAll(of+", known epoch", 0, 1, func(int16) kmsg.Request { return s.consumerHeartbeat(group, "nobody", 5) })
	s.askAll(of, 0, 3, deleteGroups(group))
	s.ask(of, s.deleteOffsets(group, s.orders), 0)
	s.askAll("group without name", 0, 6, describeGroups(""))
	s.askAll("group without name", 0, 1, describeConsumer(""))
	s.askAll("group without name", 0, 9, func(int16) kmsg.Request { return s.join("", "", "consumer") })
	s.askAll("group without name", 0, 4, heartbeat("", "nobody", 1, nil))
	s.askAll("group without name", 0, 5, leave("", "nobody", nil))
	s.askAll("group without name", 0, 5, func(int16) kmsg.Request { return s.sync("", "nobody", 1) })
	s.askAll("group without name", 0, 1, func(int16) kmsg.Request { return s.consumerHeartbeat("", "nobody", 0) })
}

func (s *groupScript) simpleGroup() {
	const of = "simple group"
	group := s.group("simple")
	s.askAll(of, 2, 10, s.commit(group, "", -1))
	s.askAll(of, 1, 10, s.fetch(group, false))
	s.askAll(of+", all offsets", 2, 10, s.fetch(group, true))
	s.askAll(of+", stable offsets", 7, 10, s.fetch(group, false, func(r *kmsg.OffsetFetchRequest) { r.RequireStable = true }))
	s.askAll(of+", several groups", 8, 10, func(version int16) kmsg.Request {
		r := s.fetch(group, true)(version).(*kmsg.OffsetFetchRequest)
		unknown := kmsg.NewOffsetFetchRequestGroup()
		unknown.Group = s.group("unknown")
		r.Groups = append(r.Groups, unknown)
		return r
	})
	s.askAll(of+", unknown member", 9, 10, s.fetch(group, false, func(r *kmsg.OffsetFetchRequest) {
		r.Groups[0].MemberID, r.Groups[0].MemberEpoch = kmsg.StringPtr("nobody"), 3
	}))
	s.askAll(of+", unknown topic id", 10, 10, s.fetch(group, false, func(r *kmsg.OffsetFetchRequest) { r.Groups[0].Topics[0].TopicID = s.unknownID }))
	s.askAll(of+", unknown topic", 1, 9, s.fetch(group, false, func(r *kmsg.OffsetFetchRequest) {
		r.Topics[0].Topic, r.Groups[0].Topics[0].Topic = "nothing", "nothing"
	}))
	s.askAll(of, 0, 6, describeGroups(group))
	s.askAll(of, 0, 1, describeConsumer(group))
	s.askAll(of, 0, 5, listGroups(nil, nil))
	s.askAll(of+", listed by state", 4, 5, listGroups([]string{"empty"}, nil))
	s.askAll(of+", listed by other state", 4, 5, listGroups([]string{"Stable"}, nil))
	s.askAll(of+", listed by unknown state", 4, 5, listGroups([]string{"Confused"}, nil))
	s.askAll(of+", listed by type", 5, 5, listGroups(nil, []string{"Classic"}))
	s.askAll(of+", listed by other type", 5, 5, listGroups(nil, []string{"consumer"}))
	s.askAll(of+", listed by unknown type", 5, 5, listGroups(nil, []string{"confused"}))
	s.askAll(of+", with generation", 2, 10, s.commit(group, "", 3))
	s.askAll(of+", with member", 2, 10, s.commit(group, "nobody", 3))
	s.askAll(of+", unknown topic", 2, 9, s.commit(group, "", -1, func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Topic = "nothing" }))
	s.askAll(of+", unknown topic id", 10, 10, s.commit(group, "", -1, func(r *kmsg.OffsetCommitRequest) { r.Topics[0].TopicID = s.unknownID }))
	s.askAll(of+", unknown partition", 2, 10, s.commit(group, "", -1, func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions[1].Partition = 9 }))
	s.askAll(of+", metadata too long", 2, 10, s.commit(group, "", -1, func(r *kmsg.OffsetCommitRequest) {
		r.Topics[0].Partitions[1].Metadata = kmsg.StringPtr(strings.Repeat("x", 4097))
	}))
	s.askAll(of+", longest metadata", 2, 2, s.commit(s.group("simple2"), "", -1, func(r *kmsg.OffsetCommitRequest) {
		r.Topics[0].Partitions[1].Metadata = kmsg.StringPtr(strings.Repeat("x", 4096))
	}))
	s.askAll(of+", no metadata", 2, 10, s.commit(group, "", -1, func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions[0].Metadata = nil }))
	s.askAll(of+", negative offset", 2, 2, s.commit(s.group("simple2"), "", -1, func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions[0].Offset = -5 }))
	s.askAll(of+", after that", 7, 8, s.fetch(group, true))
	s.askAll(of+" without name", 2, 10, s.commit("", "", -1))
	s.askAll(of+" without name", 1, 10, s.fetch("", false))
	s.ask(of+" without name", s.deleteOffsets("", s.orders), 0)
}

func (s *groupScript) classicGroup() {
	const of = "classic group"
	group := s.group("classic")
	first := s.ask(of+", no member id", s.join(group, "", "consumer"), 9).(*kmsg.JoinGroupResponse)
	member := first.MemberID
	s.name(member, "MEMBER")
	s.ask(of+", with member id", s.join(group, member, "consumer"), 9)
	s.askAll(of+", before sync", 0, 6, describeGroups(group))
	s.askAll(of+", before sync", 0, 4, heartbeat(group, member, 1, nil))
	s.askAll(of+", before sync", 2, 10, s.commit(group, member, 1))
	s.askAll(of+", before sync", 5, 5, listGroups(nil, nil))
	s.ask(of+", other protocol", s.sync(group, member, 1, func(r *kmsg.SyncGroupRequest) { r.Protocol = kmsg.StringPtr("roundrobin") }), 5)
	s.ask(of+", other protocol type", s.sync(group, member, 1, func(r *kmsg.SyncGroupRequest) { r.ProtocolType = kmsg.StringPtr("connect") }), 5)
	s.ask(of+", no protocol", s.sync(group, member, 1, func(r *kmsg.SyncGroupRequest) { r.Protocol, r.ProtocolType = nil, nil }), 5)
	s.askAll(of+", other generation", 0, 5, func(int16) kmsg.Request { return s.sync(group, member, 7) })
	s.askAll(of, 0, 5, func(int16) kmsg.Request { return s.sync(group, member, 1) })
	s.askAll(of+", stable", 0, 6, describeGroups(group))
	s.askAll(of+", stable", 0, 1, describeConsumer(group))
	s.askAll(of+", stable", 0, 5, listGroups(nil, nil))
	s.askAll(of, 0, 4, heartbeat(group, member, 1, nil))
	s.askAll(of+", other generation", 0, 4, heartbeat(group, member, 2, nil))
	s.askAll(of+", unknown member", 0, 4, heartbeat(group, "nobody", 1, nil))
	s.askAll(of+", unknown instance", 3, 4, heartbeat(group, member, 1, kmsg.StringPtr("nobody")))
	s.askAll(of, 2, 10, s.commit(group, member, 1))
	s.askAll(of+", older generation", 2, 10, s.commit(group, member, 0))
	s.askAll(of+", unknown member", 2, 10, s.commit(group, "nobody", 1))
	s.askAll(of+", no member", 2, 10, s.commit(group, "", -1))
	s.askAll(of, 1, 10, s.fetch(group, false))
	s.askAll(of+", with member", 9, 10, s.fetch(group, false, func(r *kmsg.OffsetFetchRequest) {
		r.Groups[0].MemberID, r.Groups[0].MemberEpoch = &member, 1
	}))
	s.askAll(of+", with other generation", 9, 10, s.fetch(group, false, func(r *kmsg.OffsetFetchRequest) {
		r.Groups[0].MemberID, r.Groups[0].MemberEpoch = &member, 9
	}))
	s.askAll(of, 0, 3, deleteGroups(group))
	s.ask(of+", subscribed topic", s.deleteOffsets(group, s.orders), 0)
	s.ask(of+", other topic", s.deleteOffsets(group, s.other), 0)
	s.ask(of+", unknown topic", s.deleteOffsets(group, "nothing"), 0)
	s.askAll(of+", other protocol type", 4, 9, func(int16) kmsg.Request { return s.join(group, member, "connect") })
	s.askAll(of+", no common protocol", 4, 9, func(int16) kmsg.Request {
		return s.join(group, "", "consumer", func(r *kmsg.JoinGroupRequest) {
			r.InstanceID, r.Protocols = nil, r.Protocols[:1]
			r.Protocols[0].Name = "another"
		})
	})
	s.askAll(of+", no protocol", 4, 9, func(int16) kmsg.Request {
		return s.join(group, member, "consumer", func(r *kmsg.JoinGroupRequest) { r.Protocols = nil })
	})
	s.askAll(of+", no protocol type", 4, 9, func(int16) kmsg.Request { return s.join(group, member, "") })
	s.askAll(of+", session too short", 0, 9, func(int16) kmsg.Request {
		return s.join(group, member, "consumer", func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 10 })
	})
	s.askAll(of+", session too long", 0, 9, func(int16) kmsg.Request {
		return s.join(group, member, "consumer", func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1 << 30 })
	})
	s.askAll(of+", unknown member", 0, 9, func(int16) kmsg.Request { return s.join(group, "nobody", "consumer") })
	s.askAll(of+", unknown member", 0, 5, leave(group, "nobody", nil))
	s.ask(of, leave(group, member, nil)(5), 5)
	s.askAll(of+", empty", 0, 6, describeGroups(group))
	s.askAll(of+", empty", 5, 5, listGroups(nil, nil))
	s.askAll(of+", empty, older member", 2, 10, s.commit(group, member, 1))
	s.askAll(of+", empty, older member", 0, 4, heartbeat(group, member, 1, nil))
	s.ask(of+", empty, no member", s.commit(group, "", -1)(8), 8)

	connect := s.group("connect")
	member = s.ask("group of workers, no member id", s.join(connect, "", "connect"), 9).(*kmsg.JoinGroupResponse).MemberID
	s.name(member, "WORKER")
	s.ask("group of workers", s.join(connect, member, "connect"), 9)
	s.ask("group of workers", s.sync(connect, member, 1, func(r *kmsg.SyncGroupRequest) { r.ProtocolType = kmsg.StringPtr("connect") }), 5)
	s.askAll("group of workers", 5, 6, describeGroups(connect))
	s.ask("group of workers", s.deleteOffsets(connect, s.orders), 0)
	s.askAll("group of workers", 0, 1, func(int16) kmsg.Request { return s.consumerHeartbeat(connect, "new", 0) })
	s.ask("group of workers", leave(connect, member, nil)(5), 5)
}

// classicVersions lets a member join at each version.
func (s *groupScript) classicVersions() {
	for v := range int16(10) {
		of := fmt.Sprint("member of version ", v)
		group := s.group(fmt.Sprint("version", v))
		resp := s.join(group, "", "consumer")
		answer, err := s.conn.Call(step(s.t), resp, v)
		if err != nil {
			s.t.Fatal(err)
		}
		member := answer.(*kmsg.JoinGroupResponse).MemberID
		s.name(member, "MEMBER")
		s.note(of+": first JoinGroup", answer)
		s.ask(of, s.join(group, member, "consumer"), v)
		s.ask(of, s.sync(group, member, 1), min(v, 5))
		s.ask(of, heartbeat(group, member, 1, nil)(0), min(v, 4))
		s.ask(of+" leaves", leave(group, member, nil)(0), min(v, 5))
		s.ask(of+" leaves again", leave(group, member, nil)(0), min(v, 5))
	}
}

func (s *groupScript) classicStatic() {
	const of = "static member"
	group, instance := s.group("static"), kmsg.StringPtr("instance")
	static := func(r *kmsg.JoinGroupRequest) { r.InstanceID = instance }
	member := s.ask(of, s.join(group, "", "consumer", static), 9).(*kmsg.JoinGroupResponse).MemberID
	s.name(member, "FIRST")
	s.ask(of, s.sync(group, member, 1, func(r *kmsg.SyncGroupRequest) { r.InstanceID = instance }), 5)
	s.askAll(of, 0, 6, describeGroups(group))
	for v := int16(5); v <= 9; v++ {
		returns := fmt.Sprintf("static member returns at version %d", v)
		resp, err := s.conn.Call(step(s.t), s.join(group, "", "consumer", static), v)
		if err != nil {
			s.t.Fatal(err)
		}
		before := member
		member = resp.(*kmsg.JoinGroupResponse).MemberID
		s.name(member, fmt.Sprint("SINCE", v))
		s.note(returns+": JoinGroup", resp)
		s.ask(returns, s.sync(group, member, 1, func(r *kmsg.SyncGroupRequest) { r.InstanceID = instance }), 5)
		s.ask(returns+", the one before", heartbeat(group, before, 1, instance)(4), 4)
		s.ask(returns+", the one before without instance", heartbeat(group, before, 1, nil)(4), 4)
		s.ask(returns+", the one before", s.commit(group, before, 1, func(r *kmsg.OffsetCommitRequest) { r.InstanceID = instance })(8), 8)
		s.ask(returns+", the one before", s.join(group, before, "consumer", static), v)
		s.ask(returns+", the one before", s.sync(group, before, 1, func(r *kmsg.SyncGroupRequest) { r.InstanceID = instance }), 5)
	}
	s.ask(of+", wrong member id", leave(group, "nobody", instance)(5), 5)
	s.ask(of+", unknown instance", leave(group, "", kmsg.StringPtr("nobody"))(5), 5)
	s.askAll(of+" removed", 3, 5, leave(group, "", instance))
	s.askAll(of+" removed", 0, 6, describeGroups(group))
}

func (s *groupScript) consumerGroup() {
	const of = "consumer group"
	group := s.group("modern")
	type hb = *kmsg.ConsumerGroupHeartbeatRequest
	for _, c := range []struct {
		name, member string
		epoch        int32
		change       func(hb)
	}{
		{"no subscription", "m", 0, func(r hb) { r.SubscribedTopicNames = nil }},
		{"no rebalance timeout", "m", 0, func(r hb) { r.RebalanceTimeoutMillis = -1 }},
		{"no owned partitions", "m", 0, func(r hb) { r.Topics = nil }},
		{"owned partitions", "m", 0, func(r hb) {
			r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: s.ordersID, Partitions: []int32{0}}}
		}},
		{"empty instance", "m", 0, func(r hb) { r.InstanceID = kmsg.StringPtr("") }},
		{"empty rack", "m", 0, func(r hb) { r.RackID = kmsg.StringPtr("") }},
		{"unknown assignor", "m", 0, func(r hb) { r.ServerAssignor = kmsg.StringPtr("confused") }},
		{"epoch too low", "m", -3, func(hb) {}},
		{"static without name", "m", -2, func(hb) {}},
		{"no member id to leave", "", -1, func(hb) {}},
		{"no member id and epoch", "", 4, func(hb) {}},
		{"bad expression", "m", 0, func(r hb) { r.SubscribedTopicNames, r.SubscribedTopicRegex = nil, kmsg.StringPtr("(") }},
		{"leave of nobody", "m", -1, func(hb) {}},
	} {
		s.ask(of+", "+c.name, s.consumerHeartbeat(s.group(c.name), c.member, c.epoch, c.change), 1)
	}
	s.ask(of+", no member id", s.consumerHeartbeat(s.group("no member id"), "", 0), 1)

	const member = "3LjRqPZ9TF-0sV_5Ml6jXg"
	epoch := s.consumerJoin(group, member)
	s.askAll(of+", stable", 0, 1, describeConsumer(group))
	s.askAll(of+", stable", 0, 6, describeGroups(group))
	s.askAll(of+", stable", 0, 5, listGroups(nil, nil))
	s.askAll(of+", listed by type", 5, 5, listGroups(nil, []string{"CONSUMER"}))
	steady := func(r hb) { r.RebalanceTimeoutMillis, r.SubscribedTopicNames, r.Topics = -1, nil, nil }
	s.ask(of+", steady", s.consumerHeartbeat(group, member, epoch, steady), 1)
	s.ask(of+", full", s.consumerHeartbeat(group, member, epoch, func(r hb) {
		r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: s.ordersID, Partitions: []int32{0, 1}}}
	}), 1)
	s.ask(of+", epoch too high", s.consumerHeartbeat(group, member, epoch+1, steady), 1)
	s.ask(of+", unknown member", s.consumerHeartbeat(group, "nobody", epoch, steady), 1)
	s.askAll(of, 2, 10, s.commit(group, member, epoch))
	s.askAll(of+", older epoch", 2, 10, s.commit(group, member, epoch-1))
	s.askAll(of+", unknown member", 2, 10, s.commit(group, "nobody", epoch))
	s.askAll(of+", no member", 2, 10, s.commit(group, "", -1))
	s.askAll(of, 1, 10, s.fetch(group, false))
	s.askAll(of+", with member", 9, 10, s.fetch(group, false, func(r *kmsg.OffsetFetchRequest) {
		r.Groups[0].MemberID, r.Groups[0].MemberEpoch = kmsg.StringPtr(member), epoch
	}))
	s.askAll(of+", older epoch", 9, 10, s.fetch(group, false, func(r *kmsg.OffsetFetchRequest) {
		r.Groups[0].MemberID, r.Groups[0].MemberEpoch = kmsg.StringPtr(member), epoch-1
	}))
	s.askAll(of+", unknown member", 9, 10, s.fetch(group, false, func(r *kmsg.OffsetFetchRequest) {
		r.Groups[0].MemberID, r.Groups[0].MemberEpoch = kmsg.StringPtr("nobody"), epoch
	}))
	s.askAll(of, 0, 3, deleteGroups(group))
	s.ask(of+", subscribed topic", s.deleteOffsets(group, s.orders), 0)
	s.ask(of+", other topic", s.deleteOffsets(group, s.other), 0)
	s.askAll(of+", worker", 4, 9, func(int16) kmsg.Request { return s.join(group, "", "connect") })
	s.askAll(of, 0, 4, heartbeat(group, member, epoch, nil))
	s.askAll(of, 0, 5, func(int16) kmsg.Request { return s.sync(group, member, epoch) })
	s.ask(of+", leave", s.consumerHeartbeat(group, member, -1, steady), 1)
	s.askAll(of+", empty", 0, 1, describeConsumer(group))
	s.askAll(of+", empty", 5, 6, describeGroups(group))
	s.askAll(of+", empty", 5, 5, listGroups(nil, nil))

	const static = "consumer group, static member"
	group = s.group("modern-static")
	named := func(r hb) { r.InstanceID = kmsg.StringPtr("instance") }
	epoch = s.consumerJoin(group, member, named)
	s.ask(static+" of the same name", s.consumerHeartbeat(group, "usurper", 0, named), 1)
	s.ask(static+" goes", s.consumerHeartbeat(group, member, -2, named, steady), 1)
	s.askAll(static+" is away", 0, 1, describeConsumer(group))
	s.ask(static+" returns", s.consumerHeartbeat(group, "another", 0, named), 1)
	s.askAll(static+" is back", 0, 1, describeConsumer(group))
	s.ask(static+", the one before", s.consumerHeartbeat(group, member, epoch, named, steady), 1)
	s.ask(static+" leaves", s.consumerHeartbeat(group, "another", -1, named, steady), 1)
}

// consumerJoin makes a member join a group and take what is assigned to it, and
// returns its epoch.
func (s *groupScript) consumerJoin(group, member string, change ...func(*kmsg.ConsumerGroupHeartbeatRequest)) int32 {
	s.t.Helper()
	epoch, owned := int32(0), []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	await(s.t, "assignment", nil, func() bool {
		req := s.consumerHeartbeat(group, member, epoch, change...)
		req.Topics = owned
		answer, err := s.conn.Call(step(s.t), req, 1)
		if err != nil {
			s.t.Fatal(err)
		}
		resp := answer.(*kmsg.ConsumerGroupHeartbeatResponse)
		if resp.ErrorCode != 0 {
			s.t.Fatalf("heartbeat of %s: error %d", member, resp.ErrorCode)
		}
		done := len(owned) > 0
		epoch = resp.MemberEpoch
		if resp.Assignment != nil {
			owned = owned[:0]
			for _, topic := range resp.Assignment.Topics {
				owned = append(owned, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: topic.TopicID, Partitions: topic.Partitions})
			}
		}
		return done && len(owned) > 0
	}, func() string { return fmt.Sprintf("epoch %d, owns %v", epoch, owned) })
	return epoch
}

func (s *groupScript) deletion() {
	const of = "deletion"
	group := s.group("modern")
	s.ask(of+" of offsets", s.deleteOffsets(group, s.orders), 0)
	s.ask(of+" of offsets once more", s.deleteOffsets(group, s.orders), 0)
	s.ask(of+" of unknown offsets", s.deleteOffsets(group, "nothing"), 0)
	s.ask("after deletion of offsets", s.fetch(group, true)(8), 8)
	for v, name := range []string{"simple", "classic", "modern"} {
		s.ask(of+" of "+name, deleteGroups(s.group(name), s.group("unknown"))(0), int16(v))
	}
	s.ask("after deletion", s.fetch(s.group("simple"), true)(8), 8)
	s.askAll("after deletion", 5, 6, describeGroups(s.group("simple"), s.group("classic"), s.group("modern")))
}
