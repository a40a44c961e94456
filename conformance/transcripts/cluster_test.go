package transcripts

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func (s *script) initProducerID() {
	ask := func(situation string, change func(*kmsg.InitProducerIDRequest), versions ...int16) {
		s.t.Helper()
		r := kmsg.NewPtrInitProducerIDRequest()
		r.TransactionTimeoutMillis = 60_000
		change(r)
		s.all(situation, same(r), versions...)
	}
	s.until("producer ids are given", func() bool {
		const loading = 14
		return s.must(kmsg.NewPtrInitProducerIDRequest(), 0).(*kmsg.InitProducerIDResponse).ErrorCode != loading
	})
	ask("new producer", func(*kmsg.InitProducerIDRequest) {})
	ask("new producer without timeout", func(r *kmsg.InitProducerIDRequest) { r.TransactionTimeoutMillis = 0 })
	ask("new producer with id", func(r *kmsg.InitProducerIDRequest) { r.ProducerID, r.ProducerEpoch = 7, 3 }, 3, 99)
	ask("new producer with id, no epoch", func(r *kmsg.InitProducerIDRequest) { r.ProducerID = 7 }, 3, 99)
	ask("new producer with epoch, no id", func(r *kmsg.InitProducerIDRequest) { r.ProducerEpoch = 3 }, 3, 99)
	ask("new producer, empty transactional id", func(r *kmsg.InitProducerIDRequest) { r.TransactionalID = kmsg.StringPtr("") })
}

// groups asks a little about groups; the package clients compares their life.
func (s *script) groups() {
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKey, find.CoordinatorKeys = "g-group", []string{"g-group"}
	s.until("groups are served", func() bool {
		if s.must(find, 2).(*kmsg.FindCoordinatorResponse).ErrorCode != 0 {
			return false
		}
		q := kmsg.NewPtrDescribeGroupsRequest()
		q.Groups = []string{"g-group", "g-classic", "g-nobody", "g-v0"}
		for _, g := range s.must(q, 0).(*kmsg.DescribeGroupsResponse).Groups {
			if g.ErrorCode != 0 {
				return false
			}
		}
		return true
	})
	s.all("coordinator of a group", same(find), 0, 6)
	s.awaitTransactions()
	for _, kind := range []int8{1, 2, 3} {
		s.all(fmt.Sprint("coordinator of type ", kind), same(changed(kmsg.NewPtrFindCoordinatorRequest(), func(r *kmsg.FindCoordinatorRequest) {
			r.CoordinatorType, r.CoordinatorKey, r.CoordinatorKeys = kind, "key", []string{"key"}
		})), 1, 6)
	}
	commit := func(group string, change func(*kmsg.OffsetCommitRequest)) *kmsg.OffsetCommitRequest {
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Group, r.Generation, r.RetentionTimeMillis = group, -1, -1
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic, t.TopicID = "read", s.id("read")
		for _, p := range []int32{0, 9} {
			cp := kmsg.NewOffsetCommitRequestTopicPartition()
			cp.Partition, cp.Offset, cp.Timestamp, cp.LeaderEpoch, cp.Metadata = p, 3, -1, 0, kmsg.StringPtr("note")
			t.Partitions = append(t.Partitions, cp)
		}
		r.Topics = []kmsg.OffsetCommitRequestTopic{t}
		if change != nil {
			change(r)
		}
		return r
	}
	s.all("commit", same(commit("g-group", nil)))
	s.all("commit nothing", same(commit("g-group", func(r *kmsg.OffsetCommitRequest) { r.Topics = nil })))
	s.ask("commit to group of version 0", commit("g-v0", nil), 0)
	fetch := func(group string) *kmsg.OffsetFetchRequest {
		r := kmsg.NewPtrOffsetFetchRequest()
		r.Group = group
		t := kmsg.NewOffsetFetchRequestTopic()
		t.Topic, t.Partitions = "read", []int32{0, 1, 9}
		r.Topics = []kmsg.OffsetFetchRequestTopic{t}
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = group
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.TopicID, gt.Partitions = "read", s.id("read"), []int32{0, 1, 9}
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{gt}
		r.Groups = []kmsg.OffsetFetchRequestGroup{g}
		return r
	}
	s.all("committed", same(fetch("g-group")))
	s.ask("committed to group of version 0", fetch("g-v0"), 0)
	s.all("committed to an unknown group", same(fetch("g-nobody")))
	for v := range int16(4) {
		join := kmsg.NewPtrJoinGroupRequest()
		join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = "g-classic", "consumer", 30_000, 30_000
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "range", text("told")
		join.Protocols = append(join.Protocols, p)
		joined, ok := s.ask(fmt.Sprint("join at version ", v), join, v).(*kmsg.JoinGroupResponse)
		if !ok {
			continue
		}
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.MemberID, sync.Generation = "g-classic", joined.MemberID, joined.Generation
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = joined.MemberID, text("assigned")
		sync.GroupAssignment = append(sync.GroupAssignment, a)
		s.ask(fmt.Sprint("sync after joining at version ", v), sync, min(v, 3))
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Group, beat.MemberID, beat.Generation = "g-classic", joined.MemberID, joined.Generation
		s.ask(fmt.Sprint("beat after joining at version ", v), beat, min(v, 3))
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group, leave.MemberID = "g-classic", joined.MemberID
		s.ask(fmt.Sprint("leave after joining at version ", v), leave, min(v, 2))
	}
}

func (s *script) administration() {
	elect := func(kind int8, topic string, partitions ...int32) *kmsg.ElectLeadersRequest {
		r := kmsg.NewPtrElectLeadersRequest()
		r.ElectionType, r.TimeoutMillis = kind, 30_000
		t := kmsg.NewElectLeadersRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		r.Topics = []kmsg.ElectLeadersRequestTopic{t}
		return r
	}
	s.all("elect preferred leaders", same(elect(0, "read", 0, 1)))
	s.all("elect unclean leaders", same(elect(1, "read", 0, 1)))
	s.all("elect leaders of an unknown kind", same(elect(9, "read", 0)))
	s.all("elect leaders of unknown partitions", same(elect(0, "read", 0, 9)))
	s.all("elect leaders of an unknown topic", same(elect(0, "nothing", 0)))
	s.all("elect leaders of nothing", same(changed(elect(0, "read"), func(r *kmsg.ElectLeadersRequest) { r.Topics = []kmsg.ElectLeadersRequestTopic{} })))
	s.all("elect leaders of no partitions", same(elect(0, "read")))
	s.all("elect leaders of a topic twice", same(changed(elect(0, "read", 0), func(r *kmsg.ElectLeadersRequest) { r.Topics = append(r.Topics, r.Topics[0]) })))
	s.only = "read"
	s.all("elect leaders of everything", same(changed(elect(0, "read"), func(r *kmsg.ElectLeadersRequest) { r.Topics = nil })))
	s.only = ""

	reassign := func(topic string, partition int32, replicas []int32) *kmsg.AlterPartitionAssignmentsRequest {
		r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		r.TimeoutMillis = 30_000
		t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		t.Topic = topic
		p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		p.Partition, p.Replicas = partition, replicas
		t.Partitions = append(t.Partitions, p)
		r.Topics = append(r.Topics, t)
		return r
	}
	s.all("reassign to where it is", same(reassign("read", 0, []int32{1})))
	s.all("reassign to a stranger", same(reassign("read", 0, []int32{99})))
	s.all("reassign twice to a broker", same(reassign("read", 0, []int32{1, 1})))
	s.all("reassign to nobody", same(reassign("read", 0, []int32{})))
	s.all("reassign to a negative broker", same(reassign("read", 0, []int32{-1})))
	s.all("cancel reassignment", same(reassign("read", 0, nil)))
	s.all("reassign an unknown partition", same(reassign("read", 9, []int32{1})))
	s.all("reassign an unknown topic", same(reassign("nothing", 0, []int32{1})))
	s.all("cancel reassignment of an unknown topic", same(reassign("nothing", 0, nil)))
	s.all("reassign nothing", same(changed(reassign("read", 0, nil), func(r *kmsg.AlterPartitionAssignmentsRequest) { r.Topics = nil })))
	s.all("reassign to more", same(changed(reassign("read", 0, []int32{1, 99}), func(r *kmsg.AlterPartitionAssignmentsRequest) { r.AllowReplicationFactorChange = false })))
	list := kmsg.NewPtrListPartitionReassignmentsRequest()
	list.TimeoutMillis = 30_000
	s.all("reassignments", same(list))
	lt := kmsg.NewListPartitionReassignmentsRequestTopic()
	for _, topic := range []string{"read", "nothing"} {
		lt.Topic, lt.Partitions = topic, []int32{0, 9}
		s.all("reassignments of "+topic, same(&kmsg.ListPartitionReassignmentsRequest{TimeoutMillis: 30_000, Topics: []kmsg.ListPartitionReassignmentsRequestTopic{lt}}))
	}

	move := func(dir, topic string, partition int32) *kmsg.AlterReplicaLogDirsRequest {
		r := kmsg.NewPtrAlterReplicaLogDirsRequest()
		d := kmsg.NewAlterReplicaLogDirsRequestDir()
		d.Dir = dir
		t := kmsg.NewAlterReplicaLogDirsRequestDirTopic()
		t.Topic, t.Partitions = topic, []int32{partition}
		d.Topics = append(d.Topics, t)
		r.Dirs = append(r.Dirs, d)
		return r
	}
	s.all("move to an unknown directory", same(move("/nowhere", "read", 0)))
	s.all("move to a relative directory", same(move("nowhere", "read", 0)))
	s.all("move an unknown partition", same(move("/nowhere", "read", 9)))
	s.all("move an unknown topic", same(move("/nowhere", "nothing", 0)))
	s.all("move nothing", same(kmsg.NewPtrAlterReplicaLogDirsRequest()))
	where := s.must(kmsg.NewPtrDescribeLogDirsRequest(), 1).(*kmsg.DescribeLogDirsResponse).Dirs[0].Dir
	s.all("move to where it is", same(move(where, "read", 0)))

	quorum := func(topic string, partition int32) *kmsg.DescribeQuorumRequest {
		r := kmsg.NewPtrDescribeQuorumRequest()
		t := kmsg.NewDescribeQuorumRequestTopic()
		t.Topic = topic
		p := kmsg.NewDescribeQuorumRequestTopicPartition()
		p.Partition = partition
		t.Partitions = append(t.Partitions, p)
		r.Topics = append(r.Topics, t)
		return r
	}
	s.all("quorum", same(quorum("__cluster_metadata", 0)))
	s.all("quorum of another partition", same(quorum("__cluster_metadata", 1)))
	s.all("quorum of another topic", same(quorum("read", 0)))
	s.all("quorum of nothing", same(kmsg.NewPtrDescribeQuorumRequest()))

	feature := func(name string, level int16, kind int8) *kmsg.UpdateFeaturesRequest {
		r := kmsg.NewPtrUpdateFeaturesRequest()
		r.TimeoutMillis, r.ValidateOnly = 30_000, true
		f := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		f.Feature, f.MaxVersionLevel, f.UpgradeType = name, level, kind
		r.FeatureUpdates = append(r.FeatureUpdates, f)
		return r
	}
	s.all("no features", same(changed(feature("", 0, 1), func(r *kmsg.UpdateFeaturesRequest) { r.FeatureUpdates = nil })))
	s.all("unknown feature", same(feature("confused", 1, 1)), 1, 99)
	s.all("feature of a level too high", same(feature("group.version", 99, 1)), 1, 99)
	s.all("feature of a negative level", same(feature("group.version", -1, 1)), 1, 99)
	s.all("feature twice", same(changed(feature("group.version", 1, 1), func(r *kmsg.UpdateFeaturesRequest) { r.FeatureUpdates = append(r.FeatureUpdates, r.FeatureUpdates[0]) })), 1, 99)
	s.all("feature without name", same(feature("", 1, 1)), 1, 99)
	unregister := kmsg.NewPtrUnregisterBrokerRequest()
	unregister.BrokerID = 99
	s.all("unregister a stranger", same(unregister))
}

func (s *script) security() {
	acls := kmsg.NewPtrDescribeACLsRequest()
	acls.ResourceType, acls.ResourcePatternType, acls.Operation, acls.PermissionType = 1, 1, 1, 1
	s.all("permissions", same(acls))
	create := kmsg.NewPtrCreateACLsRequest()
	c := kmsg.NewCreateACLsRequestCreation()
	c.ResourceType, c.ResourceName, c.ResourcePatternType, c.Principal, c.Host, c.Operation, c.PermissionType = 2, "read", 3, "User:a", "*", 3, 3
	create.Creations = append(create.Creations, c)
	s.all("permit", same(create))
	s.all("permit nothing", same(kmsg.NewPtrCreateACLsRequest()))
	remove := kmsg.NewPtrDeleteACLsRequest()
	f := kmsg.NewDeleteACLsRequestFilter()
	f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = 1, 1, 1, 1
	remove.Filters = append(remove.Filters, f)
	s.all("permit no longer", same(remove))

	token := kmsg.NewPtrCreateDelegationTokenRequest()
	token.MaxLifetimeMillis = -1
	s.all("token", same(token))
	s.all("tokens", same(kmsg.NewPtrDescribeDelegationTokenRequest()))
	s.all("renew a token", same(&kmsg.RenewDelegationTokenRequest{HMAC: text("x"), RenewTimeMillis: -1}))
	s.all("expire a token", same(&kmsg.ExpireDelegationTokenRequest{HMAC: text("x"), ExpiryPeriodMillis: -1}))

	users := func(names ...string) *kmsg.DescribeUserSCRAMCredentialsRequest {
		r := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		for _, name := range names {
			u := kmsg.NewDescribeUserSCRAMCredentialsRequestUser()
			u.Name = name
			r.Users = append(r.Users, u)
		}
		return r
	}
	credential := func(name string, mechanism int8, iterations int32) *kmsg.AlterUserSCRAMCredentialsRequest {
		r := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
		u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
		u.Name, u.Mechanism, u.Iterations, u.Salt, u.SaltedPassword = name, mechanism, iterations, text("salt"), make([]byte, 32)
		r.Upsertions = append(r.Upsertions, u)
		return r
	}
	deletion := func(name string, mechanism int8) *kmsg.AlterUserSCRAMCredentialsRequest {
		r := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
		d := kmsg.NewAlterUserSCRAMCredentialsRequestDeletion()
		d.Name, d.Mechanism = name, mechanism
		r.Deletions = append(r.Deletions, d)
		return r
	}
	s.ask("all users", users(), 0)
	s.ask("unknown user", users("nobody"), 0)
	s.ask("a user twice", users("nobody", "nobody"), 0)
	s.ask("user without name", users(""), 0)
	s.ask("too few iterations", credential("ann", 1, 100), 0)
	s.ask("too many iterations", credential("ann", 1, 20000), 0)
	s.ask("unknown mechanism", credential("ann", 9, 4096), 0)
	s.ask("credential without name", credential("", 1, 4096), 0)
	s.ask("delete the unknown", deletion("nobody", 1), 0)
	s.ask("change no credentials", kmsg.NewPtrAlterUserSCRAMCredentialsRequest(), 0)
	made, ok := s.ask("a credential", credential("ann", 1, 4096), 0).(*kmsg.AlterUserSCRAMCredentialsResponse)
	if ok && made.Results[0].ErrorCode == 0 {
		s.until("user is known", func() bool {
			return s.must(users("ann"), 0).(*kmsg.DescribeUserSCRAMCredentialsResponse).Results[0].ErrorCode == 0
		})
	}
	s.ask("a user", users("ann"), 0)
	s.ask("delete a credential", deletion("ann", 1), 0)

	quotas := func(kind string, match kmsg.QuotasMatchType, name *string, strict bool) *kmsg.DescribeClientQuotasRequest {
		r := kmsg.NewPtrDescribeClientQuotasRequest()
		r.Strict = strict
		c := kmsg.NewDescribeClientQuotasRequestComponent()
		c.EntityType, c.MatchType, c.Match = kind, match, name
		r.Components = append(r.Components, c)
		return r
	}
	quota := func(kind string, name *string, key string, value float64, remove bool) *kmsg.AlterClientQuotasRequest {
		r := kmsg.NewPtrAlterClientQuotasRequest()
		e := kmsg.NewAlterClientQuotasRequestEntry()
		entity := kmsg.NewAlterClientQuotasRequestEntryEntity()
		entity.Type, entity.Name = kind, name
		e.Entity = append(e.Entity, entity)
		o := kmsg.NewAlterClientQuotasRequestEntryOp()
		o.Key, o.Value, o.Remove = key, value, remove
		e.Ops = append(e.Ops, o)
		r.Entries = append(r.Entries, e)
		return r
	}
	ann := kmsg.StringPtr("ann")
	s.all("all quotas", same(kmsg.NewPtrDescribeClientQuotasRequest()))
	s.all("quotas of a user", same(quotas("user", 0, ann, false)))
	s.all("quotas of the default user", same(quotas("user", 1, nil, true)))
	s.all("quotas of any client", same(quotas("client-id", 2, nil, false)))
	s.all("quotas of an unknown kind", same(quotas("planet", 0, ann, false)))
	s.all("quotas of an unknown match", same(quotas("user", 9, ann, false)))
	s.all("quotas of a user twice", same(changed(quotas("user", 0, ann, false), func(r *kmsg.DescribeClientQuotasRequest) { r.Components = append(r.Components, r.Components[0]) })))
	dry := func(r *kmsg.AlterClientQuotasRequest) *kmsg.AlterClientQuotasRequest { r.ValidateOnly = true; return r }
	s.all("quota dry", same(dry(quota("user", ann, "producer_byte_rate", 1e6, false))))
	s.all("quota of an unknown key", same(dry(quota("user", ann, "confused", 1, false))))
	s.all("quota of an unknown kind", same(dry(quota("planet", ann, "producer_byte_rate", 1, false))))
	s.all("quota of a negative rate", same(dry(quota("user", ann, "producer_byte_rate", -1, false))))
	s.all("quota of half a byte", same(dry(quota("user", ann, "producer_byte_rate", 0.5, false))))
	s.all("quota of an address that is none", same(dry(quota("ip", kmsg.StringPtr("here"), "connection_creation_rate", 1, false))))
	s.all("quota without name", same(dry(quota("user", kmsg.StringPtr(""), "producer_byte_rate", 1, false))))
	s.all("quota removed that is not there", same(dry(quota("user", ann, "producer_byte_rate", 0, true))))
	s.all("no quotas", same(kmsg.NewPtrAlterClientQuotasRequest()))

	for _, mechanism := range []string{"PLAIN", "GSSAPI", ""} {
		r := kmsg.NewPtrSASLHandshakeRequest()
		r.Mechanism = mechanism
		s.all("handshake for "+mechanism, same(r))
	}
	s.all("authenticate", same(&kmsg.SASLAuthenticateRequest{SASLAuthBytes: text("\x00a\x00b")}))
}

// awaitTransactions returns when transactions are coordinated, if they are at
// all.
func (s *script) awaitTransactions() {
	if !s.serves(int16(kmsg.DescribeTransactions), 0) {
		return
	}
	const name = "nobody"
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorType, find.CoordinatorKey = 1, name
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{name}
	s.until("transactions are served", func() bool {
		if s.must(find, 2).(*kmsg.FindCoordinatorResponse).ErrorCode != 0 {
			return false
		}
		code := s.must(describe, 0).(*kmsg.DescribeTransactionsResponse).TransactionStates[0].ErrorCode
		const loading, elsewhere = 14, 16
		return code != loading && code != elsewhere
	})
}

func (s *script) transactions() {
	s.all("transactions", same(kmsg.NewPtrListTransactionsRequest()))
	s.all("transactions of unknown states", same(changed(kmsg.NewPtrListTransactionsRequest(), func(r *kmsg.ListTransactionsRequest) { r.StateFilters = []string{"Confused", "Ongoing"} })))
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{"nobody"}
	s.ask("unknown transaction", describe, 0)
	s.ask("no transactions", kmsg.NewPtrDescribeTransactionsRequest(), 0)
	s.ask("transaction without name", changed(kmsg.NewPtrDescribeTransactionsRequest(), func(r *kmsg.DescribeTransactionsRequest) { r.TransactionalIDs = []string{""} }), 0)
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = "nobody", 5, 0, true
	s.all("end of an unknown transaction", same(end))
	offsets := kmsg.NewPtrAddOffsetsToTxnRequest()
	offsets.TransactionalID, offsets.ProducerID, offsets.Group = "nobody", 5, "g-group"
	s.all("offsets to an unknown transaction", same(offsets))
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.TransactionalID, add.ProducerID = "nobody", 5
	t := kmsg.NewAddPartitionsToTxnRequestTopic()
	t.Topic, t.Partitions = "read", []int32{0}
	add.Topics = append(add.Topics, t)
	s.all("partitions to an unknown transaction", same(add), 0, 3)
}

func (s *script) telemetry() {
	subscribe := kmsg.NewPtrGetTelemetrySubscriptionsRequest()
	s.all("subscriptions of a new client", same(subscribe))
	s.all("subscriptions of a client", same(&kmsg.GetTelemetrySubscriptionsRequest{ClientInstanceID: unknownID}))
	s.all("metrics of a wrong subscription", same(&kmsg.PushTelemetryRequest{ClientInstanceID: unknownID, SubscriptionID: 4711}))
	s.all("metrics of nobody", same(&kmsg.PushTelemetryRequest{SubscriptionID: 4711}))
}
