package coordinator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// Node is one running quire.
type Node struct {
	ID          int32
	Name        string              // stable: its id belongs to it
	Incarnation string              // of the process: tells a node from its successor
	Folder      string              // id of its data folder, which one process at a time has; "": not known
	Rack        string              //
	Listeners   map[string]Endpoint // by listener name; read-only
	Peer        Endpoint            // where other nodes send requests; without a host: nowhere
	Weight      int32               // its share of the slots, in proportion to the others' weights; 0: DefaultWeight
	Version     string              // of the program
	LeaseTTL    time.Duration       // of the registration, of other nodes only; 0: not known
	StartedMs   int64               // when the process was registered first, Unix time; 0: not known
	// FeatureLevel is what the program knows of the features that all nodes of a
	// cluster must know before one uses them.
	FeatureLevel int32
	// Draining: it gives its slots to others and takes none, until it is told
	// otherwise or restarts.
	Draining bool
}

// DefaultWeight is the weight of a node that names none.
const DefaultWeight = 100

// Endpoint is where clients reach a listener.
type Endpoint struct {
	Host string `json:"host"`
	Port int32  `json:"port"`
}

// String is host:port, as net.Dial takes it.
func (e Endpoint) String() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// nodeRecord is the value of node/{id}.
type nodeRecord struct {
	Version      int                 `json:"v"`
	Incarnation  string              `json:"inc"`
	Name         string              `json:"name"`
	Folder       string              `json:"folder,omitempty"`
	Rack         string              `json:"rack,omitempty"`
	Listeners    map[string]Endpoint `json:"listeners,omitempty"`
	Peer         *Endpoint           `json:"peer,omitempty"`
	Weight       int32               `json:"weight,omitempty"`
	Program      string              `json:"program,omitempty"`
	FeatureLevel int32               `json:"features,omitempty"`
	Draining     bool                `json:"draining,omitempty"`
	StartedMs    int64               `json:"started_ms,omitempty"`
	TTLSeconds   int64               `json:"ttl,omitempty"` // of its lease
}

const nodeRecordVersion = 1

func (n *Node) record(ttlSeconds int64) nodeRecord {
	r := nodeRecord{
		Version: nodeRecordVersion, Incarnation: n.Incarnation, Name: n.Name, Folder: n.Folder, Rack: n.Rack, Listeners: n.Listeners,
		Weight: n.Weight, Program: n.Version, FeatureLevel: n.FeatureLevel, Draining: n.Draining, StartedMs: n.StartedMs, TTLSeconds: ttlSeconds,
	}
	if n.Peer.Host != "" {
		r.Peer = &n.Peer
	}
	return r
}

func (r *nodeRecord) node(id int32) Node {
	n := Node{
		ID: id, Name: r.Name, Incarnation: r.Incarnation, Folder: r.Folder, Rack: r.Rack, Listeners: r.Listeners,
		Weight: r.Weight, Version: r.Program, FeatureLevel: max(r.FeatureLevel, 1), Draining: r.Draining, StartedMs: r.StartedMs,
		LeaseTTL: time.Duration(r.TTLSeconds) * time.Second,
	}
	if n.Weight <= 0 {
		n.Weight = DefaultWeight
	}
	if r.Peer != nil {
		n.Peer = *r.Peer
	}
	return n
}

func (r nodeRecord) encode() []byte {
	value, err := json.Marshal(r)
	if err != nil {
		// Strings and numbers always have a JSON form.
		panic(err)
	}
	return value
}

// listedNode is a node and the revision of its record. This node's own is 0
// while it is not registered: its lease has ended, and it is about to have another.
type listedNode struct {
	Node
	revision meta.Revision
}

// nodeList is the nodes as of one revision. It is never changed.
type nodeList struct {
	byID     map[int32]listedNode
	sorted   []Node
	revision meta.Revision
}

// Self is this node, its id allocated.
func (c *Coordinator) Self() Node { return c.nodes.Load().byID[c.self.ID].Node }

// Nodes are all live nodes, this one included, by id. The slice is shared: do not change it.
func (c *Coordinator) Nodes() []Node { return c.nodes.Load().sorted }

// Node returns a live node by id.
func (c *Coordinator) Node(id int32) (Node, bool) {
	n, ok := c.nodes.Load().byID[id]
	return n.Node, ok
}

// openNodes finds this node's id, registers, reads the others and follows.
func (c *Coordinator) openNodes(ctx context.Context) error {
	c.self = c.config.Node
	c.self.Name, c.self.Incarnation, c.self.Draining = c.config.NodeName, encodeID(newID()), false
	c.self.StartedMs = time.Now().UnixMilli()
	if c.self.Weight <= 0 {
		c.self.Weight = DefaultWeight
	}
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
	c.nodes.Store(c.newNodeList(map[int32]listedNode{c.self.ID: {Node: c.self}}, 0))
	r := newRegistration(c)
	if err := r.begin(ctx); err != nil {
		return err
	}
	c.registration = r
	revision, err := c.listNodes(ctx)
	if err != nil {
		return err
	}
	c.background.Add(2)
	go func() {
		defer c.background.Done()
		r.renew()
	}()
	go func() {
		defer c.background.Done()
		c.follow(followed{prefix: c.keys.nodes(), after: revision, changed: applied(c.nodesChanged), list: c.listNodes, every: relistEvery})
	}()
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

// newNodeList makes a list of the nodes given.
func (c *Coordinator) newNodeList(byID map[int32]listedNode, at meta.Revision) *nodeList {
	l := &nodeList{byID: byID, sorted: make([]Node, 0, len(byID)), revision: at}
	for n := range maps.Values(byID) {
		l.sorted = append(l.sorted, n.Node)
	}
	slices.SortFunc(l.sorted, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return l
}

// listNodes replaces the list by what the metadata store holds.
func (c *Coordinator) listNodes(ctx context.Context) (meta.Revision, error) {
	var found []meta.Event
	revision, err := c.meta.List(ctx, c.keys.nodes(), func(kv meta.KV) bool {
		found = append(found, meta.Event{KV: kv})
		return true
	})
	if err != nil {
		return 0, unavailable("nodes", err)
	}
	c.updateNodes(true, found, revision)
	return revision, nil
}

// nodesChanged applies what a watch saw.
func (c *Coordinator) nodesChanged(e meta.Events) {
	c.updateNodes(false, e.Events, e.Revision)
}

// updateNodes makes the list of a revision: all there are, or the older list with
// changes. This node is always on it: as it was if its record is gone, which it
// notices and repairs, or if another process has taken its place, which is the end of it.
func (c *Coordinator) updateNodes(all bool, changes []meta.Event, at meta.Revision) {
	c.nodesMu.Lock()
	old := c.nodes.Load()
	if at <= old.revision {
		// A listing and the watch have met: this is the older of the two.
		c.nodesMu.Unlock()
		return
	}
	byID := make(map[int32]listedNode, len(old.byID)+len(changes))
	if !all {
		maps.Copy(byID, old.byID)
	}
	for _, e := range changes {
		if e.Deleted {
			if id, ok := c.nodeIDOf(e.Key); ok {
				delete(byID, id)
			}
		} else if n, ok := c.decodeNode(e.KV); ok {
			byID[n.ID] = n
		}
	}
	self, registered := byID[c.self.ID]
	replaced := registered && self.Incarnation != c.self.Incarnation
	if !registered || replaced {
		self = old.byID[c.self.ID]
		self.revision = 0
		byID[c.self.ID] = self
	}
	c.nodes.Store(c.newNodeList(byID, at))
	c.nodesMu.Unlock()
	switch r := c.registration; {
	case r == nil:
	case replaced:
		r.replaced(at)
	case !registered:
		r.gone()
	}
	c.slots.nodesChanged()
}

func (c *Coordinator) nodeIDOf(key string) (int32, bool) {
	id, err := strconv.ParseInt(strings.TrimPrefix(key, c.keys.nodes()), 10, 32)
	return int32(id), err == nil
}

// decodeNode reads a node's record. One that cannot be read is left out: others
// do not depend on it.
func (c *Coordinator) decodeNode(kv meta.KV) (listedNode, bool) {
	var r nodeRecord
	id, ok := c.nodeIDOf(kv.Key)
	if err := json.Unmarshal(kv.Value, &r); err != nil || !ok {
		c.logger.Error("node record is not readable", zap.String("key", kv.Key), zap.Error(err))
		return listedNode{}, false
	}
	return listedNode{Node: r.node(id), revision: kv.Modified}, true
}
