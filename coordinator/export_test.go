package coordinator

// Queued is how many topics wait for a transaction.
func Queued(c *Coordinator) int {
	c.creator.mu.Lock()
	defer c.creator.mu.Unlock()
	return len(c.creator.mu.queue)
}
