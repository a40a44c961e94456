package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy"
)

// row is one API key that is served.
type row struct {
	key      int16
	min, max int16 // versions accepted and advertised
	handle   func(h *Handlers, r *proxy.Request)
}

// table lists what is served, by key.
var table = []row{
	{0, 0, 13, (*Handlers).produce},
	{1, 0, 18, (*Handlers).fetch},
	{2, 0, 11, shared(decoded((*Handlers).listOffsets), (*Handlers).listOffsetsOfMany)},
	{3, 0, 13, decoded((*Handlers).metadata)},
	{8, 0, 10, waiting((*Handlers).offsetCommit)},
	{9, 0, 10, shared(waiting((*Handlers).offsetFetch), (*Handlers).offsetFetchOfMany)},
	{10, 0, 6, decoded((*Handlers).findCoordinator)},
	{11, 0, 9, waitingLong((*Handlers).joinGroup)},
	{12, 0, 4, (*Handlers).heartbeat},
	{13, 0, 5, waiting((*Handlers).leaveGroup)},
	{14, 0, 5, waitingLong((*Handlers).syncGroup)},
	{15, 0, 6, shared(waiting((*Handlers).describeGroups), (*Handlers).describeGroupsOfMany)},
	{16, 0, 5, shared(waiting((*Handlers).listGroups), (*Handlers).listGroupsOfMany)},
	{17, 0, 1, decoded((*Handlers).saslHandshake)},
	{18, 0, 5, (*Handlers).apiVersions},
	{19, 0, 7, decoded((*Handlers).createTopics)},
	{20, 0, 6, decoded((*Handlers).deleteTopics)},
	{21, 0, 2, shared(decoded((*Handlers).deleteRecords), (*Handlers).deleteRecordsOfMany)},
	{22, 0, 5, decoded((*Handlers).initProducerID)},
	{23, 0, 4, shared(decoded((*Handlers).offsetForLeaderEpoch), (*Handlers).offsetForLeaderEpochOfMany)},
	{29, 0, 3, decoded((*Handlers).describeACLs)},
	{30, 0, 3, decoded((*Handlers).createACLs)},
	{31, 0, 3, decoded((*Handlers).deleteACLs)},
	{32, 0, 4, shared(decoded((*Handlers).describeConfigs), (*Handlers).describeConfigsOfMany)},
	{33, 0, 2, decoded((*Handlers).alterConfigs)},
	{34, 0, 2, decoded((*Handlers).alterReplicaLogDirs)},
	{35, 0, 5, shared(decoded((*Handlers).describeLogDirs), (*Handlers).describeLogDirsOfMany)},
	{36, 0, 2, decoded((*Handlers).saslAuthenticate)},
	{37, 0, 3, decoded((*Handlers).createPartitions)},
	{38, 0, 3, decoded((*Handlers).createDelegationToken)},
	{39, 0, 2, decoded((*Handlers).renewDelegationToken)},
	{40, 0, 2, decoded((*Handlers).expireDelegationToken)},
	{41, 0, 3, decoded((*Handlers).describeDelegationToken)},
	{42, 0, 3, shared(waiting((*Handlers).deleteGroups), (*Handlers).deleteGroupsOfMany)},
	{43, 0, 2, decoded((*Handlers).electLeaders)},
	{44, 0, 1, decoded((*Handlers).incrementalAlterConfigs)},
	{45, 0, 1, decoded((*Handlers).alterPartitionReassignments)},
	{46, 0, 0, decoded((*Handlers).listPartitionReassignments)},
	{47, 0, 0, waiting((*Handlers).offsetDelete)},
	{48, 0, 1, decoded((*Handlers).describeClientQuotas)},
	{49, 0, 1, decoded((*Handlers).alterClientQuotas)},
	{50, 0, 0, decoded((*Handlers).describeUserScramCredentials)},
	{51, 0, 0, decoded((*Handlers).alterUserScramCredentials)},
	{55, 0, 2, decoded((*Handlers).describeQuorum)},
	{57, 0, 2, decoded((*Handlers).updateFeatures)},
	{60, 0, 2, decoded((*Handlers).describeCluster)},
	{61, 0, 0, shared(decoded((*Handlers).describeProducers), (*Handlers).describeProducersOfMany)},
	{64, 0, 0, decoded((*Handlers).unregisterBroker)},
	{65, 0, 0, decoded((*Handlers).describeTransactions)},
	{66, 0, 2, decoded((*Handlers).listTransactions)},
	{68, 0, 1, (*Handlers).consumerGroupHeartbeat},
	{69, 0, 1, shared(waiting((*Handlers).consumerGroupDescribe), (*Handlers).consumerGroupDescribeOfMany)},
	{74, 0, 1, decoded((*Handlers).listConfigResources)},
	{75, 0, 0, decoded((*Handlers).describeTopicPartitions)},
}

// index returns the rows by key.
func index(rows []row) map[int16]*row {
	byKey := make(map[int16]*row, len(rows))
	for i := range rows {
		byKey[rows[i].key] = &rows[i]
	}
	return byKey
}

func (w *row) advertised() kmsg.ApiVersionsResponseApiKey {
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = w.key, w.min, w.max
	return k
}

// inlineBytes is the longest body that is decoded on the loop.
const inlineBytes = 32 << 10

// decoded makes a row's handler of a method that takes the decoded request. The
// method runs on the loop, or on a worker if the body is long.
func decoded[Q kmsg.Request](f func(*Handlers, *proxy.Request, Q)) func(*Handlers, *proxy.Request) {
	return func(h *Handlers, r *proxy.Request) {
		handle := func() {
			q := kmsg.RequestForKey(r.Key).(Q)
			if h.decode(r, q) {
				h.withTopics(r, q, func() { f(h, r, q) })
			}
		}
		if len(r.Body) > inlineBytes {
			r.Go(handle)
		} else {
			handle()
		}
	}
}
