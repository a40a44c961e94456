package api

import (
	"errors"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol/batch"
)

// seeds are well-formed bodies of every key and version that is served.
func seeds(t testing.TB) map[int16]map[int16][]byte {
	str := kmsg.StringPtr
	records := makeBatch(t, batch.Plain, "a")
	out := make(map[int16]map[int16][]byte)
	for i := range table {
		out[table[i].key] = make(map[int16][]byte)
		for v := table[i].min; v <= table[i].max; v++ {
			q := kmsg.RequestForKey(table[i].key)
			switch q := q.(type) {
			case *kmsg.ProduceRequest:
				q.Acks, q.TimeoutMillis = 1, 100
				q.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: records}}}}
				switch v {
				case 1:
					q.Topics[0].Partitions[0].Records = messageSet(0, 0, "a", "b")
				case 2:
					q.Topics[0].Partitions[0].Records = sentSet(t, 1, batch.Gzip, "a", "b")
				}
			case *kmsg.FetchRequest:
				q.ReplicaID, q.MaxBytes, q.SessionEpoch = -1, 1000, -1
				q.Topics = []kmsg.FetchRequestTopic{{Topic: "orders", Partitions: []kmsg.FetchRequestTopicPartition{{PartitionMaxBytes: 100, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1}}}}
				q.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{Topic: "orders", Partitions: []int32{0}}}
			case *kmsg.ListOffsetsRequest:
				q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: -1, CurrentLeaderEpoch: -1}}}}
			case *kmsg.MetadataRequest:
				q.Topics = []kmsg.MetadataRequestTopic{{Topic: str("orders")}}
			case *kmsg.OffsetCommitRequest:
				q.Group, q.Generation, q.RetentionTimeMillis = "g", -1, -1
				q.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1, Timestamp: -1, LeaderEpoch: -1, Metadata: str("note")}}}}
			case *kmsg.OffsetFetchRequest:
				q.Group, q.Topics = "g", []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
				q.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g", MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "orders", Partitions: []int32{0}}}}}
			case *kmsg.JoinGroupRequest:
				q.Group, q.SessionTimeoutMillis, q.RebalanceTimeoutMillis, q.ProtocolType = "j", 10000, 10000, "consumer"
				q.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 0, 255, 255, 255, 255}}}
			case *kmsg.HeartbeatRequest:
				q.Group, q.MemberID = "g", "m"
			case *kmsg.LeaveGroupRequest:
				q.Group, q.MemberID, q.Members = "g", "m", []kmsg.LeaveGroupRequestMember{{MemberID: "m", InstanceID: str("i")}}
			case *kmsg.SyncGroupRequest:
				q.Group, q.MemberID, q.ProtocolType, q.Protocol = "g", "m", str("consumer"), str("range")
				q.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: "m", MemberAssignment: []byte{1}}}
			case *kmsg.DescribeGroupsRequest:
				q.Groups = []string{"g", "j"}
			case *kmsg.ListGroupsRequest:
				q.StatesFilter, q.TypesFilter = []string{"Stable"}, []string{"classic"}
			case *kmsg.DeleteGroupsRequest:
				q.Groups = []string{"none"}
			case *kmsg.OffsetDeleteRequest:
				q.Group = "g"
				q.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}}}
			case *kmsg.ConsumerGroupHeartbeatRequest:
				q.Group, q.MemberID, q.RebalanceTimeoutMillis = "c", "m", 10000
				q.SubscribedTopicNames, q.SubscribedTopicRegex, q.ServerAssignor = []string{"orders"}, str("o.*"), str("uniform")
				q.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			case *kmsg.ConsumerGroupDescribeRequest:
				q.Groups = []string{"c"}
			case *kmsg.FindCoordinatorRequest:
				q.CoordinatorKey, q.CoordinatorKeys = "g", []string{"g"}
			case *kmsg.ApiVersionsRequest:
				q.ClientSoftwareName, q.ClientSoftwareVersion = "c", "1"
			case *kmsg.CreateTopicsRequest:
				q.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "new", NumPartitions: 1, ReplicationFactor: 1,
					ReplicaAssignment: []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Replicas: []int32{1}}},
					Configs:           []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms", Value: str("1")}}}}
			case *kmsg.DeleteTopicsRequest:
				q.TopicNames, q.Topics = []string{"gone"}, []kmsg.DeleteTopicsRequestTopic{{Topic: str("gone")}}
			case *kmsg.DeleteRecordsRequest:
				q.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "orders", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: 0}}}}
			case *kmsg.InitProducerIDRequest:
				q.ProducerID, q.ProducerEpoch = -1, -1
			case *kmsg.OffsetForLeaderEpochRequest:
				q.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{CurrentLeaderEpoch: -1}}}}
			case *kmsg.DescribeConfigsRequest:
				q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: 2, ResourceName: "orders", ConfigNames: []string{"retention.ms"}}}
			case *kmsg.AlterConfigsRequest:
				q.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: 2, ResourceName: "orders", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: str("1000")}}}}
			case *kmsg.DescribeLogDirsRequest:
				q.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
			case *kmsg.CreatePartitionsRequest:
				q.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "orders", Count: 1, Assignment: []kmsg.CreatePartitionsRequestTopicAssignment{{Replicas: []int32{1}}}}}
			case *kmsg.IncrementalAlterConfigsRequest:
				q.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: 2, ResourceName: "orders", Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "cleanup.policy", Op: 2, Value: str("delete")}}}}
			case *kmsg.DescribeProducersRequest:
				q.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
			case *kmsg.SASLHandshakeRequest:
				q.Mechanism = "PLAIN"
			case *kmsg.SASLAuthenticateRequest:
				q.SASLAuthBytes = []byte("\x00user\x00secret")
			case *kmsg.DescribeACLsRequest:
				q.ResourceType, q.ResourceName, q.Principal, q.Host, q.Operation, q.PermissionType = 2, str("orders"), str("User:a"), str("*"), 1, 1
			case *kmsg.CreateACLsRequest:
				q.Creations = []kmsg.CreateACLsRequestCreation{{ResourceType: 2, ResourceName: "orders", ResourcePatternType: 3, Principal: "User:a", Host: "*", Operation: 3, PermissionType: 3}}
			case *kmsg.DeleteACLsRequest:
				q.Filters = []kmsg.DeleteACLsRequestFilter{{ResourceType: 2, ResourceName: str("orders"), ResourcePatternType: 3, Operation: 1, PermissionType: 1}}
			case *kmsg.AlterReplicaLogDirsRequest:
				q.Dirs = []kmsg.AlterReplicaLogDirsRequestDir{{Dir: "/quire", Topics: []kmsg.AlterReplicaLogDirsRequestDirTopic{{Topic: "orders", Partitions: []int32{0}}}}}
			case *kmsg.CreateDelegationTokenRequest:
				q.OwnerPrincipalType, q.OwnerPrincipalName = str("User"), str("a")
				q.Renewers = []kmsg.CreateDelegationTokenRequestRenewer{{PrincipalType: "User", PrincipalName: "b"}}
			case *kmsg.RenewDelegationTokenRequest:
				q.HMAC = []byte("hmac")
			case *kmsg.ExpireDelegationTokenRequest:
				q.HMAC = []byte("hmac")
			case *kmsg.DescribeDelegationTokenRequest:
				q.Owners = []kmsg.DescribeDelegationTokenRequestOwner{{PrincipalType: "User", PrincipalName: "a"}}
			case *kmsg.ElectLeadersRequest:
				q.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
			case *kmsg.AlterPartitionAssignmentsRequest:
				q.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: "orders", Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Replicas: []int32{1}}}}}
			case *kmsg.ListPartitionReassignmentsRequest:
				q.Topics = []kmsg.ListPartitionReassignmentsRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
			case *kmsg.DescribeClientQuotasRequest:
				q.Components = []kmsg.DescribeClientQuotasRequestComponent{{EntityType: "user", Match: str("a")}}
			case *kmsg.AlterClientQuotasRequest:
				q.Entries = []kmsg.AlterClientQuotasRequestEntry{{
					Entity: []kmsg.AlterClientQuotasRequestEntryEntity{{Type: "user", Name: str("a")}},
					Ops:    []kmsg.AlterClientQuotasRequestEntryOp{{Key: "producer_byte_rate", Value: 1}}}}
			case *kmsg.DescribeUserSCRAMCredentialsRequest:
				q.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: "a"}}
			case *kmsg.AlterUserSCRAMCredentialsRequest:
				q.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: "a", Mechanism: 1}}
				q.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{Name: "b", Mechanism: 2, Iterations: 4096, Salt: []byte("salt"), SaltedPassword: []byte("password")}}
			case *kmsg.DescribeQuorumRequest:
				q.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
			case *kmsg.UpdateFeaturesRequest:
				q.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: "group.version", MaxVersionLevel: 1, UpgradeType: 1}}
			case *kmsg.DescribeTransactionsRequest:
				q.TransactionalIDs = []string{"t"}
			case *kmsg.ListTransactionsRequest:
				q.StateFilters, q.ProducerIDFilters, q.TransactionalIDPattern = []string{"Ongoing"}, []int64{1}, str("t.*")
			case *kmsg.ListConfigResourcesRequest:
				q.ResourceTypes = []int8{2}
			case *kmsg.DescribeTopicPartitionsRequest:
				q.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "orders"}}
				q.ResponsePartitionLimit, q.Cursor = 10, &kmsg.DescribeTopicPartitionsRequestCursor{Topic: "orders"}
			}
			q.SetVersion(v)
			out[table[i].key][v] = q.AppendTo(nil)
		}
	}
	return out
}

// exchange sends a body and nothing after it, and reads until the server
// closes the connection, which it does in its own time, whatever it was sent.
func (s *server) exchange(t testing.TB, key, version int16, body []byte) {
	t.Helper()
	c := s.dialFor(t)
	defer c.conn.Close()
	c.send(&rawRequest{key: key, version: version, body: body})
	check(t, c.conn.(*net.TCPConn).CloseWrite())
	for answers := 0; ; answers++ {
		b, err := c.frame()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			t.Fatalf("key %d v%d: no end to %x", key, version, body)
		case err != nil:
			return
		case answers > 0 || len(b) < 4 || b[3] != 1:
			t.Fatalf("key %d v%d: answer %d to %x is %x", key, version, answers, body, b)
		}
	}
}

// rawRequest is a body as it is.
type rawRequest struct {
	kmsg.MetadataRequest
	key, version int16
	body         []byte
}

func (r *rawRequest) Key() int16                 { return r.key }
func (r *rawRequest) GetVersion() int16          { return r.version }
func (r *rawRequest) AppendTo(dst []byte) []byte { return append(dst, r.body...) }
func (r *rawRequest) IsFlexible() bool {
	q := kmsg.RequestForKey(r.key)
	q.SetVersion(r.version)
	return q.IsFlexible()
}

// spoilt are a body cut off and twisted in several ways, and the body.
func spoilt(body []byte) (bodies [][]byte) {
	for _, n := range []int{0, 1, len(body) / 2, len(body) - 1} {
		bodies = append(bodies, body[:max(min(n, len(body)), 0)])
	}
	for at := 0; at < len(body); at += 1 + len(body)/8 {
		twisted := append([]byte(nil), body...)
		for i := at; i < min(at+4, len(twisted)); i++ {
			twisted[i] = 0xff
		}
		bodies = append(bodies, twisted)
		twisted = append([]byte(nil), twisted...)
		twisted[at] = 0x7f
		bodies = append(bodies, twisted)
	}
	return append(bodies, body)
}

// TestMalformed cuts off and twists well-formed bodies of every key and
// version: the server answers or closes the connection, and goes on.
func TestMalformed(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	for key, versions := range seeds(t) {
		for version, body := range versions {
			for _, b := range spoilt(body) {
				s.exchange(t, key, version, b)
			}
		}
	}
	s.dial().produce(topic, 0, "the server goes on")
}

// TestMalformedAmongNodes does that to nodes that forward to each other, for the oldest
// and the newest version of each key. Nothing of it is remembered.
func TestMalformedAmongNodes(t *testing.T) {
	c := newCluster(t, 2)
	topic := c.nodes[0].createTopic("orders", 1)
	sent := 0
	for key, versions := range seeds(t) {
		row := c.nodes[0].handler.rows[key]
		for _, version := range []int16{row.min, row.max} {
			for _, b := range spoilt(versions[version]) {
				s := &server{t: t, addr: c.nodes[sent%2].proxy}
				s.exchange(t, key, version, b)
				sent++
			}
		}
	}
	for _, n := range c.nodes {
		n.dialProxy().produce(topic, 0, "the nodes go on")
		until(t, "nothing is kept of requests that are over", func() bool {
			lines := &n.handler.lines
			lines.mu.Lock()
			defer lines.mu.Unlock()
			return len(lines.byConn) == 0 && n.handler.fetched.Load() == 0 && n.handler.converted.Load() == 0
		})
	}
}

func FuzzHandle(f *testing.F) {
	for key, versions := range seeds(f) {
		for version, body := range versions {
			f.Add(key, version, body)
		}
	}
	s := newServer(f)
	s.createTopic("orders", 1)
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		if s.handler.Accepts(key, version) {
			s.exchange(t, key, version, body)
		}
	})
}
