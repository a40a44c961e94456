package proxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// pingHandler answers with 4 bytes of header from memory that a request keeps.
func answerFromScratch(r *Request) {
	parts, _ := r.Scratch.(*[1][]byte)
	if parts == nil {
		parts = &[1][]byte{make([]byte, 4)}
		r.Scratch = parts
	}
	binary.BigEndian.PutUint32(parts[0], uint32(r.CorrelationID))
	r.Respond(Response{Parts: parts[:]})
}

// BenchmarkPipelined sends Produce frames of some size, 5 in flight on each
// connection, and gets short answers: on the spot, or from a goroutine that
// completes what has gathered in the meantime, as a journal does.
func BenchmarkPipelined(b *testing.B) {
	for _, portable := range []bool{false, true} {
		name := "epoll"
		if portable {
			name = "portable"
		}
		for _, conns := range []int{1, 50} {
			for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
				for _, journal := range []bool{false, true} {
					b.Run(fmt.Sprintf("%s/conns=%d/size=%d/journal=%v", name, conns, size, journal), func(b *testing.B) {
						h := testHandler(answerFromScratch)
						if journal {
							j := newTestJournal()
							defer j.close()
							h = j.queue
						}
						benchmark(b, portable, conns, size, h)
					})
				}
			}
		}
	}
}

type testJournal struct {
	mu     sync.Mutex
	wake   sync.Cond
	queue0 []*Request
	ended  bool
	done   sync.WaitGroup
}

func newTestJournal() *testJournal {
	j := new(testJournal)
	j.wake.L = &j.mu
	j.done.Go(j.run)
	return j
}

func (j *testJournal) queue(r *Request) {
	j.mu.Lock()
	j.queue0 = append(j.queue0, r)
	if len(j.queue0) == 1 {
		j.wake.Signal()
	}
	j.mu.Unlock()
}

func (j *testJournal) run() {
	var work []*Request
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		for len(j.queue0) == 0 {
			if j.ended {
				return
			}
			j.wake.Wait()
		}
		work, j.queue0 = j.queue0, work[:0]
		j.mu.Unlock()
		for _, r := range work {
			answerFromScratch(r)
		}
		j.mu.Lock()
	}
}

func (j *testJournal) close() {
	j.mu.Lock()
	j.ended = true
	j.wake.Signal()
	j.mu.Unlock()
	j.done.Wait()
}

func benchmark(b *testing.B, portable bool, conns, size int, h Handler) {
	s, err := New(Config{
		Listeners: []Listener{{Address: "127.0.0.1:0"}},
		Handler:   h,
		Portable:  portable,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	go s.Serve()
	request := frame(0, 3, 1, make([]byte, size))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var clients sync.WaitGroup
	each := max(1, b.N/conns)
	var dialed []net.Conn
	for range conns {
		c, err := net.Dial("tcp", s.Addr("").String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		dialed = append(dialed, c)
	}
	b.ResetTimer()
	for _, c := range dialed {
		slots := make(chan struct{}, 5)
		clients.Go(func() {
			for range each {
				slots <- struct{}{}
				if _, err := c.Write(request); err != nil {
					return
				}
			}
		})
		clients.Go(func() {
			var answer [8]byte
			for range each {
				if _, err := io.ReadFull(c, answer[:]); err != nil {
					b.Error(err)
					return
				}
				<-slots
			}
		})
	}
	clients.Wait()
	b.StopTimer()
}
