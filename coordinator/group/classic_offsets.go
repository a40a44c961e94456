package group

import (
	"encoding/binary"
	"time"
)

// checkCommit is ClassicGroup.validateOffsetCommit.
func (c *classic) checkCommit(now time.Time, id *CommitIdentity) error {
	switch {
	case c.state == Dead:
		return ErrUnavailable
	case id.Epoch < 0 && c.state == Empty:
		return nil
	case id.Epoch < 0 && id.MemberID == "" && id.InstanceID == "":
		return ErrUnknownMember
	}
	m, err := c.checkGeneration(id.MemberID, id.InstanceID, id.Epoch)
	switch {
	case err != nil:
		return err
	case c.state == CompletingRebalance:
		// The member has the generation from its join, but its partitions may be another's.
		return ErrRebalanceInProgress
	}
	c.renew(now, m)
	return nil
}

// expiry is ClassicGroup.offsetExpirationCondition.
func (c *classic) expiry() Expiry {
	switch {
	case c.protocolType == "":
		return Expiry{}
	case c.state == Empty:
		return Expiry{EmptySince: c.emptySince}
	case c.state == Stable && c.protocolType == consumerProtocolType:
		return Expiry{}
	}
	return Expiry{Never: true}
}

// subscriptions are the topics of all members.
type subscriptions struct {
	unknown bool // some member's could not be read
	topics  map[string]struct{}
}

// subscribedTo reads what the members say for the chosen protocol; before one
// is chosen it is not known.
func (c *classic) subscribedTo(topic string) bool {
	if c.protocolType != consumerProtocolType || len(c.members) == 0 {
		return false
	}
	if c.topics == nil {
		s := &subscriptions{unknown: c.protocolName == "", topics: map[string]struct{}{}}
		for _, m := range c.members {
			s.unknown = !readTopics(m.metadata(c.protocolName), s.topics) || s.unknown
		}
		c.topics = s
	}
	_, subscribed := c.topics.topics[topic]
	return subscribed || c.topics.unknown
}

// readTopics adds the topics of a consumer's metadata to topics; false if it is
// not such metadata. Every version begins alike:
//
//	version int16 (≥ 0), topics: count int32, each length int16 and bytes
func readTopics(metadata []byte, topics map[string]struct{}) bool {
	if len(metadata) < 6 || int16(binary.BigEndian.Uint16(metadata)) < 0 {
		return false
	}
	count := int32(binary.BigEndian.Uint32(metadata[2:]))
	b := metadata[6:]
	for ; count > 0; count-- {
		if len(b) < 2 {
			return false
		}
		n := int(int16(binary.BigEndian.Uint16(b)))
		if b = b[2:]; n < 0 || n > len(b) {
			return false
		}
		topics[string(b[:n])] = struct{}{}
		b = b[n:]
	}
	return count == 0
}
