package coordinator

// Queued is how many topics wait for a transaction.
func Queued(c *Coordinator) int {
	c.creator.mu.Lock()
	defer c.creator.mu.Unlock()
	return len(c.creator.mu.queue)
}

// Trusted says whether a node answers for a slot from memory alone, and in which epoch.
func Trusted(c *Coordinator, slot int) (epoch int64, ok bool) {
	fence, r := c.slots.fence(slot), c.Route(slot)
	return r.Epoch, fence != 0 && r.Here && c.slots.trusted(slot, fence)
}

// LeaseValid says whether a node's lease is known to last.
func LeaseValid(c *Coordinator) bool { return c.registration.valid() }

// SlotName is a slot as part of a key.
func SlotName(slot int) string { return slotName(slot) }

// Expire is one sweep for what has expired.
func Expire(c *Coordinator) { c.groups.sweepOnce(true) }
