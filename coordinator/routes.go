package coordinator

import (
	"context"
	"encoding/binary"
)

// Route says who serves a slot.
type Route struct {
	Node  int32 // -1: nobody that this node knows of, or the slot is changing hands; wait for RoutesChanged
	Epoch int64 // counts the owners that the slot has had; grows
	// Here says that this node is to serve the slot now. It is false as soon as
	// this node begins to hand the slot over.
	Here bool
}

// PartitionSlot returns the slot of a partition: FNV-1a of 64 bits over the 16
// bytes of the topic's id and the 4 of the partition, folded as in SlotOf.
func PartitionSlot(topic [16]byte, partition int32) int {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for _, b := range topic {
		h = (h ^ uint64(b)) * prime
	}
	var p [4]byte
	binary.BigEndian.PutUint32(p[:], uint32(partition))
	for _, b := range p {
		h = (h ^ uint64(b)) * prime
	}
	return int((h ^ h>>32) % NumSlots)
}

// Route returns who serves a slot, as far as this node knows. It costs an atomic
// load, never blocks, and may be called from any goroutine.
//
// A node that refuses what its peer's route sends there is behind that peer by
// the time that a watch takes, or ahead of it. No change of this node's routes need
// follow, so the sender asks again after some milliseconds, not only after RoutesChanged.
func (c *Coordinator) Route(slot int) Route { return *c.slots.routes[slot].Load() }

// RoutesChanged returns a channel that is closed when a route next changes. Get
// it before looking at the routes.
func (c *Coordinator) RoutesChanged() <-chan struct{} { return *c.slots.routesChanged.Load() }

// Prove returns nil if this node serves a slot for certain: at once while the
// node's lease is known to last, else after a linearizable read of the slot's
// owner. It fails with ErrNotOwner, or ErrUnavailable if the store cannot be asked.
// Whoever answers from memory what the next owner may change asks it between
// looking and answering: ListOffsets, OffsetFetch, a Fetch that diverges. It may block.
func (c *Coordinator) Prove(ctx context.Context, slot int) error {
	fence := c.slots.fence(slot)
	if fence == 0 || !c.Route(slot).Here {
		return errNotOwner(slot)
	}
	if c.slots.trusted(slot, fence) {
		return nil
	}
	return c.prover.wait(ctx, slot)
}

// Housekeeper says whether this node does what one node of a cluster does for
// all: what removes garbage and evens out load. Nothing that clients wait for is. It
// never blocks. Two nodes may be told so for a moment.
func (c *Coordinator) Housekeeper() bool { return c.Route(0).Here }

// SlotHolder holds what this node serves of its slots beside the groups: the logs.
type SlotHolder interface {
	// ReleaseSlot ends the service of a slot in order: appends under way are
	// finished, ledgers sealed, so that the next owner need not recover them. The
	// route says already that the slot is not served here. It may block.
	ReleaseSlot(ctx context.Context, slot int) error
	// DropSlot ends the service of a slot that was lost, or was released. It does not block.
	DropSlot(slot int)
}

// Hold names the holder. It is called once, before clients are served.
func (c *Coordinator) Hold(h SlotHolder) { c.slots.holder.Store(&h) }
