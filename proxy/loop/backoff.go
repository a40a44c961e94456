package loop

import "time"

const (
	firstRetry = 5 * time.Millisecond
	lastRetry  = time.Second
)

// backoff spaces the attempts of an acceptor that fails.
type backoff struct{ next time.Duration }

// wait reports err and sleeps, longer each time until reset.
func (b *backoff) wait(err error, report func(error, time.Duration)) {
	b.next = min(max(2*b.next, firstRetry), lastRetry)
	if report != nil {
		report(err, b.next)
	}
	time.Sleep(b.next)
}

func (b *backoff) reset() { b.next = 0 }
