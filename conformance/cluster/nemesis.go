package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// A nemesis does one kind of harm and heals it.
type nemesis struct {
	name    string
	what    string
	network bool // it needs networks of its own
	do      func(context.Context, *harm) error
}

// A harm is one use of a nemesis. Its context ends when the time for harm is over;
// what was done is healed all the same.
type harm struct {
	c     *cluster
	p     *plan
	rng   *rand.Rand
	taken []string // claimed for it
	// what and from are told to the report once the harm is done.
	mu   sync.Mutex
	what string
	from time.Time
}

// twinTimeout is how long after a lease's time a second server of one name may take
// to notice the first and end, on a machine that has a lot else to do.
const twinTimeout = 30 * time.Second

// errBusy says that another nemesis is at all processes that this one could harm.
var errBusy = errors.New("all of them are taken")

// begins is called when the harm begins: the report counts from here.
func (h *harm) begins(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.what, h.from = fmt.Sprintf(format, args...), time.Now()
}

// hold waits for a time from the range, no longer than the run allows, and says
// how long it was to be.
func (h *harm) hold(ctx context.Context, shortest, longest time.Duration) {
	longest = max(shortest, min(longest, h.p.holdMax))
	wait(ctx, shortest+time.Duration(h.rng.Int64N(int64(longest-shortest)+1)))
}

// healing is a context for what must be done even when the run is over.
func healing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (h *harm) claim(names ...string) bool {
	if !h.c.claim(names...) {
		return false
	}
	h.taken = append(h.taken, names...)
	return true
}

// node takes a server that no other nemesis has.
func (h *harm) node() (*node, error) {
	for _, i := range h.rng.Perm(len(h.c.nodes)) {
		if n := h.c.nodes[i]; h.claim(n.name) {
			return n, nil
		}
	}
	return nil, errBusy
}

func (h *harm) bookie() (int, *peer.JavaServer, error) {
	for _, i := range h.rng.Perm(len(h.c.bk.Bookies)) {
		if h.claim(bookieName(i)) {
			return i, h.c.bk.Bookies[i], nil
		}
	}
	return 0, nil, errBusy
}

func (h *harm) etcd() (*peer.EtcdMember, error) {
	for _, i := range h.rng.Perm(len(h.c.bk.Etcd.Members)) {
		if m := h.c.bk.Etcd.Members[i]; h.claim(m.Name()) {
			return m, nil
		}
	}
	return nil, errBusy
}

func bookieName(i int) string { return fmt.Sprintf("bookie-%d", i+1) }

// all takes every process of a kind.
func (h *harm) allNodes() error {
	var names []string
	for _, n := range h.c.nodes {
		names = append(names, n.name)
	}
	return h.allOf(names)
}

func (h *harm) allBookies() error {
	var names []string
	for i := range h.c.bk.Bookies {
		names = append(names, bookieName(i))
	}
	return h.allOf(names)
}

func (h *harm) allEtcds() error {
	var names []string
	for _, m := range h.c.bk.Etcd.Members {
		names = append(names, m.Name())
	}
	return h.allOf(names)
}

func (h *harm) allOf(names []string) error {
	if !h.claim(names...) {
		return errBusy
	}
	return nil
}

var nemeses = []nemesis{
	{name: "kill-owner", what: "kill -9 of a server, which owns its share of partitions and groups; started again later", do: killOwner},
	{name: "kill-owners", what: "kill -9 of all servers at once; started again together", do: killOwners},
	{name: "pause-owner", what: "SIGSTOP of a server for longer or shorter than its lease, then SIGCONT: a zombie", do: pauseOwner},
	{name: "kill-bookie", what: "kill -9 of a bookie; started again later", do: killBookie},
	{name: "kill-bookies", what: "kill -9 of all bookies at once; started again together", do: killBookies},
	{name: "pause-bookie", what: "SIGSTOP of a bookie, then SIGCONT", do: pauseBookie},
	{name: "slow-bookie", what: "each sync of one bookie's files takes 200 ms longer", do: slowBookie},
	{name: "full-bookie", what: "the file system of the first bookie is filled to its last byte, then emptied", network: true, do: fullBookie},
	{name: "kill-etcd", what: "kill -9 of a member of etcd; started again later", do: killEtcd},
	{name: "kill-etcds", what: "kill -9 of all of etcd at once; started again together", do: killEtcds},
	{name: "pause-etcd", what: "SIGSTOP of a member of etcd, then SIGCONT", do: pauseEtcd},
	{name: "pause-etcd-leader", what: "the same with the leader", do: pauseEtcdLeader},
	{name: "etcd-away", what: "SIGSTOP of all of etcd for -etcd-away, then SIGCONT: every lease has ended meanwhile", do: etcdAway},
	{name: "etcd-dead", what: "kill -9 of all of etcd, started again after -etcd-away", do: etcdDead},
	{name: "etcd-unreachable", what: "nothing passes between etcd and anything else for -etcd-away; its members go on", network: true, do: etcdUnreachable},
	{name: "cut-etcd", what: "nothing passes between one server and etcd", network: true, do: cut(toEtcd, bothWays)},
	{name: "cut-bookies", what: "nothing passes between one server and the bookies", network: true, do: cut(toBookies, bothWays)},
	{name: "cut-servers", what: "nothing passes between one server and the other servers", network: true, do: cut(toServers, bothWays)},
	{name: "cut-clients", what: "nothing passes between one server and HAProxy", network: true, do: cut(toHAProxy, bothWays)},
	{name: "cut-all", what: "nothing passes between one server and anything else", network: true, do: cut(toAll, bothWays)},
	{name: "half-etcd", what: "a server's packets reach etcd, and no answer comes back; or the other way round", network: true, do: cut(toEtcd, oneWay)},
	{name: "half-bookies", what: "the same between a server and the bookies", network: true, do: cut(toBookies, oneWay)},
	{name: "half-servers", what: "the same between a server and the others", network: true, do: cut(toServers, oneWay)},
	{name: "cut-etcd-member", what: "nothing passes between a member of etcd and the others", network: true, do: cutEtcdMember},
	{name: "revoke-lease", what: "a server's lease is revoked by hand", do: revokeLease},
	{name: "reload-haproxy", what: "HAProxy is reloaded", do: reloadHAProxy},
	{name: "kill-haproxy", what: "kill -9 of HAProxy; started again", do: killHAProxy},
	{name: "stop-owner", what: "SIGTERM of a server: it drains and ends with status 0; started again later", do: stopOwner},
	{name: "rolling-restart", what: "all servers in turn are drained, ended by SIGTERM, started again and awaited, as deploy/rolling-restart does", do: rollingRestart},
	{name: "drain", what: "a server is drained and undrained by its verb", do: drain},
	{name: "power-cut", what: "kill -9 of all bookies, then of all servers; all started again: what nobody has on disk is gone", do: powerCut},
	{name: "last-bookie", what: "SIGSTOP of all bookies but one, then kill -9 of all servers and all bookies; that one is started last, when the servers have done without it", do: lastBookie},
	{name: "twin", what: "a second server with the id and name of one that runs, on another folder: it must refuse to serve", do: twin},
}

// choose returns the nemeses of a list of names.
func choose(list string) ([]nemesis, error) {
	if list == "all" {
		return nemeses, nil
	}
	var chosen []nemesis
	for name := range strings.SplitSeq(list, ",") {
		if name == "none" {
			continue
		}
		i := slices.IndexFunc(nemeses, func(n nemesis) bool { return n.name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown nemesis %q; -list tells them", name)
		}
		chosen = append(chosen, nemeses[i])
	}
	return chosen, nil
}

func killOwner(ctx context.Context, h *harm) error {
	n, err := h.node()
	if err != nil {
		return err
	}
	h.begins("%s killed", n.name)
	if err := n.server.Kill(); err != nil {
		return err
	}
	h.hold(ctx, 200*time.Millisecond, 8*time.Second)
	ctx, cancel := healing(ctx)
	defer cancel()
	return h.c.startNode(ctx, n)
}

func killOwners(ctx context.Context, h *harm) error {
	if err := h.allNodes(); err != nil {
		return err
	}
	h.begins("all servers killed")
	if err := h.c.eachNode(func(n *node) error { return n.server.Kill() }); err != nil {
		return err
	}
	h.hold(ctx, 0, 5*time.Second)
	ctx, cancel := healing(ctx)
	defer cancel()
	return h.c.eachNode(func(n *node) error { return h.c.startNode(ctx, n) })
}

func pauseOwner(ctx context.Context, h *harm) error {
	n, err := h.node()
	if err != nil {
		return err
	}
	h.begins("%s stopped", n.name)
	if err := n.server.Process().Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	h.hold(ctx, time.Second, 30*time.Second)
	return n.server.Process().Signal(syscall.SIGCONT)
}

func killBookie(ctx context.Context, h *harm) error {
	i, b, err := h.bookie()
	if err != nil {
		return err
	}
	h.begins("%s killed", bookieName(i))
	if err := b.Kill(); err != nil {
		return err
	}
	h.hold(ctx, 500*time.Millisecond, 10*time.Second)
	ctx, cancel := healing(ctx)
	defer cancel()
	return h.c.startBookie(ctx, b)
}

func killBookies(ctx context.Context, h *harm) error {
	if err := h.allBookies(); err != nil {
		return err
	}
	h.begins("all bookies killed")
	if err := h.eachBookie(func(b *peer.JavaServer) error { return b.Kill() }); err != nil {
		return err
	}
	h.hold(ctx, 0, 2*time.Second)
	ctx, cancel := healing(ctx)
	defer cancel()
	return h.eachBookie(func(b *peer.JavaServer) error { return h.c.startBookie(ctx, b) })
}

// powerCut kills the bookies first: a server that acknowledges what none of them
// has can do so for powerCutGap more, and then has nobody to send it to.
func powerCut(ctx context.Context, h *harm) error {
	const powerCutGap = 100 * time.Millisecond
	if err := h.allBookies(); err != nil {
		return err
	}
	if err := h.allNodes(); err != nil {
		return err
	}
	h.begins("all bookies and all servers killed")
	if err := h.eachBookie(func(b *peer.JavaServer) error { return b.Kill() }); err != nil {
		return err
	}
	wait(ctx, powerCutGap)
	if err := h.c.eachNode(func(n *node) error { return n.server.Kill() }); err != nil {
		return err
	}
	h.hold(ctx, 0, 2*time.Second)
	ctx, cancel := healing(ctx)
	defer cancel()
	if err := h.eachBookie(func(b *peer.JavaServer) error { return h.c.startBookie(ctx, b) }); err != nil {
		return err
	}
	return h.c.eachNode(func(n *node) error { return h.c.startNode(ctx, n) })
}

// lastBookie leaves one bookie to the servers for a while, without their knowing of
// it, and then takes it away and brings the others back: what was acknowledged
// meanwhile would be on that one alone.
func lastBookie(ctx context.Context, h *harm) error {
	if err := h.allBookies(); err != nil {
		return err
	}
	if err := h.allNodes(); err != nil {
		return err
	}
	last := h.rng.IntN(len(h.c.bk.Bookies))
	h.begins("%s left alone, then all servers and bookies killed", bookieName(last))
	others := func(f func(*peer.JavaServer) error) error {
		return h.eachBookie(func(b *peer.JavaServer) error {
			if b == h.c.bk.Bookies[last] {
				return nil
			}
			return f(b)
		})
	}
	if err := others(func(b *peer.JavaServer) error { return b.Pause() }); err != nil {
		return err
	}
	wait(ctx, time.Second)
	// The servers first: one that sees its bookies end closes its ledgers with what
	// it has acknowledged, and then nobody forgets that it was there.
	if err := errors.Join(h.c.eachNode(func(n *node) error { return n.server.Kill() }), h.eachBookie(func(b *peer.JavaServer) error { return b.Kill() })); err != nil {
		return err
	}
	healCtx, cancel := healing(ctx)
	defer cancel()
	if err := others(func(b *peer.JavaServer) error { return h.c.startBookie(healCtx, b) }); err != nil {
		return err
	}
	if err := h.c.eachNode(func(n *node) error { return h.c.startNode(healCtx, n) }); err != nil {
		return err
	}
	h.hold(ctx, 3*time.Second, 8*time.Second)
	return h.c.startBookie(healCtx, h.c.bk.Bookies[last])
}

func (h *harm) eachBookie(f func(*peer.JavaServer) error) error {
	errs := make([]error, len(h.c.bk.Bookies))
	var running sync.WaitGroup
	for i, b := range h.c.bk.Bookies {
		running.Go(func() { errs[i] = f(b) })
	}
	running.Wait()
	return errors.Join(errs...)
}

func pauseBookie(ctx context.Context, h *harm) error {
	i, b, err := h.bookie()
	if err != nil {
		return err
	}
	h.begins("%s stopped", bookieName(i))
	if err := b.Pause(); err != nil {
		return err
	}
	h.hold(ctx, time.Second, 30*time.Second)
	return b.Resume()
}

// A slowDisk makes the syncs of one bookie at a time slow.
type slowDisk struct{ bookie atomic.Int32 } // its number from 1; 0: none

const slowSync = 200 * time.Millisecond

func (s *slowDisk) interceptor(bookie int) peer.Interceptor {
	return func(call peer.FileCall) syscall.Errno {
		if call.Sync && s.bookie.Load() == int32(bookie+1) {
			time.Sleep(slowSync)
		}
		return 0
	}
}

func slowBookie(ctx context.Context, h *harm) error {
	i, _, err := h.bookie()
	if err != nil {
		return err
	}
	if !h.claim("slow disk") {
		return errBusy
	}
	h.begins("%s syncs slowly", bookieName(i))
	h.c.slow.bookie.Store(int32(i + 1))
	h.hold(ctx, 2*time.Second, 15*time.Second)
	h.c.slow.bookie.Store(0)
	return nil
}

func fullBookie(ctx context.Context, h *harm) error {
	if !h.claim(bookieName(0)) {
		return errBusy
	}
	b := h.c.bk.Bookies[0]
	h.begins("%s has no space left", bookieName(0))
	if err := fill(ballast(b)); err != nil {
		return errors.Join(err, os.Remove(ballast(b)))
	}
	h.hold(ctx, 3*time.Second, 10*time.Second)
	if err := os.Remove(ballast(b)); err != nil {
		return err
	}
	// A bookie that turned read-only or ended for want of space is for its
	// supervisor, or for an operator, to start again.
	ctx, cancel := healing(ctx)
	defer cancel()
	if err := b.Kill(); err != nil {
		return err
	}
	return h.c.startBookie(ctx, b)
}

// ballast is what fills a bookie's file system.
func ballast(b *peer.JavaServer) string { return filepath.Join(b.Dir(), "ballast") }

// fill writes a file until its file system has no space left.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for {
		if _, err := f.Write(block); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return nil
			}
			return err
		}
	}
}

func killEtcd(ctx context.Context, h *harm) error {
	m, err := h.etcd()
	if err != nil {
		return err
	}
	h.begins("%s killed", m.Name())
	if err := m.Process().Kill(); err != nil {
		return err
	}
	h.hold(ctx, 200*time.Millisecond, 8*time.Second)
	ctx, cancel := healing(ctx)
	defer cancel()
	if err := m.Exec(); err != nil {
		return err
	}
	return m.WaitReady(ctx)
}

func killEtcds(ctx context.Context, h *harm) error {
	if err := h.allEtcds(); err != nil {
		return err
	}
	h.begins("all of etcd killed")
	h.c.bk.Etcd.Kill()
	h.hold(ctx, 0, 8*time.Second)
	ctx, cancel := healing(ctx)
	defer cancel()
	return h.c.bk.Etcd.Start(ctx)
}

func pauseEtcd(ctx context.Context, h *harm) error {
	m, err := h.etcd()
	if err != nil {
		return err
	}
	return h.pauseMember(ctx, m)
}

func (h *harm) pauseMember(ctx context.Context, m *peer.EtcdMember) error {
	h.begins("%s stopped", m.Name())
	if err := m.Pause(); err != nil {
		return err
	}
	h.hold(ctx, time.Second, 30*time.Second)
	return m.Resume()
}

func pauseEtcdLeader(ctx context.Context, h *harm) error {
	for _, m := range h.c.bk.Etcd.Members {
		leads, err := m.Leads(ctx)
		if err == nil && leads && h.claim(m.Name()) {
			return h.pauseMember(ctx, m)
		}
	}
	return errBusy
}

func etcdAway(ctx context.Context, h *harm) error {
	if err := h.allEtcds(); err != nil {
		return err
	}
	h.begins("all of etcd stopped")
	var failed []error
	for _, m := range h.c.bk.Etcd.Members {
		failed = append(failed, m.Pause())
	}
	wait(ctx, h.p.etcdAway)
	for _, m := range h.c.bk.Etcd.Members {
		failed = append(failed, m.Resume())
	}
	return errors.Join(failed...)
}

func etcdDead(ctx context.Context, h *harm) error {
	if err := h.allEtcds(); err != nil {
		return err
	}
	h.begins("all of etcd killed")
	h.c.bk.Etcd.Kill()
	wait(ctx, h.p.etcdAway)
	ctx, cancel := healing(ctx)
	defer cancel()
	return h.c.bk.Etcd.Start(ctx)
}

// etcdUnreachable leaves the members to each other, so that they have a leader, who
// ends the leases of those that it does not hear.
func etcdUnreachable(ctx context.Context, h *harm) error {
	if err := h.allEtcds(); err != nil {
		return err
	}
	h.begins("all of etcd out of reach")
	each := func(do func(to, from *peer.Host) error) error {
		var failed []error
		for _, m := range h.c.etcdHosts {
			for _, o := range slices.Concat(h.c.nodeHosts, h.c.bookieHosts) {
				failed = append(failed, do(m, o), do(o, m))
			}
		}
		return errors.Join(failed...)
	}
	// Whoever looks after the bookies does not reach etcd either.
	h.c.supervisor.Stop()
	defer func() { h.c.supervisor = h.c.bk.Supervise(unregistered, h.p.logf) }()
	// AutoRecovery, which has the network of nobody, would fence ledgers whose writers
	// cannot store where they go on.
	var failed []error
	if a := h.c.bk.AutoRecovery; a != nil {
		failed = append(failed, a.Pause())
		defer a.Resume()
	}
	failed = append(failed, each((*peer.Host).Drop))
	wait(ctx, h.p.etcdAway)
	return errors.Join(append(failed, each((*peer.Host).Pass))...)
}

// What a server is cut off from.
type side struct {
	name string
	of   func(h *harm, n *node) []*peer.Host
}

var (
	toEtcd    = side{"etcd", func(h *harm, _ *node) []*peer.Host { return h.c.etcdHosts }}
	toBookies = side{"the bookies", func(h *harm, _ *node) []*peer.Host { return h.c.bookieHosts }}
	toServers = side{"the other servers", func(h *harm, n *node) []*peer.Host { return h.c.others(n) }}
	toHAProxy = side{"HAProxy", func(h *harm, _ *node) []*peer.Host { return []*peer.Host{h.c.proxyHost} }}
	toAll     = side{"everything", func(h *harm, n *node) []*peer.Host {
		return slices.Concat(h.c.etcdHosts, h.c.bookieHosts, h.c.others(n), []*peer.Host{h.c.proxyHost})
	}}
)

func (c *cluster) others(n *node) []*peer.Host {
	var others []*peer.Host
	for _, o := range c.nodes {
		if o != n {
			others = append(others, o.host)
		}
	}
	return others
}

type way int

const (
	bothWays way = iota
	oneWay       // either, by chance
)

// cut drops what one server and a side of its send each other.
func cut(s side, w way) func(context.Context, *harm) error {
	return func(ctx context.Context, h *harm) error {
		n, err := h.node()
		if err != nil {
			return err
		}
		others := s.of(h, n)
		in, out, how := true, true, "|"
		if w == oneWay {
			in = h.rng.IntN(2) == 0
			out = !in
			how = map[bool]string{true: "hears nothing of", false: "is not heard by"}[in]
		}
		if w == bothWays {
			how = "cut off from"
		}
		h.begins("%s %s %s", n.name, how, s.name)
		each := func(do func(to, from *peer.Host) error) error {
			var failed []error
			for _, o := range others {
				if in {
					failed = append(failed, do(n.host, o))
				}
				if out {
					failed = append(failed, do(o, n.host))
				}
			}
			return errors.Join(failed...)
		}
		err = each((*peer.Host).Drop)
		h.hold(ctx, time.Second, 20*time.Second)
		return errors.Join(err, each((*peer.Host).Pass))
	}
}

func cutEtcdMember(ctx context.Context, h *harm) error {
	m, err := h.etcd()
	if err != nil {
		return err
	}
	own := h.c.etcdHosts[slices.Index(h.c.bk.Etcd.Members, m)]
	h.begins("%s cut off from the other members", m.Name())
	each := func(do func(to, from *peer.Host) error) error {
		var failed []error
		for _, o := range h.c.etcdHosts {
			if o != own {
				failed = append(failed, do(own, o), do(o, own))
			}
		}
		return errors.Join(failed...)
	}
	err = each((*peer.Host).Drop)
	h.hold(ctx, time.Second, 20*time.Second)
	return errors.Join(err, each((*peer.Host).Pass))
}

// nodeKeys begin the keys of the servers that run: each hangs on its server's
// lease.
const nodeKeys = "quire/main/node/"

func revokeLease(ctx context.Context, h *harm) error {
	keys, err := h.c.bk.Etcd.Prefix(ctx, nodeKeys)
	if err != nil || len(keys) == 0 {
		return errBusy // etcd is another nemesis's
	}
	kv := keys[h.rng.IntN(len(keys))]
	h.begins("lease of node %s revoked", strings.TrimPrefix(string(kv.Key), nodeKeys))
	if kv.Lease == 0 {
		return fmt.Errorf("%s hangs on no lease", kv.Key)
	}
	if err := h.c.bk.Etcd.Revoke(ctx, kv.Lease); err != nil {
		return errBusy
	}
	wait(ctx, 2*time.Second)
	return nil
}

func reloadHAProxy(ctx context.Context, h *harm) error {
	if !h.claim("haproxy") {
		return errBusy
	}
	h.begins("HAProxy reloaded")
	ctx, cancel := healing(ctx)
	defer cancel()
	return h.c.haproxy.Reload(ctx)
}

func killHAProxy(ctx context.Context, h *harm) error {
	if !h.claim("haproxy") {
		return errBusy
	}
	h.begins("HAProxy killed")
	if err := h.c.haproxy.Kill(); err != nil {
		return err
	}
	h.hold(ctx, 0, 2*time.Second)
	ctx, cancel := healing(ctx)
	defer cancel()
	return h.c.haproxy.Start(ctx)
}

func stopOwner(ctx context.Context, h *harm) error {
	n, err := h.node()
	if err != nil {
		return err
	}
	h.begins("%s told to end", n.name)
	if err := h.stopNode(ctx, n); err != nil {
		return err
	}
	h.hold(ctx, 0, 5*time.Second)
	ctx, cancel := healing(ctx)
	defer cancel()
	return h.c.startNode(ctx, n)
}

// unfinished finds what a server says last, and ends with status 1, when it gives up
// ending in order: the metadata store or another server, to which another fault is done,
// does not answer.
var unfinished = regexp.MustCompile(`not closed in time, leaving|^quire: closing .*(context deadline exceeded|is not available)`)

func (h *harm) stopNode(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := n.server.Stop(ctx); err != nil {
		if h.p.parallel > 1 && ctx.Err() == nil && unfinished.MatchString(n.server.LogTail(1)) {
			h.p.logf("%s could not end in order", n.name)
			return nil
		}
		return fmt.Errorf("%s: %w\n%s", n.name, err, n.server.Process().LogTail(10))
	}
	return nil
}

// untilDone has a server drained or undrained as soon as it can be: one whose lease has
// just ended is registered again after some tenths of a second, and until then there is
// no such node; and another nemesis may be at etcd.
func untilDone(ctx context.Context, n *node, verb string) error {
	for {
		err := n.server.NodeVerb(ctx, verb, "self")
		if err == nil {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func rollingRestart(ctx context.Context, h *harm) error {
	if err := h.allNodes(); err != nil {
		return err
	}
	h.begins("all servers restarted in turn")
	healCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(len(h.c.nodes))*(startTimeout+stopTimeout))
	defer cancel()
	for _, n := range h.c.nodes {
		if err := untilDone(healCtx, n, "drain"); err != nil {
			return err
		}
		if err := h.stopNode(healCtx, n); err != nil {
			return err
		}
		if err := h.c.startNode(healCtx, n); err != nil {
			return err
		}
		if err := n.server.NodeVerb(healCtx, "await", "--nodes", fmt.Sprint(len(h.c.nodes))); err != nil {
			return err
		}
	}
	return nil
}

func drain(ctx context.Context, h *harm) error {
	n, err := h.node()
	if err != nil {
		return err
	}
	h.begins("%s drained", n.name)
	ctx, cancel := healing(ctx)
	defer cancel()
	if err := untilDone(ctx, n, "drain"); err != nil {
		return err
	}
	h.hold(ctx, time.Second, 6*time.Second)
	return untilDone(ctx, n, "undrain")
}

// twin starts a second server with the name, and so the id, of one that runs, with
// a folder and addresses of its own.
func twin(ctx context.Context, h *harm) error {
	n, err := h.node()
	if err != nil {
		return err
	}
	other, err := h.c.newNode(ctx, h.p, n.name, n.name+"-twin", n.host)
	if err != nil {
		return err
	}
	h.begins("a second %s started", n.name)
	ctx, cancel := healing(ctx)
	defer cancel()
	if err := other.server.Exec(ctx); err != nil {
		return err
	}
	process := other.server.Process()
	limit := time.NewTimer(h.p.lease + twinTimeout)
	defer limit.Stop()
	select {
	case <-process.Exited():
	case <-limit.C:
		return errors.Join(fmt.Errorf("a second server with the id of %s goes on\n%s", n.name, process.LogTail(10)), other.server.Kill())
	}
	last := process.LogTail(1)
	if code := process.ExitCode(); code != 1 || !strings.HasPrefix(last, "quire: ") {
		return fmt.Errorf("a second server with the id of %s ended with status %d and says %q, want 1 and one line for people", n.name, code, last)
	}
	h.p.logf("the second %s said: %s", n.name, last)
	return os.RemoveAll(other.options.Dir)
}
