package api

import (
	"slices"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/storage"
)

// What clients see of the nodes depends on the listener by which they come. Where it
// is advertised by node they see every node and who leads what. Where one address
// stands for all they see one node that leads and coordinates everything, and a spare one
// at the same address that does nothing. Without it a client that knows one node would
// know none while its connection is away: Java's from 4.0 on then forgets its metadata and
// begins anew (KIP-899), and the leader of a classic group calls for a rebalance since
// the topics look changed.

// virtualNode is the id of the one node, and spareNode that of the other. Nodes have
// ids from 1 on, and from MaxInt32 down Java counts its connections to coordinators.
const (
	virtualNode = 0
	spareNode   = 1_000_000_000
)

// proxied says whether the clients of a listener know one node only.
func (h *Handlers) proxied(listener string) bool {
	return h.c.ProxyListeners != nil && h.c.ProxyListeners(listener)
}

// knownAs says whether clients of a listener may mean this node by id.
func (h *Handlers) knownAs(listener string, id int32) bool {
	return id == h.idFor(listener) || id == spareNode && h.proxied(listener)
}

// idFor is this node's id as the clients of a listener know it.
func (h *Handlers) idFor(listener string) int32 {
	if h.proxied(listener) {
		return virtualNode
	}
	return h.self
}

// broker is a live node as clients of one listener see it.
type broker struct {
	id   int32
	host string
	port int32
	rack *string
}

// brokers returns the live nodes that have the listener, by id, and the one
// to send admin requests to: any would do, the first is the same for everybody.
func (h *Handlers) brokers(listener string) (brokers []broker, controller int32) {
	if h.proxied(listener) {
		if e, ok := h.virtualEndpoint(listener); ok {
			return []broker{{id: virtualNode, host: e.Host, port: e.Port}, {id: spareNode, host: e.Host, port: e.Port}}, virtualNode
		}
		return nil, -1
	}
	nodes := h.c.Coordinator.Nodes()
	brokers = make([]broker, 0, len(nodes))
	controller = -1
	for i := range nodes {
		e, ok := nodes[i].Listeners[listener]
		if !ok || h.drained(listener, &nodes[i], nodes) {
			continue
		}
		b := broker{id: nodes[i].ID, host: e.Host, port: e.Port}
		if nodes[i].Rack != "" {
			b.rack = &nodes[i].Rack
		}
		brokers = append(brokers, b)
		if controller == -1 || b.id < controller {
			controller = b.id
		}
	}
	return brokers, controller
}

// drained says that a node has given away all that it served, and others are there: it
// is about to end, or nothing is to be asked of it, so clients learn of it no more.
func (h *Handlers) drained(listener string, n *coordinator.Node, nodes []coordinator.Node) bool {
	if !n.Draining {
		return false
	}
	stays := func(other coordinator.Node) bool {
		_, ok := other.Listeners[listener]
		return ok && !other.Draining
	}
	if !slices.ContainsFunc(nodes, stays) {
		return false
	}
	for slot := range coordinator.NumSlots {
		if h.router.Route(slot).Node == n.ID {
			return false
		}
	}
	return true
}

// virtualEndpoint is where the one node of a listener is reached: what this node
// advertises, or the first that advertises anything, as all of them do the same.
func (h *Handlers) virtualEndpoint(listener string) (coordinator.Endpoint, bool) {
	if e, ok := h.c.Coordinator.Self().Listeners[listener]; ok {
		return e, true
	}
	nodes := h.c.Coordinator.Nodes()
	for i := range nodes {
		if e, ok := nodes[i].Listeners[listener]; ok {
			return e, true
		}
	}
	return coordinator.Endpoint{}, false
}

// leader returns the node that leads a partition for clients of a listener, -1 if
// none is known.
func (h *Handlers) leader(listener string, t *coordinator.Topic, partition int32) int32 {
	switch {
	case h.proxied(listener):
		return virtualNode
	case h.c.Peers == nil:
		return h.self
	}
	return h.router.Route(coordinator.PartitionSlot(t.ID, partition)).Node
}

// partitionState is what Metadata and DescribeTopicPartitions tell of a partition.
type partitionState struct {
	code     protocol.Code
	leader   int32 // -1 with an error
	epoch    int32
	replicas []int32 // the leader first
}

// partitionState describes a partition to clients of a listener that know brokers. As
// replicas it names the leader and, as far as the topic asks for more, other
// live nodes: each of them can serve the partition once the leader is gone.
func (h *Handlers) partitionState(listener string, t *coordinator.Topic, partition int32, brokers []broker) partitionState {
	s := partitionState{leader: h.leader(listener, t, partition)}
	s.epoch = h.c.Store.Epoch(storage.LogID{Topic: t.ID, Partition: partition})
	n := min(max(int(t.ReplicationFactor), 1), max(len(brokers), 1))
	s.replicas = make([]int32, 0, n)
	if s.leader >= 0 {
		s.replicas = append(s.replicas, s.leader)
	}
	reachable := false
	for i := range brokers {
		// Start at another node for each partition, to spread the names.
		b := &brokers[(i+int(partition))%len(brokers)]
		if b.id == s.leader {
			reachable = true
		} else if len(s.replicas) < n {
			s.replicas = append(s.replicas, b.id)
		}
	}
	switch _, live := h.c.Coordinator.Node(s.leader); {
	case reachable:
	case s.leader >= 0 && (live || h.proxied(listener)):
		s.code, s.leader = protocol.ListenerNotFound, -1
	default:
		s.code, s.leader = protocol.LeaderNotAvailable, -1
	}
	return s
}

// leaderHint tells clients of a listener who leads a partition (KIP-951).
func (h *Handlers) leaderHint(listener string, t *coordinator.Topic, partition int32) protocol.Leader {
	return protocol.Leader{
		Known:  true,
		NodeID: h.leader(listener, t, partition),
		Epoch:  h.c.Store.Epoch(storage.LogID{Topic: t.ID, Partition: partition}),
	}
}

// addNode appends a node's endpoint to nodes unless it is there or unknown.
func (h *Handlers) addNode(nodes []protocol.Node, id int32, listener string) []protocol.Node {
	for i := range nodes {
		if nodes[i].ID == id {
			return nodes
		}
	}
	brokers, _ := h.brokers(listener)
	for _, b := range brokers {
		if b.id == id {
			n := protocol.Node{ID: b.id, Host: b.host, Port: b.port}
			if b.rack != nil {
				n.Rack = *b.rack
			}
			return append(nodes, n)
		}
	}
	return nodes
}
