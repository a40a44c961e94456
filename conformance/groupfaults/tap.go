package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/quirelog/quire/conformance/groupcheck"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A tap lies between the clients and the server, passes every byte on, and
// writes down what members of groups and the server tell each other. It knows a
// member by its client id. It can cut a member off, and for a test that proves
// the checker it can change what is said.
type tap struct {
	upstream string
	rec      *recorder
	listener net.Listener
	running  sync.WaitGroup

	// Hooks of tests, set before the first connection. They may change the
	// message in place and say whether they did.
	changeRequest  func(client string, req kmsg.Request) bool
	changeResponse func(client string, req kmsg.Request, resp kmsg.Response) bool

	mu     sync.Mutex
	groups map[string]string // of members, by client id
	last   map[string]words  // the newest of owed that a member made, by client id
	cut    map[string]bool
	conns  map[*tapConn]bool
	modern map[string]bool // member ids of the consumer protocol
	closed bool
}

// tapConn is one client's connection and the one to the server behind it.
type tapConn struct {
	tap            *tap
	client, server net.Conn

	mu       sync.Mutex
	name     string // client id, once known
	requests map[int32]tapRequest
	waiting  map[int32]words // those that a member must make and that are not answered, by correlation
}

// words are what a member said: the key of a request, and when.
type words struct {
	key kmsg.Key
	at  int64
}

// owed are the requests that a member has to make again and again, or that it makes
// because it cannot make those.
var owed = []kmsg.Key{kmsg.ApiVersions, kmsg.Metadata, kmsg.FindCoordinator, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.ConsumerGroupHeartbeat, kmsg.OffsetFetch, kmsg.OffsetCommit, kmsg.ListOffsets}

type tapRequest struct {
	req   kmsg.Request
	began int64
}

// maxFrameBytes bounds what the tap holds of one message.
const maxFrameBytes = 64 << 20

// newTap listens on an address until close.
func newTap(listen, upstream string, rec *recorder) (*tap, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	return &tap{upstream: upstream, rec: rec, listener: l, groups: map[string]string{}, last: map[string]words{}, cut: map[string]bool{}, conns: map[*tapConn]bool{}, modern: map[string]bool{}}, nil
}

func (t *tap) addr() string { return t.listener.Addr().String() }

// serve accepts connections.
func (t *tap) serve() {
	t.running.Go(func() {
		for {
			c, err := t.listener.Accept()
			if err != nil {
				return
			}
			t.running.Go(func() { t.pass(c) })
		}
	})
}

func (t *tap) close() {
	t.listener.Close()
	t.mu.Lock()
	t.closed = true
	for c := range t.conns {
		c.end()
	}
	t.mu.Unlock()
	t.running.Wait()
}

// follow makes the tap write down what a member says.
func (t *tap) follow(m *member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups[m.name] = m.group
}

// cutOff lets nothing of a member through any more.
func (t *tap) cutOff(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut[name] = true
	for c := range t.conns {
		if c.clientID() == name {
			c.end()
		}
	}
}

// letThrough ends what cutOff began. Nothing more is written down of the member.
func (t *tap) letThrough(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.cut, name)
	delete(t.groups, name)
}

func (t *tap) pass(client net.Conn) {
	server, err := net.Dial("tcp", t.upstream)
	if err != nil {
		client.Close() // as the server would, were it there
		return
	}
	c := &tapConn{tap: t, client: client, server: server, requests: map[int32]tapRequest{}, waiting: map[int32]words{}}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		c.end()
		return
	}
	t.conns[c] = true
	t.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() {
		defer c.end()
		copyFrames(server, client, c.request)
	})
	both.Go(func() {
		defer c.end()
		copyFrames(client, server, c.response)
	})
	both.Wait()
	t.mu.Lock()
	delete(t.conns, c)
	t.mu.Unlock()
	c.unanswered()
}

func (c *tapConn) end() {
	c.client.Close()
	c.server.Close()
}

// mute says whether a member has said nothing since a time of all that it has to say
// again and again, though it waits for no answer: then its library has come to a
// standstill, and no server can help it.
func (t *tap) mute(member string, since int64) (last words, mute bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last = t.last[member]
	if last.at >= since {
		return last, false
	}
	for c := range t.conns {
		if c.clientID() == member && c.waits() {
			return last, false
		}
	}
	return last, true
}

func (c *tapConn) waits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) > 0
}

func (c *tapConn) clientID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.name
}

// copyFrames copies length-prefixed frames; see returns the frame to pass on,
// false to end.
func copyFrames(to io.Writer, from io.Reader, see func([]byte) ([]byte, bool)) {
	var size [4]byte
	for {
		if _, err := io.ReadFull(from, size[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(size[:])
		if n > maxFrameBytes {
			return
		}
		frame := make([]byte, 4+n)
		if _, err := io.ReadFull(from, frame[4:]); err != nil {
			return
		}
		body, ok := see(frame[4:])
		if !ok {
			return
		}
		frame = append(frame[:4], body...)
		binary.BigEndian.PutUint32(frame, uint32(len(body)))
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}

var errShort = errors.New("message is too short")

// skipTags skips a section of tagged fields.
func skipTags(b []byte) ([]byte, error) {
	uvarint := func() (uint64, error) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, errShort
		}
		b = b[n:]
		return v, nil
	}
	count, err := uvarint()
	for ; err == nil && count > 0; count-- {
		var size uint64
		if _, err = uvarint(); err == nil {
			size, err = uvarint()
		}
		if err == nil && size > uint64(len(b)) {
			err = errShort
		}
		if err == nil {
			b = b[size:]
		}
	}
	return b, err
}

// parseRequest splits a request: the header ends where body begins. req is nil
// for an API that nobody here listens to.
func parseRequest(frame []byte) (correlation int32, client string, req kmsg.Request, header int, err error) {
	const fixed = 10
	if len(frame) < fixed {
		return 0, "", nil, 0, errShort
	}
	key, version := int16(binary.BigEndian.Uint16(frame)), int16(binary.BigEndian.Uint16(frame[2:]))
	correlation = int32(binary.BigEndian.Uint32(frame[4:]))
	rest := frame[fixed:]
	if n := int16(binary.BigEndian.Uint16(frame[8:])); n > 0 {
		if int(n) > len(rest) {
			return 0, "", nil, 0, errShort
		}
		client, rest = string(rest[:n]), rest[n:]
	}
	switch kmsg.Key(key) {
	case kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.ConsumerGroupHeartbeat:
	default:
		return correlation, client, nil, 0, nil
	}
	req = kmsg.RequestForKey(key)
	req.SetVersion(version)
	if req.IsFlexible() {
		if rest, err = skipTags(rest); err != nil {
			return 0, "", nil, 0, err
		}
	}
	if err := req.ReadFrom(rest); err != nil {
		return 0, "", nil, 0, fmt.Errorf("%s v%d: %w", kmsg.NameForKey(key), version, err)
	}
	return correlation, client, req, len(frame) - len(rest), nil
}

func (c *tapConn) request(frame []byte) ([]byte, bool) {
	correlation, client, req, header, err := parseRequest(frame)
	if err != nil {
		c.tap.rec.failed(client, fmt.Errorf("a request cannot be read: %w", err))
		return nil, false
	}
	c.mu.Lock()
	c.name = client
	c.mu.Unlock()
	t := c.tap
	said := words{kmsg.Key(binary.BigEndian.Uint16(frame)), t.rec.now()}
	due := slices.Contains(owed, said.key)
	t.mu.Lock()
	group, cut := t.groups[client], t.cut[client]
	if due && group != "" {
		t.last[client] = said
	}
	t.mu.Unlock()
	if cut {
		return nil, false
	}
	if due {
		c.mu.Lock()
		c.waiting[correlation] = said
		c.mu.Unlock()
	}
	if req == nil || group == "" {
		return frame, true
	}
	if t.changeRequest != nil && t.changeRequest(client, req) {
		frame = req.AppendTo(frame[:header:header])
	}
	began := t.rec.now()
	c.mu.Lock()
	c.requests[correlation] = tapRequest{req, began}
	c.mu.Unlock()
	e := groupcheck.Event{Group: group, Member: client, Began: began}
	switch r := req.(type) {
	case *kmsg.JoinGroupRequest:
		e.Kind, e.ID, e.Classic = groupcheck.Joins, r.MemberID, true
		t.rec.event(e)
	case *kmsg.ConsumerGroupHeartbeatRequest:
		e.ID, e.Generation = r.MemberID, r.MemberEpoch
		if r.MemberEpoch == 0 {
			e.Kind = groupcheck.Joins
			t.rec.event(e)
		}
		if r.Topics != nil || r.MemberEpoch < 0 {
			// Who leaves has nothing any more from here on: others may be told
			// before the leaving is answered.
			e.Kind = groupcheck.Owns
			for _, owned := range r.Topics {
				if r.MemberEpoch < 0 {
					break
				}
				e.Partitions = append(e.Partitions, ofTopicID(owned.TopicID, owned.Partitions)...)
			}
			t.rec.event(e)
		}
	}
	return frame, true
}

func (c *tapConn) response(frame []byte) ([]byte, bool) {
	if len(frame) < 4 {
		return nil, false
	}
	correlation := int32(binary.BigEndian.Uint32(frame))
	c.mu.Lock()
	asked, ok := c.requests[correlation]
	delete(c.requests, correlation)
	delete(c.waiting, correlation)
	client := c.name
	c.mu.Unlock()
	if !ok {
		return frame, true
	}
	body := frame[4:]
	var err error
	if asked.req.IsFlexible() {
		body, err = skipTags(body)
	}
	resp := asked.req.ResponseKind()
	resp.SetVersion(asked.req.GetVersion())
	if err == nil {
		err = resp.ReadFrom(body)
	}
	if err != nil {
		c.tap.rec.failed(client, fmt.Errorf("the answer to %s v%d cannot be read: %w", kmsg.NameForKey(asked.req.Key()), asked.req.GetVersion(), err))
		return nil, false
	}
	if change := c.tap.changeResponse; change != nil && change(client, asked.req, resp) {
		header := len(frame) - len(body)
		frame = resp.AppendTo(frame[:header:header])
	}
	c.tap.heard(client, asked, resp)
	return frame, true
}

// unanswered writes down the commits that a connection has ended with.
func (c *tapConn) unanswered() {
	ended := c.tap.rec.now()
	client := c.clientID()
	c.tap.mu.Lock()
	group := c.tap.groups[client]
	c.tap.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, asked := range c.requests {
		req, ok := asked.req.(*kmsg.OffsetCommitRequest)
		if !ok || group == "" {
			continue
		}
		for _, topic := range req.Topics {
			for _, p := range topic.Partitions {
				c.tap.rec.attempted(client, group, p.Partition, p.Offset, asked.began, ended)
			}
		}
	}
}

// heard writes down what an answer means for its member.
func (t *tap) heard(client string, asked tapRequest, resp kmsg.Response) {
	t.mu.Lock()
	group, cut := t.groups[client], t.cut[client]
	t.mu.Unlock()
	if cut {
		return
	}
	e := groupcheck.Event{Group: group, Member: client, Began: asked.began, Classic: true}
	switch resp := resp.(type) {
	case *kmsg.SyncGroupResponse:
		req := asked.req.(*kmsg.SyncGroupRequest)
		e.ID, e.Generation = req.MemberID, req.Generation
		if resp.ErrorCode == 0 {
			var a kmsg.ConsumerMemberAssignment
			if len(resp.MemberAssignment) > 0 {
				if err := a.ReadFrom(resp.MemberAssignment); err != nil {
					t.rec.failed(client, fmt.Errorf("the assignment in generation %d cannot be read: %w", req.Generation, err))
					return
				}
			}
			e.Kind = groupcheck.Told
			for _, topic := range a.Topics {
				for _, n := range topic.Partitions {
					e.Partitions = append(e.Partitions, groupcheck.Partition{Topic: topic.Topic, Number: n})
				}
			}
		}
	case *kmsg.HeartbeatResponse:
		req := asked.req.(*kmsg.HeartbeatRequest)
		e.ID, e.Generation = req.MemberID, req.Generation
		e.Kind = signOfLife(resp.ErrorCode)
	case *kmsg.LeaveGroupResponse:
		if resp.ErrorCode == 0 {
			e.Kind = groupcheck.Departed
		}
	case *kmsg.OffsetCommitResponse:
		req := asked.req.(*kmsg.OffsetCommitRequest)
		t.rec.answeredOnWire(asked.began, group, client, req, resp)
		e.ID, e.Generation = req.MemberID, req.Generation
		for _, topic := range resp.Topics {
			for _, p := range topic.Partitions {
				if e.Kind = signOfLife(p.ErrorCode); e.Kind == groupcheck.Heard {
					e.Kind = groupcheck.Committed
				}
			}
		}
		t.mu.Lock()
		e.Classic = !t.modern[e.ID]
		t.mu.Unlock()
		if e.Kind == groupcheck.Committed {
			t.rec.event(e)
			if !e.Classic {
				return // a commit does not renew the session
			}
			e.Kind = groupcheck.Heard
		}
	case *kmsg.ConsumerGroupHeartbeatResponse:
		req := asked.req.(*kmsg.ConsumerGroupHeartbeatRequest)
		e.ID, e.Generation, e.Classic = req.MemberID, resp.MemberEpoch, false
		if resp.MemberID != nil {
			e.ID = *resp.MemberID
		}
		t.mu.Lock()
		t.modern[e.ID] = true
		t.mu.Unlock()
		switch {
		case req.MemberEpoch < 0:
			if resp.ErrorCode == 0 {
				e.Kind = groupcheck.Departed
			}
		case resp.ErrorCode != 0:
			e.Kind = signOfLife(resp.ErrorCode)
		default:
			e.Kind = groupcheck.Heard
			if resp.Assignment != nil {
				e.Kind = groupcheck.Told
				for _, topic := range resp.Assignment.Topics {
					e.Partitions = append(e.Partitions, ofTopicID(topic.TopicID, topic.Partitions)...)
				}
			}
		}
	}
	if e.Kind != "" {
		t.rec.event(e)
	}
}

// signOfLife is what the error code of a heartbeat or commit means, "" if
// nothing. Code 27 asks a known member to join again, 110 too: its client lost
// an answer, which is no fault of the server's unless the group was at rest.
func signOfLife(code int16) groupcheck.Kind {
	switch err := kerr.ErrorForCode(code); err {
	case nil, kerr.RebalanceInProgress:
		return groupcheck.Heard
	case kerr.UnknownMemberID:
		return groupcheck.Expelled
	}
	return ""
}

func ofTopicID(id [16]byte, numbers []int32) []groupcheck.Partition {
	var all []groupcheck.Partition
	for _, n := range numbers {
		all = append(all, groupcheck.Partition{Topic: hex.EncodeToString(id[:]), Number: n})
	}
	return all
}
