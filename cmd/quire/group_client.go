package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Bounds of one request, so that any number of groups and partitions can be
// worked on without one that is too large or too slow for the server.
const (
	groupsAtOnce  = 100
	commitsAtOnce = 1000
)

// groupClient asks a cluster about groups, one request after another. Each has
// the time of --timeout for itself: there may be thousands.
type groupClient struct {
	ctx     context.Context
	timeout time.Duration
	client  *kgo.Client
	admin   *kadm.Client

	// Whether ConsumerGroupDescribe (KIP-848) is served, once asked.
	knowsConsumerGroups *bool
}

// groups runs do with a client for groups.
func (f *clientFlags) groups(p *process, do func(c *groupClient) error) error {
	c := &groupClient{ctx: p.ctx, timeout: f.Timeout}
	if err := c.within(f.reach); err != nil {
		return err
	}
	client, err := f.open()
	if err != nil {
		return err
	}
	defer client.Close()
	c.client, c.admin = client, kadm.NewClient(client)
	return do(c)
}

// within gives one request its time.
func (c *groupClient) within(do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
	defer cancel()
	err := do(ctx)
	switch {
	case err == nil:
		return nil
	case c.ctx.Err() != nil:
		return errInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s (--timeout): %w", c.timeout, err)
	}
	return err
}

// list returns all groups of all servers, sorted. If one server does not answer
// there is no list, since it would not be all groups.
func (c *groupClient) list() ([]listedGroup, error) {
	groups := []listedGroup{}
	err := c.within(func(ctx context.Context) error {
		for _, shard := range c.client.RequestSharded(ctx, kmsg.NewPtrListGroupsRequest()) {
			if shard.Err != nil {
				return shard.Err
			}
			resp := shard.Resp.(*kmsg.ListGroupsResponse)
			if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
				return err
			}
			for _, g := range resp.Groups {
				l := listedGroup{Group: g.Group, Type: strings.ToLower(g.GroupType), ProtocolType: g.ProtocolType, State: g.GroupState}
				if l.Type == "" {
					l.Type = classicType // servers before ListGroups 5 have no other
				}
				groups = append(groups, l)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	slices.SortFunc(groups, func(a, b listedGroup) int { return strings.Compare(a.Group, b.Group) })
	return groups, nil
}

// groupDescription is what a coordinator says of one group of either protocol.
type groupDescription struct {
	Group           string        `json:"group"`
	Type            string        `json:"type"` // classic or consumer
	ProtocolType    string        `json:"protocolType"`
	State           string        `json:"state"`
	Assignor        string        `json:"assignor"`
	Epoch           *int32        `json:"groupEpoch,omitempty"`            // of consumer groups
	AssignmentEpoch *int32        `json:"targetAssignmentEpoch,omitempty"` // of consumer groups
	Coordinator     groupNode     `json:"coordinator"`
	Members         []groupMember `json:"members"`
}

type groupNode struct {
	ID   int32  `json:"id"`
	Host string `json:"host"`
	Port int32  `json:"port"`
}

type groupMember struct {
	MemberID   string          `json:"consumerId"`
	InstanceID string          `json:"groupInstanceId,omitempty"`
	ClientID   string          `json:"clientId"`
	Host       string          `json:"host"`
	Epoch      *int32          `json:"memberEpoch,omitempty"` // of consumer groups
	Assignment []assignedTopic `json:"assignment"`
	Target     []assignedTopic `json:"targetAssignment,omitempty"` // of consumer groups
}

type assignedTopic struct {
	Topic      string  `json:"topic"`
	Partitions []int32 `json:"partitions"`
}

// The states of a group that has no members. A group that does not exist is dead.
const (
	emptyState = "Empty"
	deadState  = "Dead"
)

func (d *groupDescription) active() bool { return d.State != emptyState && d.State != deadState }

// described is one group's description or the error in its place.
type described struct {
	groupDescription
	err error
}

// describe asks for the groups of names, which may be of either protocol. The
// answer has every name; a group that does not exist is Dead.
func (c *groupClient) describe(names []string) (map[string]described, error) {
	all := make(map[string]described, len(names))
	for chunk := range slices.Chunk(names, groupsAtOnce) {
		classic, err := c.describeConsumer(chunk, all)
		if err != nil {
			return nil, err
		}
		if len(classic) == 0 {
			continue
		}
		var groups kadm.DescribedGroups
		err = c.within(func(ctx context.Context) (err error) {
			groups, err = c.admin.DescribeGroups(ctx, classic...)
			return err
		})
		for _, name := range classic {
			g, ok := groups[name]
			switch {
			case !ok:
				all[name] = described{err: missing(name, err)}
			case errors.Is(g.Err, kerr.GroupIDNotFound):
				all[name] = described{groupDescription: groupDescription{Group: name, State: deadState}}
			case g.Err != nil:
				all[name] = described{err: explainGroup(name, g.Err, g.ErrMessage)}
			default:
				all[name] = described{groupDescription: describeClassic(&g)}
			}
		}
	}
	return all, nil
}

// describeConsumer asks for groups of the consumer protocol and returns those
// that are none: like Kafka's own tools, which try this first.
func (c *groupClient) describeConsumer(names []string, all map[string]described) (others []string, err error) {
	if c.knowsConsumerGroups == nil {
		knows := false
		err := c.within(func(ctx context.Context) error {
			versions, err := c.admin.ApiVersions(ctx)
			versions.Each(func(v kadm.BrokerApiVersions) {
				_, _, ok := v.KeyVersions(kmsg.ConsumerGroupDescribe.Int16())
				knows = knows || ok
			})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("ask for the server's versions: %w", err)
		}
		c.knowsConsumerGroups = &knows
	}
	if !*c.knowsConsumerGroups {
		return names, nil
	}
	var groups kadm.DescribedConsumerGroups
	err = c.within(func(ctx context.Context) (err error) {
		groups, err = c.admin.DescribeConsumerGroups(ctx, names...)
		return err
	})
	for _, name := range names {
		g, ok := groups[name]
		switch {
		case !ok:
			all[name] = described{err: missing(name, err)}
		case errors.Is(g.Err, kerr.GroupIDNotFound):
			others = append(others, name)
		case g.Err != nil:
			all[name] = described{err: explainGroup(name, g.Err, "")}
		default:
			all[name] = described{groupDescription: describeConsumerGroup(&g)}
		}
	}
	return others, nil
}

// missing is the error of a group that an answer left out, because of err if
// there is one.
func missing(name string, err error) error {
	if err == nil {
		err = errors.New("the server's answer leaves it out")
	}
	return explainGroup(name, err, "")
}

func describeClassic(g *kadm.DescribedGroup) groupDescription {
	d := groupDescription{
		Group: g.Group, Type: classicType, ProtocolType: g.ProtocolType, State: g.State, Assignor: g.Protocol,
		Coordinator: groupNode{ID: g.Coordinator.NodeID, Host: g.Coordinator.Host, Port: g.Coordinator.Port},
		Members:     []groupMember{},
	}
	for i := range g.Members {
		m := &g.Members[i]
		member := groupMember{MemberID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost, Assignment: []assignedTopic{}}
		if m.InstanceID != nil {
			member.InstanceID = *m.InstanceID
		}
		if a, ok := m.Assigned.AsConsumer(); ok {
			set := kadm.TopicsSet{}
			for _, t := range a.Topics {
				set.Add(t.Topic, t.Partitions...)
			}
			member.Assignment = assignedTopics(set)
		}
		d.Members = append(d.Members, member)
	}
	return d
}

func describeConsumerGroup(g *kadm.DescribedConsumerGroup) groupDescription {
	d := groupDescription{
		Group: g.Group, Type: consumerType, ProtocolType: consumerProtocol, State: g.State, Assignor: g.AssignorName,
		Epoch: &g.Epoch, AssignmentEpoch: &g.AssignmentEpoch,
		Coordinator: groupNode{ID: g.Coordinator.NodeID, Host: g.Coordinator.Host, Port: g.Coordinator.Port},
		Members:     []groupMember{},
	}
	for i := range g.Members {
		m := &g.Members[i]
		member := groupMember{
			MemberID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost, Epoch: &m.MemberEpoch,
			Assignment: assignedTopics(m.Assignment), Target: assignedTopics(m.TargetAssignment),
		}
		if m.InstanceID != nil {
			member.InstanceID = *m.InstanceID
		}
		d.Members = append(d.Members, member)
	}
	return d
}

// assignedTopics puts a set in the order of topics and partitions.
func assignedTopics(set kadm.TopicsSet) []assignedTopic {
	topics := []assignedTopic{}
	for _, t := range set.Sorted() {
		topics = append(topics, assignedTopic{Topic: t.Topic, Partitions: t.Partitions})
	}
	return topics
}

// committed is what one group has committed, by topic and partition, and an
// error if that is not all.
type committed struct {
	offsets []kadm.Offset
	err     error
}

func (c *committed) lookup(topic string, partition int32) (*kadm.Offset, bool) {
	i, ok := slices.BinarySearchFunc(c.offsets, kadm.Offset{Topic: topic, Partition: partition}, compareOffsets)
	if !ok {
		return nil, false
	}
	return &c.offsets[i], true
}

// committed asks for the committed offsets of groups. The answer has every name.
func (c *groupClient) committed(names []string) (map[string]committed, error) {
	all := make(map[string]committed, len(names))
	for chunk := range slices.Chunk(names, groupsAtOnce) {
		var answers kadm.FetchOffsetsResponses
		if err := c.within(func(ctx context.Context) error {
			answers = c.admin.FetchManyOffsets(ctx, chunk...)
			return ctx.Err()
		}); err != nil {
			return nil, fmt.Errorf("committed offsets: %w", err)
		}
		for _, name := range chunk {
			answer, ok := answers[name]
			if !ok {
				answer.Err = missing(name, nil)
			}
			all[name] = sortCommitted(name, answer)
		}
	}
	return all, nil
}

// sortCommitted orders one group's offsets and drops partitions without one.
func sortCommitted(group string, answer kadm.FetchOffsetsResponse) committed {
	var c committed
	if errors.Is(answer.Err, kerr.GroupIDNotFound) {
		return c
	}
	if answer.Err != nil {
		c.err = explainGroup(group, answer.Err, "")
		return c
	}
	answer.Fetched.Each(func(o kadm.OffsetResponse) {
		switch {
		case o.Err != nil:
			c.err = explainGroup(fmt.Sprintf("%s, topic %s partition %d", group, o.Topic, o.Partition), o.Err, "")
		case o.At >= 0:
			c.offsets = append(c.offsets, o.Offset)
		}
	})
	slices.SortFunc(c.offsets, compareOffsets)
	return c
}

// logs are the topics that offsets are about, as they are now.
type logs struct {
	topics kadm.TopicDetails
	starts kadm.ListedOffsets
	ends   kadm.ListedOffsets
	byTime kadm.ListedOffsets // where asked
}

// logs asks for topics by name, with the offset of a time if it is not negative.
// Topics that do not exist are not in the answer.
func (c *groupClient) logs(names []string, milli int64) (*logs, error) {
	l := &logs{}
	if len(names) == 0 {
		return l, nil // kadm would answer with all topics
	}
	for _, ask := range []struct {
		wanted bool
		ask    func(ctx context.Context) error
	}{
		{true, func(ctx context.Context) (err error) {
			l.topics, err = c.admin.ListTopicsWithInternal(ctx, names...)
			return err
		}},
		{true, func(ctx context.Context) (err error) {
			l.starts, err = c.admin.ListStartOffsets(ctx, names...)
			return err
		}},
		{true, func(ctx context.Context) (err error) {
			l.ends, err = c.admin.ListEndOffsets(ctx, names...)
			return err
		}},
		{milli >= 0, func(ctx context.Context) (err error) {
			l.byTime, err = c.admin.ListOffsetsAfterMilli(ctx, milli, names...)
			return err
		}},
	} {
		if !ask.wanted {
			continue
		}
		if err := c.within(ask.ask); err != nil {
			return nil, fmt.Errorf("topics and their offsets: %w", err)
		}
	}
	for name, t := range l.topics {
		if errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
			delete(l.topics, name)
		}
	}
	return l, nil
}

// commit commits offsets for a group without members and returns those that the
// server did not take.
func (c *groupClient) commit(group string, offsets []kadm.Offset) (failed kadm.OffsetResponses) {
	for chunk := range slices.Chunk(offsets, commitsAtOnce) {
		var batch kadm.Offsets
		for _, o := range chunk {
			batch.Add(o)
		}
		var answers kadm.OffsetResponses
		err := c.within(func(ctx context.Context) (err error) {
			answers, err = c.admin.CommitOffsets(ctx, group, batch)
			return err
		})
		for _, o := range chunk {
			answer, ok := answers.Lookup(o.Topic, o.Partition)
			if !ok {
				answer = kadm.OffsetResponse{Offset: o, Err: missing(group, err)}
			}
			if answer.Err != nil {
				failed.Add(answer)
			}
		}
	}
	return failed
}

// delete deletes groups and answers in their order.
func (c *groupClient) delete(names []string) []kadm.DeleteGroupResponse {
	var answers kadm.DeleteGroupResponses
	err := c.within(func(ctx context.Context) (err error) {
		answers, err = c.admin.DeleteGroups(ctx, names...)
		return err
	})
	all := make([]kadm.DeleteGroupResponse, len(names))
	for i, name := range names {
		answer, ok := answers[name]
		if !ok {
			answer = kadm.DeleteGroupResponse{Group: name, Err: missing(name, err)}
		}
		all[i] = answer
	}
	return all
}

// errOfGroup marks errors that explainGroup has worded.
type errOfGroup struct{ error }

func (e errOfGroup) Unwrap() error { return e.error }

// membersErrors are what servers answer to a commit from outside, or a deletion,
// while a group has members.
var membersErrors = []error{
	kerr.NonEmptyGroup, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress,
	kerr.StaleMemberEpoch, kerr.FencedMemberEpoch,
}

// explainGroup words an error of a group; once is enough.
func explainGroup(group string, err error, message string) error {
	if errors.As(err, new(errOfGroup)) {
		return err
	}
	var code *kerr.Error
	switch {
	case slices.ContainsFunc(membersErrors, func(e error) bool { return errors.Is(err, e) }):
		return errOfGroup{errActive(group)}
	case errors.Is(err, kerr.GroupIDNotFound):
		return errOfGroup{fmt.Errorf("group %s does not exist", cell(group))}
	case !errors.As(err, &code):
		return errOfGroup{fmt.Errorf("group %s: %w", cell(group), err)}
	}
	if message == "" {
		message = strings.TrimSuffix(code.Description, ".")
	}
	return errOfGroup{fmt.Errorf("group %s: %s: %s", cell(group), code.Message, message)}
}

func errActive(group string) error {
	return fmt.Errorf("group %s has active members: stop them first", cell(group))
}
