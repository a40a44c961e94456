package proxy

import "time"

// A network that was cut and heals delivers what a client has sent meanwhile, also if the
// client has given up since, closed the connection, and done something newer by another
// node: an offset committed here then would take its group back, a member that joined
// would have its group rebalance. The client's system, or the load balancer's, sends the
// bytes first and the end of the connection behind them, a round trip later. So of a
// connection that was silent for a while such a request waits for that, and is not begun
// if the end has come.
const (
	// silentFor is less than what clients and load balancers need to give a node up.
	silentFor = time.Second
	// defaultEndWait is longer than a round trip between a load balancer and a node
	// beside it. Where the way is longer, the end comes too late to be waited for.
	defaultEndWait = 10 * time.Millisecond
)

// heard takes note that bytes have come now, in front of active being set to it.
func (c *Conn) heard(now time.Time) {
	if now.Sub(c.active) >= silentFor {
		c.doubtUntil = now.Add(c.state.endWait)
	}
}

// doubtful says whether a request is one that may have come late and do harm then.
func (c *Conn) doubtful(r *Request) bool {
	return (r.Key == keyCommit || r.Key == keyJoin) && !r.Received.After(c.doubtUntil)
}

// waitsForEnd says whether a request is not to be begun yet, since the end of the
// connection may be behind it. turn is called again. Loop only.
func (c *Conn) waitsForEnd(r *Request) bool {
	if !c.doubtful(r) || c.sock.HungUp() {
		return false
	}
	left := c.doubtUntil.Sub(c.loop.Now())
	if left <= 0 {
		return false
	}
	if !c.awaitsEnd {
		c.awaitsEnd = true
		c.loop.After(left, func() {
			c.awaitsEnd = false
			c.turn()
		})
	}
	return true
}
