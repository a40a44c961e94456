package proxy

import "time"

// A client that finds its connection closed takes what it has sent and heard nothing of
// for failed. Most send it again; Java's producers before 2.1 and others whose retries are
// 0 do not, and tell the application. Nothing in the protocol asks a client to go. So at
// Shutdown a connection is read from and served as before until there is a moment at
// which it can be closed without harm: whatever came is answered and nothing has begun to
// come. That leaves what is under way to the server just then, so it should be a moment
// at which the client has nothing to send, or may not:
//
//   - The answers are held back for a while. A client that waits for one before it sends
//     again, or has as many requests under way as it allows itself (5 in Java), then falls
//     silent. When it has, all of them leave with the end of the connection in the same
//     segment. Java reads them at once, and sends nothing in between.
//   - Producers that do not ask for ApiVersions get their answers as ever, and the end
//     after a silence: Java's before 0.10.2 and kafka-python forget answers that they read
//     together with the end.
//   - Who does not fall silent in time gets what is held, and the end at the first
//     moment at which nothing is under way.
const (
	// quietTime is for how long a client that is about to send has sent nothing at most:
	// some round trips.
	quietTime = 100 * time.Millisecond

	// holdTime is for how long silence is waited for. Answers to a client that is silent are
	// held until they are complete: given one by one they would let it send again. A
	// producer is held up by that and by the way to its next connection.
	holdTime = 250 * time.Millisecond

	// gapTime lies between an answer and the end for producers that would forget the
	// answer, when they do not fall silent.
	gapTime = 5 * time.Millisecond

	// defaultLeaveTime is after how long the connections that are still there are not
	// read from any more; see Conn.end.
	defaultLeaveTime = time.Second
)

// leave begins to look for a moment to close the connection of a client.
func (c *Conn) leave() {
	if c.closed || c.draining || c.leaving || c.link != nil {
		return
	}
	c.leaving, c.leaveAt = true, c.loop.Now()
	c.drainHooks()
	c.watch(quietTime)
	c.loop.Post(&c.task)
}

// holds says whether answers wait to leave with the end of the connection. A limit
// ends that: the client may have sent what nobody reads.
func (c *Conn) holds() bool {
	if !c.leaving || c.forgets() || c.parting || c.draining || c.paused != 0 {
		return false
	}
	// When all is answered part sends it.
	silent := c.loop.Now().Sub(c.active) >= quietTime
	return c.patient() || !c.in.partial() && (silent || c.answered())
}

// forgets says whether the client may lose answers that it reads together with the end
// of the connection, and whether that matters: all consumers ask again.
func (c *Conn) forgets() bool { return c.produces && !c.knowsVersions }

// patient says whether a silence of the client is waited for.
func (c *Conn) patient() bool { return c.loop.Now().Sub(c.leaveAt) < holdTime }

// part closes a connection that is to be left, if this is the moment.
func (c *Conn) part() {
	if c.in.partial() || c.paused != 0 || !c.answered() {
		if c.patient() {
			c.watch(c.leaveAt.Add(holdTime).Sub(c.loop.Now()))
		}
		return
	}
	silence := quietTime
	switch {
	case c.parting:
		silence = 0 // it has been; the last answers took their time to leave
	case c.patient():
	case c.forgets():
		silence = gapTime
	default:
		silence = 0
	}
	if left := c.active.Add(silence).Sub(c.loop.Now()); left > 0 {
		c.watch(left)
		return
	}
	if c.len() > 0 {
		c.parting = true
		c.sock.Cork()
		c.flush()
	}
	if c.len() == 0 && !c.out.blocked && !c.closed && !c.lingering {
		c.why = errShutdown
		c.linger()
	}
}

// answered says whether all requests in the ring are.
func (c *Conn) answered() bool {
	if c.unhandled() {
		return false
	}
	for i := c.first; i != c.handled; i++ {
		if c.at(i).state.Load() < requestReady {
			return false
		}
	}
	return true
}
