package group

import "time"

// Patience is for how long a member keeps what it was assigned though an owner of the
// group who has just loaded it hears nothing of it: its session, or the time in which it
// has to join a rebalance if that is shorter. It is 0 if there is no such member, and for
// static ones, whose place another process may take at any time.
func (g *Group) Patience(member string) time.Duration {
	if c := g.consumer; c != nil {
		m, err := c.member(member, "")
		if err != nil || m.instance != "" {
			return 0
		}
		session := c.g.config.ConsumerSessionTimeout
		if m.classic != nil {
			session = m.classic.sessionTimeout
		}
		return min(session, m.rebalanceTimeout)
	}
	m := g.classic.byID[member]
	if m == nil || m.instance != "" {
		return 0
	}
	return min(m.session, m.rebalance)
}
