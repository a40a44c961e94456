package peer

import (
	"context"
	"net"
	"time"
)

// A Supervisor keeps the Java servers of a cluster running, as production must:
// the etcd driver of Pulsar 4.x goes deaf when its connection to etcd breaks, and
// a bookie that stalls past its lease never registers again. It restarts
//   - what ended and was not ended by this suite,
//   - a bookie that answers on its port and has not been registered for Unregistered,
//     one at a time: as many as serve are to go on serving,
//   - AutoRecovery when members of etcd were restarted, and when a registered
//     bookie has been gone for Unregistered.
type Supervisor struct {
	cluster      *BookKeeper
	unregistered time.Duration
	logf         func(format string, args ...any)
	cancel       context.CancelFunc
	done         chan struct{}

	missing map[*JavaServer]time.Time // since when a bookie is not registered
	// patience is what a bookie gets to register once it was started again: on a busy
	// machine its start alone may take longer than unregistered.
	patience  map[*JavaServer]time.Duration
	audited   map[*JavaServer]bool // AutoRecovery was restarted for it
	etcdSince map[*EtcdMember]int  // process ids
}

// patienceMax is the longest that a bookie gets.
const patienceMax = time.Minute

// Supervise begins to watch. End it by Stop before the cluster is ended.
func (c *BookKeeper) Supervise(unregistered time.Duration, logf func(format string, args ...any)) *Supervisor {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Supervisor{
		cluster: c, unregistered: unregistered, logf: logf, cancel: cancel, done: make(chan struct{}),
		missing: map[*JavaServer]time.Time{}, patience: map[*JavaServer]time.Duration{}, audited: map[*JavaServer]bool{}, etcdSince: map[*EtcdMember]int{},
	}
	for _, m := range c.Etcd.Members {
		s.etcdSince[m] = m.Process().PID()
	}
	go s.run(ctx)
	return s
}

// Stop ends the watch and returns when it has ended.
func (s *Supervisor) Stop() {
	s.cancel()
	<-s.done
}

func (s *Supervisor) run(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.look(ctx)
		}
	}
}

func (s *Supervisor) look(ctx context.Context) {
	deaf := false
	for _, m := range s.cluster.Etcd.Members {
		if pid := m.Process().PID(); pid != s.etcdSince[m] {
			if m.healthy(ctx) != nil {
				return // nothing that starts now would get on
			}
			s.etcdSince[m], deaf = pid, true
		}
	}
	for _, b := range s.cluster.Bookies {
		proc := b.Process()
		if proc == nil {
			continue
		}
		s.revive(b, "it ended", false)
		registered, _, err := s.cluster.Registered(ctx, b)
		if err != nil {
			return
		}
		if registered {
			delete(s.missing, b)
			delete(s.patience, b)
			delete(s.audited, b)
			continue
		}
		since, known := s.missing[b]
		if !known {
			s.missing[b] = time.Now()
			continue
		}
		patience := max(s.unregistered, s.patience[b])
		if time.Since(since) < patience {
			continue
		}
		if !proc.ended() && time.Since(proc.Started()) < patience {
			continue // it is starting
		}
		if s.starting(b) {
			continue
		}
		if answers(ctx, b.ID) && s.revive(b, "it serves and is not registered", true) {
			delete(s.missing, b)
			s.patience[b] = min(2*patience, patienceMax)
		} else if !s.audited[b] {
			s.audited[b], deaf = true, true
		}
	}
	if s.cluster.AutoRecovery != nil {
		s.revive(s.cluster.AutoRecovery, "it ended, or may not hear etcd any more", deaf)
	}
}

// starting says whether a bookie other than b was started again and may still register.
func (s *Supervisor) starting(b *JavaServer) bool {
	for other, patience := range s.patience {
		if other != b && !other.Process().ended() && time.Since(other.Process().Started()) < patience {
			return true
		}
	}
	return false
}

func (s *Supervisor) revive(server *JavaServer, why string, kill bool) bool {
	did, err := server.revive(kill)
	if did || err != nil {
		s.logf("supervisor: %s started again: %s (error %v)", server.ID, why, err)
	}
	return did
}

func answers(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
