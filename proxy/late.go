package proxy

import (
	"cmp"
	"time"

	"go.uber.org/zap"
)

// What another node forwards can come long after it was sent: a network was cut and
// heals, or this process stood still with it in its sockets. The other node has given it
// up then and told its client, who may have done something newer by another way since:
// an offset committed by such a request would take its group back. So a forwarded request
// is not begun when its time is over, nor when it has waited since before a standstill,
// at whose end it is not known whether the other side of the link is still there.
//
// It is refused as one of which nothing was done, with all that the link brings after
// it, and the other node asked to make a new link. If it waits for the request all the
// same, one of both machines having had no clock for a while, it sends it again there,
// and the new link's Transit knows nothing of the old one's.

// A request that is not so late may still be one that its client has given up: it has
// hung up, and done something newer by another way. Then what cancels it is not far
// behind, held by the same network. So a request that comes so late as no
// network that works delivers it waits for that a little while.
const (
	doubtfulAfter = time.Second
	doubtfulWait  = 100 * time.Millisecond
)

// lateAfter is how late what comes may be in any case. On a busy machine that much
// happens; and who gives his requests less time would cost others their link.
const lateAfter = 2 * time.Second

// late says whether a forwarded request that has just come is too late, and notes until
// when it may be begun. If it is late the link is left. Loop only.
func (k *link) late(r *Request, sent, begin time.Duration) bool {
	now := k.conn.server.cfg.peersNow()
	running, wall := k.transit.Arrived(sent, now)
	r.until, r.after = time.Time{}, time.Time{}
	if limit := cmp.Or(begin, r.origin.Timeout); limit > 0 {
		r.until = now.Add(max(limit, lateAfter) - running)
	}
	if !r.overdue(now) && !k.stoodStill(max(running, wall)) {
		if running >= doubtfulAfter {
			r.after = now.Add(doubtfulWait)
		}
		return false
	}
	if !k.leaving {
		k.conn.server.cfg.Log.Warn("requests of another node come too late: it is asked for a new link",
			zap.Int32("node", k.node), zap.Duration("late", max(running, wall)), zap.Duration("timeout", cmp.Or(begin, r.origin.Timeout)))
		k.leave()
	}
	return true
}

// stoodStill says whether what is so late has waited since before a standstill.
func (k *link) stoodStill(late time.Duration) bool {
	return late >= lateAfter && k.conn.state.still.recent()
}

// unasked says whether a request that came late was cancelled since, by which is not
// meant that a long poll is to be answered with what there is. Loop only.
func (r *Request) unasked() bool { return r.cancelled && !r.after.IsZero() && r.Key != keyFetch }

// overdue says whether the other node does not wait for a request any more.
func (r *Request) overdue(now time.Time) bool { return !r.until.IsZero() && !now.Before(r.until) }
