package main

import (
	"bytes"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/groupcheck"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var full = os.Getenv("QUIRE_CONFORMANCE_FULL") == "true"

// small is a plan of a few groups, for a server with its etcd inside.
func small(t *testing.T, kind ...string) *plan {
	p := &plan{
		dir: t.TempDir(), groups: len(kind), members: 3, partitions: 8, perSecond: 10,
		timing: timing{session: 6 * time.Second, heartbeat: 500 * time.Millisecond, commit: 300 * time.Millisecond, redial: redialMax},
		leaves: 1, silent: 1, settle: settleTimeout,
		minGap: time.Second, maxGap: 5 * time.Second, seed: uint64(time.Now().UnixNano()), logf: t.Logf,
	}
	for _, name := range kind {
		p.flavors = append(p.flavors, kinds[name])
	}
	t.Logf("seed %d", p.seed)
	return p
}

// The short form of the long run that the command does; in the short run of the suite with
// several etcds only, so that one that is killed leaves a cluster that elects.
func TestGroupsThroughFaults(t *testing.T) {
	every := []string{"franz-range", "rd-range", "mixed-range", "franz-cooperative", "rd-cooperative", "franz-consumer", "rd-consumer", "mixed-consumer"}
	for _, c := range []struct {
		name    string
		members int // of etcd
	}{{"one etcd", 1}, {"three etcds", 3}} {
		if !full && c.members == 1 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			p := small(t, every...)
			p.changing, p.etcdMembers = len(every)-2, c.members
			p.timing.session = 10 * time.Second // no machine is silent for as long beside a pause
			p.duration, p.kills, p.pauses, p.etcdKills = 20*time.Second, 2, 1, 1
			res, err := p.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Log(res.summary())
			if err := res.verdict(0); err != nil {
				t.Fatal(err)
			}
			if res.Kills+res.Pauses+res.EtcdKills < 3 {
				t.Errorf("only %d faults were done", res.Kills+res.Pauses+res.EtcdKills)
			}
		})
	}
}

// A server that breaks its word is caught: the tap tells the clients of a sound
// one what a broken one would. The rules themselves have their tests in groupcheck.
func TestBrokenServersAreCaught(t *testing.T) {
	if !full {
		return // half a minute, and nothing of the server's
	}
	for _, c := range []struct {
		name string
		kind string
		rule groupcheck.Rule
		make func(p *plan)
	}{
		{"committed offsets are not found", "franz-range", groupcheck.RolledBack, func(p *plan) {
			p.changeResponse = func(_ string, _ kmsg.Request, resp kmsg.Response) bool {
				r, ok := resp.(*kmsg.OffsetFetchResponse)
				if !ok {
					return false
				}
				for i := range r.Groups {
					for j := range r.Groups[i].Topics {
						for k := range r.Groups[i].Topics[j].Partitions {
							r.Groups[i].Topics[j].Partitions[k].Offset = groupcheck.None
						}
					}
				}
				return true
			}
		}},
		{"one assignment for everybody", "rd-range", groupcheck.Shared, func(p *plan) {
			var mu sync.Mutex
			first := map[int32][]byte{} // by generation
			p.changeResponse = func(_ string, req kmsg.Request, resp kmsg.Response) bool {
				r, ok := resp.(*kmsg.SyncGroupResponse)
				if !ok || r.ErrorCode != 0 || req.(*kmsg.SyncGroupRequest).Generation < 2 {
					return false
				}
				mu.Lock()
				defer mu.Unlock()
				generation := req.(*kmsg.SyncGroupRequest).Generation
				if first[generation] == nil {
					first[generation] = bytes.Clone(r.MemberAssignment)
				}
				r.MemberAssignment = first[generation]
				return true
			}
		}},
		{"a member is forgotten", "franz-cooperative", groupcheck.ThrownOut, func(p *plan) {
			p.changing = 0
			p.changeResponse = refuseOneHeartbeat(p, kerr.UnknownMemberID.Code)
		}},
		{"a rebalance for nothing", "rd-cooperative", groupcheck.Uncaused, func(p *plan) {
			p.changing = 0
			p.changeResponse = refuseOneHeartbeat(p, kerr.RebalanceInProgress.Code)
		}},
		{"sessions that are too short", "mixed-range", groupcheck.TooEarly, func(p *plan) {
			p.silent, p.leaves = 1, 0
			p.changeRequest = changeSession(1500)
		}},
		{"sessions that are too long", "mixed-range", groupcheck.TooLate, func(p *plan) {
			p.silent, p.leaves = 1, 0
			p.timing.session = 3 * time.Second
			p.changeRequest = changeSession(600_000)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := small(t, c.kind)
			p.changing, p.duration, p.settle = 1, 12*time.Second, 20*time.Second
			c.make(p)
			res, err := p.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(res.Violations, func(v groupcheck.Violation) bool { return v.Rule == c.rule }) {
				t.Errorf("no %q among %v\n%s", c.rule, res.Violations, res.summary())
			}
		})
	}
}

// refuseOneHeartbeat answers one heartbeat with an error when the group has been
// at rest for a while.
func refuseOneHeartbeat(p *plan, code int16) func(string, kmsg.Request, kmsg.Response) bool {
	var once sync.Once
	var mu sync.Mutex
	heartbeats := 0
	return func(_ string, _ kmsg.Request, resp kmsg.Response) (changed bool) {
		const atRest = 10 // heartbeats
		r, ok := resp.(*kmsg.HeartbeatResponse)
		if !ok || r.ErrorCode != 0 || !p.rec.settled(groupName(0)) {
			return false
		}
		mu.Lock()
		heartbeats++
		due := heartbeats > atRest
		mu.Unlock()
		if due {
			once.Do(func() {
				r.ErrorCode, changed = code, true
			})
		}
		return changed
	}
}

// changeSession makes every member ask for another session timeout.
func changeSession(millis int32) func(string, kmsg.Request) bool {
	return func(_ string, req kmsg.Request) bool {
		r, ok := req.(*kmsg.JoinGroupRequest)
		if ok {
			r.SessionTimeoutMillis = millis
		}
		return ok
	}
}
