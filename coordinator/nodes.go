package coordinator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// Node is one running quire.
type Node struct {
	ID        int32
	Rack      string
	Listeners map[string]Endpoint // by listener name; read-only
}

// Endpoint is where clients reach a listener.
type Endpoint struct {
	Host string `json:"host"`
	Port int32  `json:"port"`
}

// nodeRecord is the value of node/{id}.
type nodeRecord struct {
	Version     int                 `json:"v"`
	Incarnation string              `json:"inc"` // of the process: tells a node from its successor
	Name        string              `json:"name"`
	Rack        string              `json:"rack,omitempty"`
	Listeners   map[string]Endpoint `json:"listeners,omitempty"`
}

// nodeList is the nodes as of one moment. It is never changed.
type nodeList struct {
	byID   map[int32]Node
	sorted []Node
}

// The node's lease is a hint for those who list nodes; nothing that is served
// depends on it.
const (
	leaseSeconds  = 10
	renewEvery    = leaseSeconds * time.Second / 3
	registerRetry = time.Second
)

// AnyNode says whether some node is registered under prefix: it serves, or has
// stopped without saying so for less than its lease. It is for those who have no
// Coordinator yet.
func AnyNode(ctx context.Context, store meta.Store, prefix string) (bool, error) {
	found := false
	_, err := store.List(ctx, keys{prefix}.nodes(), func(meta.KV) bool {
		found = true
		return false
	})
	return found, err
}

// Self is this node, its id allocated.
func (c *Coordinator) Self() Node { return c.self }

// Nodes are all live nodes, this one included, by id. The slice is shared: do not change it.
func (c *Coordinator) Nodes() []Node { return c.nodes.Load().sorted }

// Node returns a live node by id.
func (c *Coordinator) Node(id int32) (Node, bool) {
	n, ok := c.nodes.Load().byID[id]
	return n, ok
}

// openNodes finds this node's id, reads the others, registers and follows.
func (c *Coordinator) openNodes(ctx context.Context) error {
	c.self = c.config.Node
	if c.self.ID < 0 {
		id, err := c.allocateNodeID(ctx)
		if err != nil {
			return err
		}
		c.self.ID = id
	}
	if c.config.Advertise != nil {
		listeners, err := c.config.Advertise(c.self.ID)
		if err != nil {
			return err
		}
		c.self.Listeners = listeners
	}
	c.nodes.Store(c.newNodeList(nil))
	r := &registration{c: c, incarnation: encodeID(newID())}
	if err := r.register(ctx); err != nil {
		return err
	}
	revision, err := c.listNodes(ctx)
	if err != nil {
		r.end()
		return err
	}
	c.background.Add(2)
	go func() {
		defer c.background.Done()
		r.renew()
	}()
	go func() {
		defer c.background.Done()
		c.follow(c.keys.nodes(), revision, c.nodeChanged, c.listNodes)
	}()
	c.registration = r
	return nil
}

// leave takes this node off the list.
func (c *Coordinator) leave() error {
	if c.registration == nil {
		return nil
	}
	return c.registration.end()
}

// allocateNodeID returns the id that belongs to the node's name. The first name gets 1.
func (c *Coordinator) allocateNodeID(ctx context.Context) (int32, error) {
	named, next := c.keys.nodeID(c.config.NodeName), c.keys.nextNodeID()
	for {
		id, _, err := c.getNodeID(ctx, named, 0)
		if err != nil || id != 0 {
			return id, err
		}
		id, modified, err := c.getNodeID(ctx, next, 1)
		if err != nil {
			return 0, err
		}
		_, ok, err := c.meta.Txn(ctx, []meta.Cond{{Key: named}, {Key: next, Modified: modified}}, []meta.Op{
			meta.Put(named, []byte(strconv.Itoa(int(id)))),
			meta.Put(next, []byte(strconv.Itoa(int(id)+1))),
		})
		switch {
		case err == nil && ok:
			return id, nil
		case err != nil && !retriable(ctx, err):
			return 0, unavailable("id of node "+c.config.NodeName, err)
		}
	}
}

func (c *Coordinator) getNodeID(ctx context.Context, key string, absent int32) (int32, meta.Revision, error) {
	kv, err := c.meta.Get(ctx, key)
	if errors.Is(err, meta.ErrNotFound) {
		return absent, 0, nil
	}
	if err != nil {
		return 0, 0, unavailable("id of node "+c.config.NodeName, err)
	}
	id, err := strconv.ParseInt(string(kv.Value), 10, 32)
	if err != nil || id < 1 {
		return 0, 0, fmt.Errorf("metadata key %s: %q is not a node id", key, kv.Value)
	}
	return int32(id), kv.Modified, nil
}

// registration keeps this node on the list. Its fields belong to whoever opens,
// then to the renewing goroutine, then to Close.
type registration struct {
	c           *Coordinator
	incarnation string
	lease       meta.LeaseID
}

// register puts node/{id} on a new lease. It replaces what is there: after a
// crash that is this node's own record, whose lease has not ended yet. Of two
// processes with one name the later is listed.
func (r *registration) register(ctx context.Context) error {
	self := r.c.self
	value, err := json.Marshal(nodeRecord{Version: 1, Incarnation: r.incarnation, Name: r.c.config.NodeName, Rack: self.Rack, Listeners: self.Listeners})
	if err != nil {
		return fmt.Errorf("node %d: %w", self.ID, err)
	}
	subject := fmt.Sprintf("registration of node %d", self.ID)
	lease, err := r.c.meta.Grant(ctx, leaseSeconds)
	if err != nil {
		return unavailable(subject, err)
	}
	op := meta.Op{Key: r.c.keys.node(self.ID), Value: value, Lease: lease}
	if _, _, err := r.c.meta.Txn(ctx, nil, []meta.Op{op}); err != nil && !retriable(ctx, err) {
		return unavailable(subject, err)
	}
	r.lease = lease
	return nil
}

// renew keeps the lease alive, or takes a new one, until the coordinator closes.
func (r *registration) renew() {
	wait := renewEvery
	for {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-r.c.ctx.Done():
			t.Stop()
			return
		}
		wait = renewEvery
		err := r.renewOnce()
		if err != nil && r.c.ctx.Err() == nil {
			r.c.logger.Warn("this node's registration was not renewed", zap.Int32("node", r.c.self.ID), zap.Error(err))
			wait = registerRetry
		}
	}
}

func (r *registration) renewOnce() error {
	ctx, cancel := context.WithTimeout(r.c.ctx, renewEvery)
	defer cancel()
	_, err := r.c.meta.KeepAlive(ctx, r.lease)
	if errors.Is(err, meta.ErrLeaseNotFound) {
		return r.register(ctx)
	}
	return err
}

// end gives the lease back, which takes the node off the list.
func (r *registration) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	err := r.c.meta.Revoke(ctx, r.lease)
	if err == nil || errors.Is(err, meta.ErrLeaseNotFound) {
		return nil
	}
	return unavailable(fmt.Sprintf("node %d leaving", r.c.self.ID), err)
}

// newNodeList makes a list of the nodes given and this one.
func (c *Coordinator) newNodeList(byID map[int32]Node) *nodeList {
	if byID == nil {
		byID = make(map[int32]Node)
	}
	byID[c.self.ID] = c.self
	return &nodeList{byID: byID, sorted: slices.SortedFunc(maps.Values(byID), func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })}
}

// listNodes replaces the list by what the metadata store holds.
func (c *Coordinator) listNodes(ctx context.Context) (meta.Revision, error) {
	byID := make(map[int32]Node)
	revision, err := c.meta.List(ctx, c.keys.nodes(), func(kv meta.KV) bool {
		if n, ok := c.decodeNode(kv); ok {
			byID[n.ID] = n
		}
		return true
	})
	if err != nil {
		return 0, unavailable("nodes", err)
	}
	c.nodes.Store(c.newNodeList(byID))
	return revision, nil
}

// nodeChanged applies what a watch saw.
func (c *Coordinator) nodeChanged(e meta.Events) {
	byID := maps.Clone(c.nodes.Load().byID)
	for _, e := range e.Events {
		if !e.Deleted {
			if n, ok := c.decodeNode(e.KV); ok {
				byID[n.ID] = n
			}
		} else if id, ok := c.nodeIDOf(e.Key); ok {
			delete(byID, id)
		}
	}
	c.nodes.Store(c.newNodeList(byID))
}

func (c *Coordinator) nodeIDOf(key string) (int32, bool) {
	id, err := strconv.ParseInt(strings.TrimPrefix(key, c.keys.nodes()), 10, 32)
	return int32(id), err == nil
}

// decodeNode reads a node's record. One that cannot be read is left out: others
// do not depend on it.
func (c *Coordinator) decodeNode(kv meta.KV) (Node, bool) {
	var r nodeRecord
	id, ok := c.nodeIDOf(kv.Key)
	if err := json.Unmarshal(kv.Value, &r); err != nil || !ok {
		c.logger.Error("node record is not readable", zap.String("key", kv.Key), zap.Error(err))
		return Node{}, false
	}
	return Node{ID: id, Rack: r.Rack, Listeners: r.Listeners}, true
}
