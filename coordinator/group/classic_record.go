package group

import (
	"bytes"
	"encoding/binary"
	"time"
)

// The body of a classic group's record, version 1:
//
//	generation    int
//	protocol type, protocol name, leader's member id   strings
//	empty since   int, Unix milliseconds, 0 if not known
//	rebalancing   bool: members have to join again after loading
//	metadata      count, each bytes: the distinct ones of all members
//	members       count, each:
//	  member id, instance id, client id, client host   strings
//	  session timeout, rebalance timeout               milliseconds
//	  protocols   count, each name and index of its metadata
//	  assignment  bytes
//
// Members that have never been in a generation are left out: they know of no
// generation to go on with, and their parked joins end with this process.
func (c *classic) appendRecord(b []byte) []byte {
	members := make([]*member, 0, len(c.members))
	leader := ""
	for _, m := range c.members {
		if m.isNew {
			continue
		}
		members = append(members, m)
		if leader == "" || m.id == c.leader {
			leader = m.id
		}
	}
	settled := c.state == Stable || c.state == CompletingRebalance && c.syncSeq != 0
	protocolName, rebalancing := c.protocolName, len(members) > 0 && !settled
	if len(members) == 0 {
		protocolName = ""
	}

	b = binary.AppendVarint(b, int64(c.generation))
	b = appendString(b, c.protocolType)
	b = appendString(b, protocolName)
	b = appendString(b, leader)
	b = binary.AppendVarint(b, unixMilli(c.emptySince))
	b = appendBool(b, rebalancing)

	index := map[string]int{}
	var distinct [][]byte
	for _, m := range members {
		for _, p := range m.protocols {
			if _, known := index[string(p.Metadata)]; !known {
				index[string(p.Metadata)] = len(distinct)
				distinct = append(distinct, p.Metadata)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(distinct)))
	for _, metadata := range distinct {
		b = appendString(b, metadata)
	}

	b = binary.AppendUvarint(b, uint64(len(members)))
	for _, m := range members {
		b = appendString(b, m.id)
		b = appendString(b, m.instance)
		b = appendString(b, m.clientID)
		b = appendString(b, m.clientHost)
		b = appendDuration(b, m.session)
		b = appendDuration(b, m.rebalance)
		b = binary.AppendUvarint(b, uint64(len(m.protocols)))
		for _, p := range m.protocols {
			b = appendString(b, p.Name)
			b = binary.AppendUvarint(b, uint64(index[string(p.Metadata)]))
		}
		b = appendString(b, m.assignment)
	}
	return b
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// loadClassic reads a body. A group that its own rules would not have made is
// an error of r: it must not reach code that relies on them.
func loadClassic(g *Group, r *reader) *classic {
	c := newClassic(g)
	c.generation = r.int32()
	c.protocolType = r.string()
	c.protocolName = r.string()
	leader := r.string()
	if ms := r.varint(); ms != 0 {
		c.emptySince = time.UnixMilli(ms)
	}
	rebalancing := r.bool()
	metadata := make([][]byte, r.count())
	for i := range metadata {
		metadata[i] = bytes.Clone(r.view())
	}
	for n := r.count(); n > 0 && r.err == nil; n-- {
		m := &member{id: r.string(), instance: r.string(), clientID: r.string(), clientHost: r.string()}
		m.session, m.rebalance = r.duration(), max(r.duration(), minRebalanceTimeout)
		m.protocols = make([]Protocol, r.count())
		for i := range m.protocols {
			m.protocols[i].Name = r.string()
			if at := r.uvarint(); at < uint64(len(metadata)) {
				m.protocols[i].Metadata = metadata[at]
			} else {
				r.fail("metadata that is not there")
			}
		}
		if assignment := r.view(); len(assignment) > 0 {
			m.assignment = bytes.Clone(assignment)
		}
		switch {
		case r.err != nil:
		case m.id == "" || c.byID[m.id] != nil || c.byInstance[m.instance] != nil:
			r.fail("a member without a name of its own")
		case m.session <= 0 || len(distinct(m.protocols)) != len(m.protocols):
			r.fail("a member that could not have joined")
		default:
			c.add(m)
		}
	}
	switch {
	case r.err != nil:
	case c.generation < 0:
		r.fail("a negative generation")
	case len(c.members) == 0:
		if leader != "" || c.protocolName != "" || rebalancing {
			r.fail("a leader, protocol or rebalance without members")
		}
	case c.byID[leader] == nil:
		r.fail("a leader that is no member")
	case c.protocolType == "" || c.supporters[c.selectProtocol()] != len(c.members):
		r.fail("members without a common protocol")
	case !rebalancing && c.supporters[c.protocolName] != len(c.members):
		r.fail("a protocol that not all members offer")
	default:
		c.leader = leader
		c.state = Stable
		if rebalancing {
			c.state = PreparingRebalance
		}
	}
	return c
}

// restored starts the sessions of a loaded group. One that was rebalancing, or
// has more members than are now allowed, waits for all to join again.
func (c *classic) restored(now time.Time) {
	for _, m := range c.members {
		c.renew(now, m)
	}
	if len(c.members) == 0 {
		return
	}
	if c.state == PreparingRebalance || len(c.members) > c.g.config.MaxSize {
		c.state = PreparingRebalance
		c.joinBy(now.Add(c.rebalanceTimeout()))
	}
}
