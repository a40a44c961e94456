package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator"
)

// nodesReport is the answer to GET /nodes: the cluster as the node asked sees it.
type nodesReport struct {
	Cluster      string       `json:"cluster"`
	FeatureLevel int32        `json:"featureLevel"`
	Asked        int32        `json:"asked"` // id of the node that answers
	Nodes        []nodeReport `json:"nodes"`
	// Unowned are the slots whose node is gone and which nobody has taken yet, Moving
	// those that another node is to have than has them now.
	Unowned int `json:"unownedSlots"`
	Moving  int `json:"movingSlots"`
}

// nodeReport is one live node.
type nodeReport struct {
	ID           int32             `json:"id"`
	Name         string            `json:"name"`
	State        string            `json:"state"`
	Slots        int               `json:"slots"`
	Weight       int32             `json:"weight"`
	Version      string            `json:"version"`
	FeatureLevel int32             `json:"featureLevel"`
	Rack         string            `json:"rack,omitempty"`
	Listeners    map[string]string `json:"listeners"`
	Peer         string            `json:"peer,omitempty"`
	Folder       string            `json:"folder,omitempty"`
	StartedMs    int64             `json:"startedMs,omitempty"`
}

// States of a node.
const (
	stateServing  = "serving"
	stateDraining = "draining" // gives its slots to others and takes none
	stateDrained  = "drained"  // has given the last
)

// reportNodes says who is there and has what.
func (n *node) reportNodes() nodesReport {
	c := n.coordinator
	r := nodesReport{Cluster: c.ClusterID(), FeatureLevel: c.FeatureLevel(), Asked: c.Self().ID, Nodes: []nodeReport{}}
	slots := map[int32]int{}
	for slot := range coordinator.NumSlots {
		at, wanted := c.Placement(slot)
		slots[at]++
		if at >= 0 && wanted >= 0 && wanted != at {
			r.Moving++
		}
	}
	for _, of := range c.Nodes() {
		report := nodeReport{
			ID: of.ID, Name: of.Name, State: stateServing, Slots: slots[of.ID], Weight: of.Weight, Version: of.Version,
			FeatureLevel: of.FeatureLevel, Rack: of.Rack, Listeners: map[string]string{}, Folder: of.Folder, StartedMs: of.StartedMs,
		}
		switch {
		case of.Draining && report.Slots == 0:
			report.State = stateDrained
		case of.Draining:
			report.State = stateDraining
		}
		for name, e := range of.Listeners {
			report.Listeners[name] = e.String()
		}
		if of.Peer.Host != "" {
			report.Peer = of.Peer.String()
		}
		r.Nodes = append(r.Nodes, report)
		delete(slots, of.ID)
	}
	for _, n := range slots {
		r.Unowned += n
	}
	return r
}

// self names the node that is asked where an id or a name would stand.
const self = "self"

// find returns the live node of an id or a name.
func (r *nodesReport) find(node string) (nodeReport, bool) {
	i := slices.IndexFunc(r.Nodes, func(n nodeReport) bool {
		return n.Name == node || strconv.Itoa(int(n.ID)) == node || node == self && n.ID == r.Asked
	})
	if i < 0 {
		return nodeReport{}, false
	}
	return r.Nodes[i], true
}

// adminError is an answer that is not 200: its text is one line.
type adminError struct {
	status int
	text   string
}

func (e *adminError) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &adminError{status, fmt.Sprintf(format, args...)}
}

// answerJSON makes a handler of what returns a value or an error.
func answerJSON(f func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		v, err := f(r)
		if err != nil {
			status := http.StatusInternalServerError
			var refused *adminError
			switch {
			case errors.As(err, &refused):
				status = refused.status
			case errors.Is(err, coordinator.ErrUnavailable):
				status = http.StatusServiceUnavailable
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(status)
			fmt.Fprintln(w, oneLine(err.Error()))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(v) // who is gone needs no answer
	}
}

// handleNodes adds what concerns nodes to the admin listener: any node answers for all.
func (n *node) handleNodes(mux *http.ServeMux) {
	mux.HandleFunc("GET /nodes", answerJSON(func(*http.Request) (any, error) { return n.reportNodes(), nil }))
	mux.HandleFunc("POST /nodes/{node}/drain", answerJSON(func(r *http.Request) (any, error) { return n.setDraining(r, true) }))
	mux.HandleFunc("POST /nodes/{node}/undrain", answerJSON(func(r *http.Request) (any, error) { return n.setDraining(r, false) }))
	mux.HandleFunc("POST /slots/move", answerJSON(n.moveSlot))
	mux.HandleFunc("POST /feature-level", answerJSON(n.raiseLevel))
}

// setDraining answers POST /nodes/{id or name}/drain and undrain. The node begins when it
// learns of it, which this does not wait for.
func (n *node) setDraining(r *http.Request, draining bool) (any, error) {
	nodes := n.reportNodes()
	node, ok := nodes.find(r.PathValue("node"))
	if !ok {
		return nil, refuse(http.StatusNotFound, "there is no live node %.64q", r.PathValue("node"))
	}
	others := slices.ContainsFunc(nodes.Nodes, func(other nodeReport) bool { return other.ID != node.ID && other.State == stateServing })
	if draining && !others {
		return nil, refuse(http.StatusConflict, "no other node could take the slots of node %d (%s)", node.ID, node.Name)
	}
	if err := n.coordinator.SetDraining(r.Context(), node.ID, draining); err != nil {
		return nil, err
	}
	n.log.Info("a node's draining was asked for", zap.Int32("node", node.ID), zap.String("name", node.Name), zap.Bool("draining", draining))
	return node, nil
}

// slotMove is the answer to POST /slots/move.
type slotMove struct {
	Slot int   `json:"slot"`
	From int32 `json:"from"`
	To   int32 `json:"to"` // -1: whom the weights say
}

// moveSlot answers POST /slots/move?node=ID and slot=N, topic=NAME&partition=N or group=NAME:
// it says by hand who serves a slot. Without a node the weights decide again.
func (n *node) moveSlot(r *http.Request) (any, error) {
	q := r.URL.Query()
	slot, err := n.slotOf(q.Get("slot"), q.Get("topic"), q.Get("partition"), q.Get("group"))
	if err != nil {
		return nil, err
	}
	move := slotMove{Slot: slot, From: n.coordinator.Route(slot).Node, To: -1}
	if to := q.Get("node"); to != "" {
		nodes := n.reportNodes()
		node, ok := nodes.find(to)
		if !ok {
			return nil, refuse(http.StatusNotFound, "there is no live node %.64q", to)
		}
		if node.State != stateServing {
			return nil, refuse(http.StatusConflict, "node %d (%s) is %s and takes no slots", node.ID, node.Name, node.State)
		}
		move.To = node.ID
	}
	if err := n.coordinator.Override(r.Context(), slot, move.To); err != nil {
		return nil, err
	}
	return move, nil
}

func (n *node) slotOf(slot, topic, partition, group string) (int, error) {
	switch {
	case slot != "":
		i, err := strconv.Atoi(slot)
		if err != nil || i < 0 || i >= coordinator.NumSlots {
			return 0, refuse(http.StatusBadRequest, "slot %.16q: slots are 0 to %d", slot, coordinator.NumSlots-1)
		}
		return i, nil
	case topic != "":
		t := n.coordinator.Topic(topic)
		if t == nil {
			return 0, refuse(http.StatusNotFound, "there is no topic %.249q", topic)
		}
		if partition == "" && t.Partitions > 1 {
			return 0, refuse(http.StatusBadRequest, "topic %s has %d partitions: name one, as %s:0", topic, t.Partitions, topic)
		}
		p, err := strconv.ParseInt(cmp.Or(partition, "0"), 10, 32)
		if err != nil || p < 0 || int32(p) >= t.Partitions {
			return 0, refuse(http.StatusBadRequest, "topic %s has no partition %.16s", topic, partition)
		}
		return coordinator.PartitionSlot(t.ID, int32(p)), nil
	case group != "":
		return coordinator.SlotOf(group), nil
	}
	return 0, refuse(http.StatusBadRequest, "name a slot, a topic or a group")
}

// raiseLevel answers POST /feature-level?to=N; 0 or nothing is the highest possible.
func (n *node) raiseLevel(r *http.Request) (any, error) {
	to, err := strconv.ParseInt(cmp.Or(r.URL.Query().Get("to"), "0"), 10, 32)
	if err != nil || to < 0 {
		return nil, refuse(http.StatusBadRequest, "%.16q is no feature level", r.URL.Query().Get("to"))
	}
	level, err := n.coordinator.RaiseFeatureLevel(r.Context(), int32(to))
	if errors.Is(err, coordinator.ErrFeatureLevel) {
		return nil, refuse(http.StatusConflict, "%s", err.Error())
	}
	return map[string]int32{"featureLevel": level}, err
}
