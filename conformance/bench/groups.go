package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	heartbeatEvery   = 3 * time.Second
	membersPerGroup  = 3
	heartbeatTime    = 15 * time.Second // that is measured
	groupConnections = 64               // of each member number
	groupsDelay      = 200 * time.Millisecond
	joinersAtOnce    = 500
	initialDelay     = 3 * time.Second // group.initial.rebalance.delay.ms
)

const (
	idleGroupsCell = "groups/idle"
	joinCell       = "groups/join"
)

// groups measures what members cost that only live, and how long many take to join.
func (b *bench) groups(ctx context.Context, pair int, server string) error {
	c := b.of(server)[0]
	if b.wants(idleGroupsCell) && c.Key == "quire" {
		if err := b.inSession(ctx, server, []string{fmt.Sprintf("group.initial.rebalance.delay.ms=%d", groupsDelay.Milliseconds())}, func(s *session) error {
			return b.idleGroups(ctx, s, pair, c)
		}); err != nil {
			return err
		}
	}
	if b.wants(joinCell) {
		return b.inSession(ctx, server, []string{fmt.Sprintf("group.initial.rebalance.delay.ms=%d", initialDelay.Milliseconds())}, func(s *session) error {
			return b.joinAtOnce(ctx, s, pair, c)
		})
	}
	return nil
}

func (b *bench) inSession(ctx context.Context, server string, overrides []string, f func(*session) error) error {
	s, err := open(ctx, b.DataDir, server, b.Profiles, overrides...)
	if err != nil {
		return err
	}
	if err = s.awaitCoordinator(ctx); err == nil {
		err = f(s)
	}
	if err != nil {
		err = fmt.Errorf("%w\nend of its log:\n%s", err, s.server.Process().LogTail(15))
	}
	return errors.Join(err, s.close())
}

// member is one member of a classic group.
type member struct {
	group, id  string
	generation int32
}

// idleGroups makes groups of membersPerGroup members and lets them heartbeat.
func (b *bench) idleGroups(ctx context.Context, s *session, pair int, c contender) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, groupConnections)
	joined := make(chan struct{}, groupConnections)
	beat := make(chan struct{})
	for i := range groupConnections {
		wg.Go(func() {
			err := groupWorker(ctx, s.server.Addr(), i, b.Groups, joined, beat)
			if err != nil && ctx.Err() == nil {
				errs <- fmt.Errorf("worker %d: %w", i, err)
				cancel()
			}
		})
	}
	fail := func() error {
		cancel()
		wg.Wait()
		select {
		case err := <-errs:
			return err
		default:
			return context.Cause(ctx)
		}
	}
	for range groupConnections {
		select {
		case <-joined:
		case <-ctx.Done():
			return fail()
		}
	}
	close(beat)
	pause := func(d time.Duration) bool {
		select {
		case <-time.After(d):
			return true
		case <-ctx.Done():
			return false
		}
	}
	if !pause(heartbeatEvery) {
		return fail()
	}
	stopProfile := s.profile(ctx, idleGroupsCell)
	cpu, err := s.cpu(func() error {
		if !pause(heartbeatTime) {
			return fail()
		}
		return nil
	})
	if err = errors.Join(err, stopProfile()); err != nil {
		return err
	}
	usage, err := s.server.Process().Usage()
	if err != nil {
		return err
	}
	cancel()
	wg.Wait()
	b.add(pair, idleGroupsCell, c.Key, map[string]float64{
		"groups": float64(b.Groups), cores: cpu.Seconds() / heartbeatTime.Seconds(), rssMB: float64(usage.RSSBytes) / megabyte,
	})
	return nil
}

// groupWorker makes the groups i, i+n, i+2n … and keeps their members alive.
// Each member number has a connection of its own: a join waits for the others.
func groupWorker(ctx context.Context, addr string, i, groups int, joined chan<- struct{}, beat <-chan struct{}) error {
	var conns [membersPerGroup]*wire.Conn
	for m := range conns {
		conn, err := wire.Dial(ctx, addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		conns[m] = conn
	}
	var members []member
	for n := i; n < groups; n += groupConnections {
		made, err := makeGroup(ctx, conns[:], fmt.Sprintf("bench-%d", n))
		if err != nil {
			return err
		}
		members = append(members, made...)
	}
	joined <- struct{}{}
	select {
	case <-beat:
	case <-ctx.Done():
		return nil
	}
	for began := time.Now(); ; {
		for n, m := range members {
			// Spread over the interval, as members are that joined one by one.
			due := began.Add(heartbeatEvery * time.Duration(n) / time.Duration(len(members)))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return nil
			}
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group, req.Generation, req.MemberID = m.group, m.generation, m.id
			resp, err := conns[n%membersPerGroup].Call(ctx, req, 4)
			if err != nil {
				return err
			}
			if err := kerr.ErrorForCode(resp.(*kmsg.HeartbeatResponse).ErrorCode); err != nil {
				return fmt.Errorf("heartbeat of %s: %w", m.group, err)
			}
		}
		began = began.Add(heartbeatEvery)
	}
}

// makeGroup joins all members within the server's initial delay, into one generation.
func makeGroup(ctx context.Context, conns []*wire.Conn, group string) ([]member, error) {
	members := make([]member, len(conns))
	joins := make([]*kmsg.JoinGroupResponse, len(conns))
	failed := make([]error, len(conns))
	var wg sync.WaitGroup
	for at := range conns {
		members[at].group = group
		wg.Go(func() { joins[at], failed[at] = join(ctx, conns[at], &members[at]) })
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	for at, joined := range joins {
		if joined.Generation != joins[0].Generation || joined.LeaderID == members[at].id && len(joined.Members) != len(conns) {
			return nil, fmt.Errorf("the members of %s did not join within %v", group, groupsDelay)
		}
	}
	for at := range conns {
		wg.Go(func() { failed[at] = syncMember(ctx, conns[at], &members[at], joins[at]) })
	}
	wg.Wait()
	return members, errors.Join(failed...)
}

// joinRequest is the classic protocol's, version 3: the server adds the member at once.
func joinRequest(m *member) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID = m.group, m.id
	// The first members wait, silent, until the last group is made.
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 300_000, 300_000
	req.ProtocolType = "consumer"
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name = "range"
	p.Metadata = (&kmsg.ConsumerMemberMetadata{Topics: []string{"bench"}}).AppendTo(nil)
	req.Protocols = []kmsg.JoinGroupRequestProtocol{p}
	return req
}

// join waits for the answer to a JoinGroup. A coordinator that has just started
// may have to load first.
func join(ctx context.Context, conn *wire.Conn, m *member) (*kmsg.JoinGroupResponse, error) {
	for {
		got, err := conn.Call(ctx, joinRequest(m), 3)
		if err != nil {
			return nil, err
		}
		resp := got.(*kmsg.JoinGroupResponse)
		err = kerr.ErrorForCode(resp.ErrorCode)
		if err == nil {
			m.id, m.generation = resp.MemberID, resp.Generation
			return resp, nil
		}
		if !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			return nil, fmt.Errorf("join of %s: %w", m.group, err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// syncMember gets the member's assignment; the leader brings everybody's.
func syncMember(ctx context.Context, conn *wire.Conn, m *member, joined *kmsg.JoinGroupResponse) error {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.Generation, req.MemberID = m.group, m.generation, m.id
	if joined.LeaderID == m.id {
		for _, other := range joined.Members {
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID = other.MemberID
			a.MemberAssignment = (&kmsg.ConsumerMemberAssignment{}).AppendTo(nil)
			req.GroupAssignment = append(req.GroupAssignment, a)
		}
	}
	resp, err := conn.Call(ctx, req, 3)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.SyncGroupResponse).ErrorCode); err != nil {
		return fmt.Errorf("sync of %s: %w", m.group, err)
	}
	return nil
}

// joinAtOnce measures from the first join of many members to the last assignment.
func (b *bench) joinAtOnce(ctx context.Context, s *session, pair int, c contender) error {
	conns := make([]*wire.Conn, joinersAtOnce)
	for i := range conns {
		conn, err := wire.Dial(ctx, s.server.Addr())
		if err != nil {
			return err
		}
		defer conn.Close()
		conns[i] = conn
	}
	members := make([]member, joinersAtOnce)
	joins := make([]*kmsg.JoinGroupResponse, joinersAtOnce)
	failed := make([]error, joinersAtOnce)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range conns {
		members[i].group = "at-once"
		wg.Go(func() {
			if joins[i], failed[i] = join(ctx, conns[i], &members[i]); failed[i] == nil {
				failed[i] = syncMember(ctx, conns[i], &members[i], joins[i])
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("%d members at once: %w", joinersAtOnce, err)
	}
	b.add(pair, joinCell, c.Key, map[string]float64{seconds: took.Seconds(), "members": joinersAtOnce})
	return nil
}
