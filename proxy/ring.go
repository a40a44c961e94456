package proxy

// ring holds the requests of a connection whose answers have not left, oldest
// first. It grows by doubling; the connection's limit bounds it.
//
//	first ──── handled ──────── end
//	  │ answered or │ not yet     │
//	  │ in the work │ handled     │
type ring struct {
	slots               []*Request // a power of two
	first, handled, end uint32
}

const firstSlots = 4

func (q *ring) len() int             { return int(q.end - q.first) }
func (q *ring) at(i uint32) *Request { return q.slots[i&uint32(len(q.slots)-1)] }
func (q *ring) head() *Request       { return q.at(q.first) }
func (q *ring) unhandled() bool      { return q.handled != q.end }

func (q *ring) push(r *Request) {
	if q.len() == len(q.slots) {
		grown := make([]*Request, max(firstSlots, 2*len(q.slots)))
		for i := q.first; i != q.end; i++ {
			grown[i&uint32(len(grown)-1)] = q.at(i)
		}
		q.slots = grown
	}
	q.slots[q.end&uint32(len(q.slots)-1)] = r
	q.end++
}

// pop takes the oldest request away, which has been handled.
func (q *ring) pop() *Request {
	i := q.first & uint32(len(q.slots)-1)
	r := q.slots[i]
	q.slots[i] = nil
	q.first++
	return r
}

// dropLast takes the newest request away.
func (q *ring) dropLast() *Request {
	q.end--
	i := q.end & uint32(len(q.slots)-1)
	r := q.slots[i]
	q.slots[i] = nil
	return r
}
