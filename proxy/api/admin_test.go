package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
)

// TestWhatIsNotOffered: security and tokens are refused in every version with the
// code that Kafka gives without them, one result for each thing asked for.
func TestWhatIsNotOffered(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	str := kmsg.StringPtr
	for v := int16(0); v <= 3; v++ {
		describe := kmsg.NewPtrDescribeACLsRequest()
		describe.Version, describe.ResourcePatternType = v, 3
		acls := do[*kmsg.DescribeACLsResponse](c, describe)
		wantCode(t, "DescribeAcls", acls.ErrorCode, protocol.SecurityDisabled)
		if acls.ErrorMessage == nil || len(acls.Resources) != 0 {
			t.Errorf("DescribeAcls v%d: %+v", v, acls)
		}
		create := kmsg.NewPtrCreateACLsRequest()
		create.Version, create.Creations = v, make([]kmsg.CreateACLsRequestCreation, 2)
		created := do[*kmsg.CreateACLsResponse](c, create)
		remove := kmsg.NewPtrDeleteACLsRequest()
		remove.Version, remove.Filters = v, make([]kmsg.DeleteACLsRequestFilter, 2)
		removed := do[*kmsg.DeleteACLsResponse](c, remove)
		if len(created.Results) != 2 || len(removed.Results) != 2 {
			t.Fatalf("v%d: %+v, %+v", v, created, removed)
		}
		for i := range 2 {
			wantCode(t, "CreateAcls", created.Results[i].ErrorCode, protocol.SecurityDisabled)
			wantCode(t, "DeleteAcls", removed.Results[i].ErrorCode, protocol.SecurityDisabled)
		}

		token := kmsg.NewPtrCreateDelegationTokenRequest()
		token.Version = v
		for _, owner := range []string{"", "alice"} {
			token.OwnerPrincipalType, token.OwnerPrincipalName = str("User"), &owner
			resp := do[*kmsg.CreateDelegationTokenResponse](c, token)
			wantCode(t, "CreateDelegationToken", resp.ErrorCode, protocol.DelegationTokenRequestNotAllowed)
			want := "ANONYMOUS"
			if v >= 3 && owner != "" {
				want = owner
			}
			if resp.PrincipalType != "User" || resp.PrincipalName != want || resp.IssueTimestamp != -1 || v >= 3 && resp.TokenRequesterPrincipalName != "ANONYMOUS" {
				t.Errorf("v%d: %+v", v, resp)
			}
		}
		tokens := kmsg.NewPtrDescribeDelegationTokenRequest()
		tokens.Version = v
		wantCode(t, "DescribeDelegationToken", do[*kmsg.DescribeDelegationTokenResponse](c, tokens).ErrorCode, protocol.DelegationTokenRequestNotAllowed)
		if v > 2 {
			continue
		}
		renew, expire := kmsg.NewPtrRenewDelegationTokenRequest(), kmsg.NewPtrExpireDelegationTokenRequest()
		renew.Version, expire.Version = v, v
		renewed, expired := do[*kmsg.RenewDelegationTokenResponse](c, renew), do[*kmsg.ExpireDelegationTokenResponse](c, expire)
		wantCode(t, "RenewDelegationToken", renewed.ErrorCode, protocol.DelegationTokenRequestNotAllowed)
		wantCode(t, "ExpireDelegationToken", expired.ErrorCode, protocol.DelegationTokenRequestNotAllowed)
		if renewed.ExpiryTimestamp != -1 || expired.ExpiryTimestamp != -1 {
			t.Errorf("v%d: renewed to %d, expires at %d", v, renewed.ExpiryTimestamp, expired.ExpiryTimestamp)
		}
		authenticate := kmsg.NewPtrSASLAuthenticateRequest()
		authenticate.Version = v
		wantCode(t, "SaslAuthenticate", do[*kmsg.SASLAuthenticateResponse](c, authenticate).ErrorCode, protocol.IllegalSASLState)
		if v > 1 {
			continue
		}
		shake := kmsg.NewPtrSASLHandshakeRequest()
		shake.Version, shake.Mechanism = v, "PLAIN"
		shaken := do[*kmsg.SASLHandshakeResponse](c, shake)
		wantCode(t, "SaslHandshake", shaken.ErrorCode, protocol.IllegalSASLState)
		if len(shaken.SupportedMechanisms) != 0 {
			t.Errorf("mechanisms are %v", shaken.SupportedMechanisms)
		}
	}
}

func TestAlterReplicaLogDirs(t *testing.T) {
	s := newServer(t, func(o *options) { o.config.LogDir = "/data" })
	s.createTopic("orders", 2)
	c := s.dial()
	for v := int16(0); v <= 2; v++ {
		q := kmsg.NewPtrAlterReplicaLogDirsRequest()
		q.Version = v
		q.Dirs = []kmsg.AlterReplicaLogDirsRequestDir{
			{Dir: "/data", Topics: []kmsg.AlterReplicaLogDirsRequestDirTopic{{Topic: "orders", Partitions: []int32{0, 2, -1}}, {Topic: "nope", Partitions: []int32{0}}}},
			{Dir: "/other", Topics: []kmsg.AlterReplicaLogDirsRequestDirTopic{{Topic: "orders", Partitions: []int32{1}}}},
		}
		got := ""
		for _, topic := range do[*kmsg.AlterReplicaLogDirsResponse](c, q).Topics {
			got += topic.Topic
			for _, p := range topic.Partitions {
				got += fmt.Sprintf(" %d:%d", p.Partition, p.ErrorCode)
			}
			got += ";"
		}
		if want := "orders 0:0 2:3 -1:3 1:57;nope 0:3;"; got != want {
			t.Errorf("v%d: %s, want %s", v, got, want)
		}
	}
}

func TestElectLeaders(t *testing.T) {
	s := newServer(t)
	s.createTopic("orders", 2)
	s.createTopic("other", 1)
	c := s.dial()
	for v := int16(0); v <= 2; v++ {
		for _, tc := range []struct {
			what   string
			kind   int8
			topics []kmsg.ElectLeadersRequestTopic
			top    protocol.Code
			want   string
		}{
			{"preferred", 0, []kmsg.ElectLeadersRequestTopic{{Topic: "orders", Partitions: []int32{0, 1, 2, -1}}, {Topic: "nope", Partitions: []int32{0}}}, protocol.None, "orders 0:84 1:84 2:3 -1:3;nope 0:3;"},
			{"unclean", 1, []kmsg.ElectLeadersRequestTopic{{Topic: "orders", Partitions: []int32{1}}}, protocol.None, "orders 1:84;"},
			{"all", 0, nil, protocol.None, "orders;other;"},
			{"none", 5, []kmsg.ElectLeadersRequestTopic{}, protocol.None, ""},
			{"unknown type", 2, []kmsg.ElectLeadersRequestTopic{{Topic: "orders", Partitions: []int32{0}}}, protocol.InvalidRequest, "orders 0:42;"},
			{"unknown type of all", -1, nil, protocol.InvalidRequest, ""},
		} {
			if v == 0 && tc.kind != 0 {
				continue
			}
			q := kmsg.NewPtrElectLeadersRequest()
			q.Version, q.ElectionType, q.Topics = v, tc.kind, tc.topics
			resp := do[*kmsg.ElectLeadersResponse](c, q)
			if v >= 1 {
				wantCode(t, tc.what, resp.ErrorCode, tc.top)
			}
			got := ""
			for _, topic := range resp.Topics {
				got += topic.Topic
				for _, p := range topic.Partitions {
					got += fmt.Sprintf(" %d:%d", p.Partition, p.ErrorCode)
				}
				got += ";"
			}
			if got != tc.want {
				t.Errorf("v%d %s: %s, want %s", v, tc.what, got, tc.want)
			}
		}
	}
}

func TestPartitionReassignments(t *testing.T) {
	s := newServer(t)
	s.createTopic("orders", 2)
	c := s.dial()
	for v := int16(0); v <= 1; v++ {
		for _, tc := range []struct {
			what      string
			topic     string
			partition int32
			resize    bool
			replicas  []int32
			want      protocol.Code
		}{
			{"as it is", "orders", 1, false, []int32{1}, protocol.None},
			{"cancel", "orders", 1, true, nil, protocol.NoReassignmentInProgress},
			{"to nobody", "orders", 1, true, []int32{}, protocol.InvalidReplicaAssignment},
			{"to a broker that is not there", "orders", 1, true, []int32{2}, protocol.InvalidReplicaAssignment},
			{"to more", "orders", 1, true, []int32{1, 2}, protocol.InvalidReplicaAssignment},
			{"twice", "orders", 1, true, []int32{1, 1}, protocol.InvalidReplicaAssignment},
			{"unknown partition", "orders", 2, true, []int32{1}, protocol.UnknownTopicOrPartition},
			{"unknown partition cancelled", "orders", -1, true, nil, protocol.UnknownTopicOrPartition},
			{"unknown topic", "nope", 0, true, []int32{1}, protocol.UnknownTopicOrPartition},
		} {
			q := kmsg.NewPtrAlterPartitionAssignmentsRequest()
			q.Version, q.AllowReplicationFactorChange = v, tc.resize
			q.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: tc.topic, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: tc.partition, Replicas: tc.replicas}}}}
			resp := do[*kmsg.AlterPartitionAssignmentsResponse](c, q)
			wantCode(t, "top", resp.ErrorCode, protocol.None)
			wantCode(t, tc.what, resp.Topics[0].Partitions[0].ErrorCode, tc.want)
			if v >= 1 && resp.AllowReplicationFactorChange != tc.resize {
				t.Errorf("%s: replication factor may change: %v", tc.what, resp.AllowReplicationFactorChange)
			}
		}
	}
	q := kmsg.NewPtrListPartitionReassignmentsRequest()
	for _, topics := range [][]kmsg.ListPartitionReassignmentsRequestTopic{nil, {}, {{Topic: "orders", Partitions: []int32{0, 9}}, {Topic: "nope"}}} {
		q.Topics = topics
		if resp := do[*kmsg.ListPartitionReassignmentsResponse](c, q); resp.ErrorCode != 0 || len(resp.Topics) != 0 {
			t.Errorf("under way is %+v", resp)
		}
	}
}

// TestReassignmentsAmongNodes: other live nodes are replicas as far as Metadata names them.
func TestReassignmentsAmongNodes(t *testing.T) {
	brokers := []broker{{id: 1}, {id: 2}}
	s := newServer(t, func(o *options) { o.records = map[string]string{"quire/test/node/2": `{"v":1,"inc":"x","name":"b"}`} })
	topic := s.createTopic("orders", 1)
	two := *topic
	two.ReplicationFactor = 2
	for _, tc := range []struct {
		topic    *coordinator.Topic
		resize   bool
		replicas []int32
		want     protocol.Code
	}{
		{&two, true, []int32{1, 2}, protocol.None},
		{&two, false, []int32{1, 2}, protocol.None},
		{&two, false, []int32{2, 1}, protocol.InvalidReplicaAssignment},
		{&two, true, []int32{1}, protocol.InvalidReplicaAssignment},
		{&two, false, []int32{1}, protocol.InvalidReplicationFactor},
		{topic, true, []int32{2}, protocol.InvalidReplicaAssignment},
	} {
		p := &kmsg.AlterPartitionAssignmentsRequestTopicPartition{Replicas: tc.replicas}
		err := s.handler.reassign(listenerName, tc.topic, p, brokers, tc.resize)
		wantCode(t, fmt.Sprint(tc.replicas), int16(adminErrors.code(err)), tc.want)
	}
}

func TestDescribeClientQuotas(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	type component = kmsg.DescribeClientQuotasRequestComponent
	exact, def, anyOf := kmsg.QuotasMatchTypeExact, kmsg.QuotasMatchTypeDefault, kmsg.QuotasMatchTypeAny
	a := kmsg.StringPtr("a")
	for i, tc := range []struct {
		what       string
		components []component
		want       protocol.Code
	}{
		{"everything", nil, protocol.None},
		{"sound", []component{{EntityType: "user", MatchType: exact, Match: a}, {EntityType: "client-id", MatchType: def}}, protocol.None},
		{"any ip", []component{{EntityType: "ip", MatchType: anyOf}}, protocol.None},
		{"no type", []component{{MatchType: anyOf}}, protocol.InvalidRequest},
		{"type twice", []component{{EntityType: "user", MatchType: def}, {EntityType: "user", MatchType: anyOf}}, protocol.InvalidRequest},
		{"unknown type", []component{{EntityType: "group", MatchType: anyOf}}, protocol.UnsupportedVersion},
		{"exact without a name", []component{{EntityType: "user", MatchType: exact}}, protocol.InvalidRequest},
		{"default with a name", []component{{EntityType: "user", MatchType: def, Match: a}}, protocol.InvalidRequest},
		{"any with a name", []component{{EntityType: "user", MatchType: anyOf, Match: a}}, protocol.InvalidRequest},
		{"unknown match", []component{{EntityType: "user", MatchType: 3}}, protocol.InvalidRequest},
		{"ip with user", []component{{EntityType: "ip", MatchType: anyOf}, {EntityType: "user", MatchType: anyOf}}, protocol.InvalidRequest},
	} {
		q := kmsg.NewPtrDescribeClientQuotasRequest()
		q.Version, q.Components, q.Strict = int16(i%2), tc.components, true
		resp := do[*kmsg.DescribeClientQuotasResponse](c, q)
		wantCode(t, tc.what, resp.ErrorCode, tc.want)
		if failed := tc.want != protocol.None; (resp.Entries == nil) != failed || (resp.ErrorMessage != nil) != failed {
			t.Errorf("%s: %+v", tc.what, resp)
		}
	}
}

func TestAlterClientQuotas(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	type entity = kmsg.AlterClientQuotasRequestEntryEntity
	type op = kmsg.AlterClientQuotasRequestEntryOp
	str := kmsg.StringPtr
	user, client, ip := entity{Type: "user", Name: str("a")}, entity{Type: "client-id"}, entity{Type: "ip", Name: str("127.0.0.1")}
	for i, tc := range []struct {
		what   string
		entity []entity
		ops    []op
		want   protocol.Code
	}{
		{"set", []entity{user, client}, []op{{Key: "producer_byte_rate", Value: 1024}}, protocol.UnsupportedVersion},
		{"set and remove", []entity{user}, []op{{Key: "producer_byte_rate", Value: 1024}, {Key: "consumer_byte_rate", Remove: true}}, protocol.UnsupportedVersion},
		{"half a percent", []entity{user}, []op{{Key: "request_percentage", Value: 0.5}}, protocol.UnsupportedVersion},
		{"connections", []entity{ip}, []op{{Key: "connection_creation_rate", Value: 5}}, protocol.UnsupportedVersion},
		{"remove", []entity{user}, []op{{Key: "producer_byte_rate", Remove: true}}, protocol.None},
		{"remove what there is not", []entity{user}, []op{{Key: "nope", Remove: true}}, protocol.None},
		{"nothing", []entity{user}, nil, protocol.None},
		{"no entity", nil, []op{{Key: "producer_byte_rate", Remove: true}}, protocol.InvalidRequest},
		{"unknown entity", []entity{{Type: "group", Name: str("a")}}, nil, protocol.InvalidRequest},
		{"empty name", []entity{{Type: "user", Name: str("")}}, nil, protocol.InvalidRequest},
		{"ip with user", []entity{ip, user}, nil, protocol.InvalidRequest},
		{"ip that is none", []entity{{Type: "ip", Name: str("here")}}, nil, protocol.InvalidRequest},
		{"unknown key", []entity{user}, []op{{Key: "nope", Value: 1}}, protocol.InvalidRequest},
		{"key of another entity", []entity{ip}, []op{{Key: "producer_byte_rate", Value: 1}}, protocol.InvalidRequest},
		{"zero", []entity{user}, []op{{Key: "producer_byte_rate"}}, protocol.InvalidRequest},
		{"negative", []entity{user}, []op{{Key: "request_percentage", Value: -1}}, protocol.InvalidRequest},
		{"fraction", []entity{user}, []op{{Key: "consumer_byte_rate", Value: 1.5}}, protocol.InvalidRequest},
		{"too large", []entity{ip}, []op{{Key: "connection_creation_rate", Value: 1 << 31}}, protocol.InvalidRequest},
		{"key twice", []entity{user}, []op{{Key: "producer_byte_rate", Value: 1}, {Key: "producer_byte_rate", Remove: true}}, protocol.InvalidRequest},
	} {
		q := kmsg.NewPtrAlterClientQuotasRequest()
		q.Version, q.ValidateOnly = int16(i%2), i%3 == 0
		q.Entries = []kmsg.AlterClientQuotasRequestEntry{{Entity: tc.entity, Ops: tc.ops}}
		out := do[*kmsg.AlterClientQuotasResponse](c, q).Entries[0]
		wantCode(t, tc.what, out.ErrorCode, tc.want)
		if len(out.Entity) != len(tc.entity) || len(out.Entity) > 0 && (out.Entity[0].Type != tc.entity[0].Type || *out.Entity[0].Name != *tc.entity[0].Name) {
			t.Errorf("%s: it is the answer to %+v", tc.what, out.Entity)
		}
	}
}

func TestScramCredentials(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	describe := func(names ...string) (out []string) {
		q := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		for _, n := range names {
			q.Users = append(q.Users, kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: n})
		}
		resp := do[*kmsg.DescribeUserSCRAMCredentialsResponse](c, q)
		wantCode(t, "top", resp.ErrorCode, protocol.None)
		for _, r := range resp.Results {
			out = append(out, fmt.Sprintf("%s:%d", r.User, r.ErrorCode))
		}
		return out
	}
	if got := describe(); len(got) != 0 {
		t.Errorf("all users are %v", got)
	}
	if got := describe("a", "b", "a"); !slices.Equal(got, []string{"a:92", "b:91"}) {
		t.Errorf("users are %v", got)
	}

	q := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	q.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: "gone", Mechanism: 1}, {Name: "", Mechanism: 1}, {Name: "odd", Mechanism: 3}, {Name: "both", Mechanism: 1}}
	q.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{
		{Name: "sound", Mechanism: 2, Iterations: 4096}, {Name: "few", Mechanism: 1, Iterations: 4095}, {Name: "many", Mechanism: 1, Iterations: 16385},
		{Name: "strange", Mechanism: 0, Iterations: 4096}, {Name: "both", Mechanism: 1, Iterations: 4096},
	}
	var got []string
	for _, r := range do[*kmsg.AlterUserSCRAMCredentialsResponse](c, q).Results {
		got = append(got, fmt.Sprintf("%s:%d", r.User, r.ErrorCode))
	}
	if want := []string{"gone:91", ":93", "odd:33", "both:92", "sound:35", "few:93", "many:93", "strange:33"}; !slices.Equal(got, want) {
		t.Errorf("results are %v, want %v", got, want)
	}
}

func TestDescribeQuorum(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	ask := func(v int16, topic string, partitions ...int32) *kmsg.DescribeQuorumResponse {
		q := kmsg.NewPtrDescribeQuorumRequest()
		q.Version = v
		qt := kmsg.DescribeQuorumRequestTopic{Topic: topic}
		for _, p := range partitions {
			qt.Partitions = append(qt.Partitions, kmsg.DescribeQuorumRequestTopicPartition{Partition: p})
		}
		q.Topics = append(q.Topics, qt)
		return do[*kmsg.DescribeQuorumResponse](c, q)
	}
	last := int64(0)
	for v := int16(0); v <= 2; v++ {
		s.createTopic(fmt.Sprintf("orders-%d", v), 1)
		resp := ask(v, "__cluster_metadata", 0)
		wantCode(t, "top", resp.ErrorCode, protocol.None)
		p := &resp.Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.LeaderID != 1 || len(p.CurrentVoters) != 1 || p.CurrentVoters[0].ReplicaID != 1 || p.CurrentVoters[0].LogEndOffset != p.HighWatermark || len(p.Observers) != 0 {
			t.Errorf("v%d: %+v", v, p)
		}
		if p.HighWatermark <= last {
			t.Errorf("v%d: the log ends at %d after a topic was made, and at %d before", v, p.HighWatermark, last)
		}
		last = p.HighWatermark
		if v >= 1 && p.CurrentVoters[0].LastCaughtUpTimestamp <= 0 {
			t.Errorf("v%d: caught up at %d", v, p.CurrentVoters[0].LastCaughtUpTimestamp)
		}
		if v == 2 && (len(resp.Nodes) != 1 || resp.Nodes[0].NodeID != 1 || resp.Nodes[0].Listeners[0].Name != "PLAINTEXT" || resp.Nodes[0].Listeners[0].Port == 0) {
			t.Errorf("v%d: nodes are %+v", v, resp.Nodes)
		}
		for _, bad := range []*kmsg.DescribeQuorumResponse{ask(v, "__cluster_metadata", 1), ask(v, "__cluster_metadata", 0, 1), ask(v, "orders-0", 0)} {
			for _, p := range bad.Topics[0].Partitions {
				wantCode(t, "another partition", p.ErrorCode, protocol.UnknownTopicOrPartition)
			}
		}
	}
	without := newServer(t, func(o *options) { o.otherListener = true })
	c = without.dial()
	wantCode(t, "no listener", ask(2, "__cluster_metadata", 0).Topics[0].Partitions[0].ErrorCode, protocol.NotLeaderOrFollower)
}

func TestUpdateFeatures(t *testing.T) {
	for _, on := range []bool{true, false} {
		s := newServer(t, func(o *options) { o.coord.Groups.ClassicOnly = !on })
		c := s.dial()
		for _, tc := range []struct {
			feature string
			level   int16
			upgrade int8
			on, off protocol.Code // with the consumer protocol, and without
		}{
			{"group.version", 1, 1, protocol.None, protocol.InvalidUpdateVersion},
			{"group.version", 0, 1, protocol.InvalidUpdateVersion, protocol.None},
			{"group.version", 0, 2, protocol.InvalidUpdateVersion, protocol.None},
			{"group.version", 1, 3, protocol.None, protocol.InvalidUpdateVersion},
			{"group.version", 2, 1, protocol.InvalidUpdateVersion, protocol.InvalidUpdateVersion},
			{"group.version", -1, 2, protocol.InvalidUpdateVersion, protocol.InvalidUpdateVersion},
			{"group.version", 1, 0, protocol.InvalidUpdateVersion, protocol.InvalidUpdateVersion},
			{"group.version", 1, 4, protocol.InvalidUpdateVersion, protocol.InvalidUpdateVersion},
			{"metadata.version", 21, 1, protocol.InvalidUpdateVersion, protocol.InvalidUpdateVersion},
			{"metadata.version", 0, 2, protocol.None, protocol.None},
		} {
			want := tc.off
			if on {
				want = tc.on
			}
			for v := int16(0); v <= 2; v++ {
				if v == 0 && tc.upgrade != 1 && tc.upgrade != 2 {
					continue
				}
				q := kmsg.NewPtrUpdateFeaturesRequest()
				q.Version = v
				q.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: tc.feature, MaxVersionLevel: tc.level, AllowDowngrade: tc.upgrade == 2, UpgradeType: tc.upgrade}}
				resp := do[*kmsg.UpdateFeaturesResponse](c, q)
				what := fmt.Sprintf("v%d %s to %d as %d", v, tc.feature, tc.level, tc.upgrade)
				if v == 2 {
					wantCode(t, what, resp.ErrorCode, want)
					continue
				}
				wantCode(t, what, resp.Results[0].ErrorCode, want)
				if resp.ErrorCode != 0 || resp.Results[0].Feature != tc.feature {
					t.Errorf("%s: %+v", what, resp)
				}
			}
		}
	}
}

func TestUnregisterBroker(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	for id, want := range map[int32]protocol.Code{1: protocol.InvalidRequest, 2: protocol.BrokerIDNotRegistered, -1: protocol.BrokerIDNotRegistered} {
		q := kmsg.NewPtrUnregisterBrokerRequest()
		q.BrokerID = id
		wantCode(t, fmt.Sprint(id), do[*kmsg.UnregisterBrokerResponse](c, q).ErrorCode, want)
	}
	if _, ok := s.coord.Node(1); !ok {
		t.Error("the node is gone")
	}
}

func TestTransactionsThatAreNot(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{"t", ""}
	states := do[*kmsg.DescribeTransactionsResponse](c, describe).TransactionStates
	wantCode(t, "unknown", states[0].ErrorCode, protocol.TransactionalIDNotFound)
	wantCode(t, "empty", states[1].ErrorCode, protocol.InvalidRequest)
	if states[0].TransactionalID != "t" {
		t.Errorf("the answer is for %q", states[0].TransactionalID)
	}
	str := kmsg.StringPtr
	for v := int16(0); v <= 2; v++ {
		for _, tc := range []struct {
			states  []string
			pattern *string
			unknown []string
			want    protocol.Code // of v2
		}{
			{nil, nil, nil, protocol.None},
			{[]string{"Ongoing", "Dead"}, str(""), nil, protocol.None},
			{[]string{"ongoing", "Empty", "x", "x"}, str("^t-[0-9]+$"), []string{"ongoing", "x"}, protocol.None},
			{nil, str("("), nil, protocol.InvalidRegularExpression},
			{nil, str(strings.Repeat("x", maxPatternBytes+1)), nil, protocol.InvalidRegularExpression},
		} {
			q := kmsg.NewPtrListTransactionsRequest()
			q.Version, q.StateFilters, q.TransactionalIDPattern = v, tc.states, tc.pattern
			resp := do[*kmsg.ListTransactionsResponse](c, q)
			want := tc.want
			if v < 2 {
				want = protocol.None
			}
			wantCode(t, "ListTransactions", resp.ErrorCode, want)
			if !slices.Equal(resp.UnknownStateFilters, tc.unknown) || len(resp.TransactionStates) != 0 {
				t.Errorf("v%d %v: %+v", v, tc.states, resp)
			}
		}
	}
}

func TestListConfigResources(t *testing.T) {
	s := newServer(t)
	s.createTopic("orders", 1)
	c := s.dial()
	check(t, s.coord.Groups().AlterConfig(t.Context(), "g", false, func(configs map[string]string) (map[string]string, error) {
		return map[string]string{"consumer.session.timeout.ms": "50000"}, nil
	}))
	for _, tc := range []struct {
		version int16
		types   []int8
		code    protocol.Code
		want    []string
	}{
		{0, nil, protocol.None, nil},
		{1, nil, protocol.None, []string{"8 1", "4 1", "2 orders", "32 g"}},
		{1, []int8{2}, protocol.None, []string{"2 orders"}},
		{1, []int8{4}, protocol.None, []string{"4 1"}},
		{1, []int8{16}, protocol.None, nil},
		{1, []int8{16, 32}, protocol.None, []string{"32 g"}},
		{1, []int8{2, 3}, protocol.UnsupportedVersion, nil},
	} {
		q := kmsg.NewPtrListConfigResourcesRequest()
		q.Version, q.ResourceTypes = tc.version, tc.types
		resp := do[*kmsg.ListConfigResourcesResponse](c, q)
		wantCode(t, fmt.Sprint(tc.types), resp.ErrorCode, tc.code)
		var got []string
		for _, r := range resp.ConfigResources {
			got = append(got, fmt.Sprintf("%d %s", r.Type, r.Name))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("v%d %v: %q, want %q", tc.version, tc.types, got, tc.want)
		}
	}
}
