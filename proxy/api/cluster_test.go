package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/meta/mem"
)

// proxyName is the listener of a cluster's nodes whose clients are given one
// address for everything; listenerName is the one whose clients know nodes.
const proxyName = "PROXY"

// clusterWorkers are those of each of a node's servers.
const clusterWorkers = 8

var clusterSecret = []byte("what all nodes of a test know of")

// cluster is some whole nodes in this process, over one metadata store and one
// ledger tier in memory. What they forward goes over real sockets.
type cluster struct {
	t     testing.TB
	meta  *mem.Store
	tier  *memTier
	mu    sync.Mutex
	nodes []*clusterNode // by id, from 1 on
}

// clusterNode is one of them. Its server's clients know nodes.
type clusterNode struct {
	*server
	c      *cluster
	id     int32
	links  *proxy.Server // where other nodes come
	linked chan error
	peers  *forward.Peers
	proxy  string // address of the other listener
	gone   bool
}

// newCluster starts nodes, and waits until each serves its share of the slots.
func newCluster(t testing.TB, nodes int, change ...func(*options)) *cluster {
	t.Helper()
	closed := watchBuffers(t)
	c := &cluster{t: t, meta: mem.New(nil), tier: newMemTier()}
	t.Cleanup(func() {
		c.tier.release()
		for _, n := range c.nodes {
			n.end(true)
		}
		check(t, c.tier.Close())
		check(t, c.meta.Close())
		closed()
	})
	for range nodes {
		c.add(change...)
	}
	c.settle()
	return c
}

// add starts one more node.
func (c *cluster) add(change ...func(*options)) *clusterNode {
	t := c.t
	t.Helper()
	o := options{}
	o.config.AutoCreateTopics = true
	o.coord.Groups.Group.ConsumerHeartbeatInterval = 100 * time.Millisecond
	o.coord.Groups.Group.Upgrade, o.coord.Groups.Group.Downgrade = true, true
	o.coord.BalanceDelay, o.coord.BalanceSlotsPerSecond = time.Nanosecond, 1_000_000
	for _, f := range change {
		f(&o)
	}
	id := int32(len(c.nodes) + 1)
	n := &clusterNode{c: c, id: id, server: &server{t: t, meta: c.meta, tier: c.tier, options: o}}
	late := new(lateHandler)
	var err error
	n.server.proxy, err = proxy.New(proxy.Config{
		Listeners: []proxy.Listener{{Name: listenerName, Address: "127.0.0.1:0"}, {Name: proxyName, Address: "127.0.0.1:0"}},
		Handler:   late, Loops: 1, Workers: clusterWorkers,
	})
	check(t, err)
	n.addr, n.proxy = n.server.proxy.Addr(listenerName).String(), n.server.proxy.Addr(proxyName).String()

	var routes lateRoutes
	o.store.Tier, o.store.Meta, o.store.Prefix = c.tier, c.meta, "quire/test/"
	o.store.Serves = routes.serves
	o.store.Slot = logSlot
	n.store, err = storage.Open(t.Context(), o.store)
	check(t, err)

	if o.coord.Meta == nil {
		o.coord.Meta = c.meta
	}
	o.coord.Prefix, o.coord.NodeName = "quire/test/", fmt.Sprint("node", id)
	o.coord.Node = coordinator.Node{ID: id, Listeners: map[string]coordinator.Endpoint{
		listenerName: endpoint(t, n.addr), proxyName: endpoint(t, n.proxy),
	}}
	o.coord.OnTopicChange = func(topic *coordinator.Topic, deleted bool) {
		if deleted {
			n.store.CloseTopic(topic.ID)
		} else {
			n.store.SetConfigs(topic.ID, topic.LogConfig)
		}
	}
	n.coord, err = coordinator.Open(context.Background(), o.coord)
	check(t, err)
	routes.set(n.coord)
	n.coord.Hold(n.store)

	self := forward.Identity{Cluster: "test", Node: id, Incarnation: n.coord.Self().Incarnation}
	n.links, err = proxy.New(proxy.Config{
		Listeners: []proxy.Listener{{Name: "PEER", Address: "127.0.0.1:0", Peer: &proxy.PeerAuth{Self: self, Secret: clusterSecret}}},
		Handler:   late, Loops: 1, Workers: clusterWorkers,
	})
	check(t, err)
	n.peers, err = forward.New(forward.Config{Self: self, Secret: clusterSecret, Nodes: c.peer})
	check(t, err)

	o.config.Coordinator, o.config.Store, o.config.Peers = n.coord, n.store, n.peers
	if o.way != nil {
		o.config.Peers = o.way(n.peers)
	}
	o.config.ProxyListeners = func(listener string) bool { return listener == proxyName }
	n.handler = New(o.config)
	late.Handlers = n.handler
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	n.served, n.linked = make(chan error, 1), make(chan error, 1)
	go func() { n.served <- n.server.proxy.Serve() }()
	go func() { n.linked <- n.links.Serve() }()
	return n
}

func endpoint(t testing.TB, addr string) coordinator.Endpoint {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	check(t, err)
	number, err := strconv.Atoi(port)
	check(t, err)
	return coordinator.Endpoint{Host: host, Port: int32(number)}
}

// peer is forward.Config's Nodes.
func (c *cluster) peer(id int32) (address, incarnation string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id < 1 || int(id) > len(c.nodes) || c.nodes[id-1].gone {
		return "", "", false
	}
	n := c.nodes[id-1]
	return n.links.Addr("PEER").String(), n.coord.Self().Incarnation, true
}

func logSlot(id storage.LogID) int { return coordinator.PartitionSlot(id.Topic, id.Partition) }

// lateRoutes are those of a coordinator that is opened after the store.
type lateRoutes struct {
	coord atomic.Pointer[coordinator.Coordinator]
}

func (r *lateRoutes) set(c *coordinator.Coordinator) { r.coord.Store(c) }

func (r *lateRoutes) serves(id storage.LogID) bool {
	c := r.coord.Load()
	return c != nil && c.Route(logSlot(id)).Here
}

// live are the nodes that have not ended.
func (c *cluster) live() (nodes []*clusterNode) {
	for _, n := range c.nodes {
		if !n.gone {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// settle waits until every slot is served by the node that all believe it is and that is
// to have it, so that none moves any more.
func (c *cluster) settle() {
	c.t.Helper()
	until(c.t, "every slot is served by the one that all take for its owner", func() bool {
		for _, n := range c.live() {
			if len(n.coord.Nodes()) != len(c.live()) {
				return false
			}
		}
		for slot := range coordinator.NumSlots {
			owner := int32(-1)
			for _, n := range c.live() {
				r := n.coord.Route(slot)
				if r.Node < 1 || owner != -1 && r.Node != owner || r.Here != (r.Node == n.id) {
					return false
				}
				if _, wanted := n.coord.Placement(slot); wanted != r.Node {
					return false
				}
				owner = r.Node
			}
		}
		return true
	})
}

// owner is the node that serves a slot, and other is one that does not.
func (c *cluster) owner(slot int) *clusterNode {
	return c.nodes[c.live()[0].coord.Route(slot).Node-1]
}

func (c *cluster) other(slot int) *clusterNode {
	owner := c.owner(slot)
	for _, n := range c.live() {
		if n != owner {
			return n
		}
	}
	c.t.Fatal("there is no other node")
	return nil
}

// move has a slot served by another node, and waits until all know.
func (c *cluster) move(slot int, to *clusterNode) {
	c.t.Helper()
	check(c.t, to.coord.Override(c.t.Context(), slot, to.id))
	until(c.t, "the slot has moved", func() bool {
		for _, n := range c.live() {
			if r := n.coord.Route(slot); r.Node != to.id || r.Here != (n == to) {
				return false
			}
		}
		return true
	})
}

// groupOf is a group id of a slot that the node serves, different for each number.
func (n *clusterNode) groupOf(number int) string {
	for i := 0; ; i++ {
		id := fmt.Sprintf("group %d-%d-%d", n.id, number, i)
		if n.coord.Route(coordinator.SlotOf(id)).Here {
			return id
		}
	}
}

// end stops a node: in good order, or as its death is for the others, who
// see its connections end and its registration too.
func (n *clusterNode) end(gracefully bool) {
	t := n.t
	t.Helper()
	if n.gone {
		return
	}
	n.c.mu.Lock()
	n.gone = true
	n.c.mu.Unlock()
	if gracefully {
		check(t, n.server.proxy.Shutdown(context.Background()))
		check(t, n.links.Shutdown(context.Background()))
	} else {
		check(t, n.links.Close())
		check(t, n.server.proxy.Close())
	}
	for _, served := range []chan error{n.served, n.linked} {
		if err := <-served; !errors.Is(err, proxy.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	}
	check(t, n.peers.Close(context.Background()))
	n.handler.Close()
	check(t, n.coord.Close())
	check(t, n.store.Close(context.Background()))
}

// dialProxy connects to the listener of one address for everything.
func (n *clusterNode) dialProxy() *client {
	n.t.Helper()
	return (&server{t: n.t, addr: n.proxy}).dial()
}
