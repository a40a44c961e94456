package bookietest

import (
	"net"
	"sync"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// process is the bookie from a start to a stop or crash: its port, connections,
// pools and journal. Its fields but the first three are under the bookie's lock.
type process struct {
	b       *Bookie
	ln      net.Listener
	stopped chan struct{} // closed when dead is set
	wg      sync.WaitGroup

	dead    bool
	conns   map[*conn]bool
	pools   [2][]task
	journal []record
}

// task is a request in a pool.
type task struct {
	c      *conn
	r      wire.Request
	silent bool // it is not answered
}

// record waits for the journal's sync.
type record struct {
	ledger int64
	key    wire.MasterKey
	fence  bool
	entry  int64  // if stored is not nil
	stored []byte // or nil

	c      *conn // whom to answer
	answer wire.Response
	body   []byte
	silent bool
}

func newProcess(b *Bookie, ln net.Listener) *process {
	return &process{b: b, ln: ln, stopped: make(chan struct{}), conns: map[*conn]bool{}}
}

func (p *process) start(serves bool) {
	p.wg.Go(func() { p.accept(serves) })
	if !serves {
		return
	}
	for pool := range p.pools {
		p.wg.Go(func() { p.work(pool) })
	}
	p.wg.Go(p.sync)
}

// end closes everything. p.dead is set.
func (p *process) end() {
	close(p.stopped)
	p.ln.Close()
	p.b.mu.Lock()
	for c := range p.conns {
		c.reset()
	}
	p.b.mu.Unlock()
	p.wg.Wait()
}

func (p *process) accept(serves bool) {
	for {
		raw, err := p.ln.Accept()
		if err != nil {
			return
		}
		c := newConn(p, raw.(*net.TCPConn))
		p.b.mu.Lock()
		dead := p.dead
		if !dead && serves {
			p.conns[c] = true
		}
		p.b.mu.Unlock()
		if dead || !serves {
			c.reset()
			continue
		}
		p.wg.Go(c.read)
		p.wg.Go(c.write)
	}
}

// await waits, with the bookie's lock held, until ready; false: the process is dead.
func (p *process) await(ready func() bool) bool {
	for !p.dead && (p.b.paused || !ready()) {
		p.b.moved.Wait()
	}
	return !p.dead
}

// work does the requests of a pool in order.
func (p *process) work(pool int) {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	for p.await(func() bool { return len(p.pools[pool]) > 0 && !p.b.poolHeld[pool] }) {
		t := p.pools[pool][0]
		p.pools[pool] = p.pools[pool][1:]
		p.do(t)
	}
}

// sync writes the journal: everything that waits becomes durable at once, then it
// is answered, in one burst for each connection.
func (p *process) sync() {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	for p.await(func() bool { return len(p.journal) > 0 && !p.b.syncHeld }) {
		records := p.journal
		p.journal = nil
		for _, r := range records {
			// Garbage collection may have been faster.
			if p.b.memory[r.ledger] == nil {
				continue
			}
			l := p.b.durable.get(r.ledger, r.key)
			l.fenced = l.fenced || r.fence
			if r.stored != nil {
				l.entries[r.entry] = r.stored
			}
		}
		for _, r := range records {
			if r.c != nil && !r.silent {
				r.c.answer(r.answer, r.body)
			}
		}
	}
}
