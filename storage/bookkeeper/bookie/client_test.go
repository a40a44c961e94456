package bookie

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/bookkeeper/bookietest"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// long is a timeout that no test waits for.
const long = time.Minute

func listen(t testing.TB, cfg bookietest.Config) *bookietest.Bookie {
	t.Helper()
	b, err := bookietest.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// connect makes a client of b whose timeouts are long unless cfg says otherwise.
func connect(t testing.TB, b *bookietest.Bookie, cfg Config) *Client {
	t.Helper()
	for _, d := range []*time.Duration{&cfg.AddTimeout, &cfg.ReadTimeout, &cfg.ConnectTimeout, &cfg.ConnectGrace} {
		if *d == 0 {
			*d = long
		}
	}
	c := New(metadata.BookieID(b.Address()), cfg)
	t.Cleanup(c.Close)
	return c
}

func codec(ledger int64) *wire.Codec { return codecOf(ledger, "") }

func codecOf(ledger int64, password string) *wire.Codec {
	c, err := wire.NewCodec(ledger, metadata.CRC32C, []byte(password))
	if err != nil {
		panic(err)
	}
	return c
}

// payload is that of an entry in these tests.
func payload(entry int64) []byte { return fmt.Appendf(nil, "the payload of entry %d", entry) }

func packet(c *wire.Codec, entry int64, flags wire.Flags) *Packet {
	p := payload(entry)
	return NewPacket(c, flags, entry, entry-1, 1<<30, p[:4], p[4:], nil)
}

// answers gathers what an AddHandler hears, in the order of tags.
type answers chan answer

type answer struct {
	bookie metadata.BookieID
	entry  int64
	tag    uint64
	err    error
}

func (h answers) Added(bookie metadata.BookieID, replies []AddReply) {
	for _, r := range replies {
		h <- answer{bookie, r.Entry, r.Tag, r.Err}
	}
}

// add starts an add; its outcome comes over the result.
func add(t testing.TB, c *Client, codec *wire.Codec, entry int64, flags wire.Flags, timeout time.Duration) answers {
	t.Helper()
	h := make(answers, 1)
	p := packet(codec, entry, flags)
	defer p.Release()
	if err := c.Add(p, timeout, h, uint64(entry)); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h answers) want(t testing.TB, target error) {
	t.Helper()
	if a := <-h; !errors.Is(a.err, target) {
		t.Fatalf("add of entry %d: %v, want %v", a.entry, a.err, target)
	}
}

func startRead(t testing.TB, c *Client, r ReadRequest) (*Call, chan ReadReply) {
	t.Helper()
	replies := make(chan ReadReply, 1)
	call, err := c.Read(r, func(r ReadReply) { replies <- r })
	if err != nil {
		t.Fatal(err)
	}
	return call, replies
}

func read(t testing.TB, c *Client, codec *wire.Codec, entry int64, flags wire.Flags) ReadReply {
	t.Helper()
	_, replies := startRead(t, c, ReadRequest{Codec: codec, Entry: entry, Flags: flags})
	return <-replies
}

// wantEntry checks and releases a reply.
func (r ReadReply) wantEntry(t testing.TB, entry int64) {
	t.Helper()
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	defer r.Buf.Release()
	if r.Entry.ID != entry || !bytes.Equal(r.Entry.Payload, payload(entry)) {
		t.Fatalf("read entry %d, %q, want %d", r.Entry.ID, r.Entry.Payload, entry)
	}
}

func (r ReadReply) want(t testing.TB, target error) {
	t.Helper()
	if !errors.Is(r.Err, target) || r.Buf != nil {
		t.Fatalf("read gave %v, want %v", r.Err, target)
	}
}

func TestAddRead(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{})
	ledger := codec(3)
	read(t, c, ledger, 0, 0).want(t, wire.NoLedger)
	var hs []answers
	for e := range int64(100) {
		hs = append(hs, add(t, c, ledger, e, 0, 0))
	}
	for e, h := range hs {
		if a := <-h; a != (answer{c.ID(), int64(e), uint64(e), nil}) {
			t.Fatalf("add of entry %d: %+v", e, a)
		}
	}
	read(t, c, ledger, 42, 0).wantEntry(t, 42)
	last := read(t, c, ledger, wire.LastEntry, 0)
	if last.Entry.LastAddConfirmed != 98 {
		t.Errorf("LAC %d", last.Entry.LastAddConfirmed)
	}
	last.wantEntry(t, 99)
	if s := c.Stats(); s.Adds != 0 || s.Reads != 0 || s.Connections == 0 {
		t.Errorf("stats %+v", s)
	}
	if n := c.budget.used.Load(); n != 0 && b.Requests(nil) == 0 {
		t.Errorf("%d bytes under way", n)
	}
}

// TestFrameIsWhatTheCodecSays: the bytes that a bookie stores are those of the
// codec, however they were cut.
func TestFrameIsWhatTheCodecSays(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{})
	whole := codec(3).AppendAdd(nil, 0, 5, 4, 1<<30, payload(5), nil)
	add(t, c, codec(3), 5, 0, 0).want(t, nil)
	if got := b.Stored(3, 5); !bytes.HasSuffix(whole, got) || len(whole)-len(got) != wire.LengthBytes+wire.HeaderBytes+wire.KeyBytes {
		t.Errorf("stored %x\nof %x", got, whole)
	}
}

func TestCodesArrive(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{})
	add(t, c, codec(1), 0, 0, 0).want(t, nil)
	add(t, c, codecOf(1, "other"), 1, 0, 0).want(t, wire.Unauthorized)
	read(t, c, codecOf(1, "other"), wire.LastEntry, wire.DoFencing|wire.HighPriority).want(t, wire.Unauthorized)
	read(t, c, codec(1), 7, 0).want(t, wire.NoEntry)
	b.SetLimbo(true)
	read(t, c, codec(1), 7, 0).want(t, wire.UnknownLedgerState)
	b.SetLimbo(false)
	read(t, c, codec(2), wire.LastEntry, wire.DoFencing|wire.HighPriority).want(t, wire.NoEntry)
	add(t, c, codec(2), 0, 0, 0).want(t, wire.Fenced)
	add(t, c, codec(2), 0, wire.RecoveryAdd|wire.HighPriority, 0).want(t, nil)
	b.SetReadOnly(true)
	add(t, c, codec(1), 1, 0, 0).want(t, wire.ReadOnly)
	b.SetReadOnly(false)
	for _, code := range []wire.Code{wire.BadRequest, wire.IOError, wire.BadVersion, wire.TooManyRequests, 9999} {
		b.Inject(bookietest.Fault{Times: 1, Code: code})
		add(t, c, codec(1), 1, 0, 0).want(t, code)
	}
	b.Corrupt(1, 0)
	read(t, c, codec(1), 0, 0).want(t, wire.ErrCorrupt)
	if !c.Reachable() {
		t.Error("a bookie that answers is not reachable")
	}
}

func TestReadBatch(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{})
	for e := range int64(10) {
		add(t, c, codec(1), e, 0, 0).want(t, nil)
	}
	batch := func(first int64, entries, bytes int) BatchReply {
		t.Helper()
		replies := make(chan BatchReply, 1)
		if _, err := c.ReadBatch(BatchRequest{Codec: codec(1), First: first, MaxEntries: entries, MaxBytes: bytes}, func(r BatchReply) { replies <- r }); err != nil {
			t.Fatal(err)
		}
		return <-replies
	}
	want := func(r BatchReply, first int64, n int) {
		t.Helper()
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		defer r.Buf.Release()
		if len(r.Entries) != n {
			t.Fatalf("%d entries from %d on, want %d", len(r.Entries), first, n)
		}
		for i, e := range r.Entries {
			if e.ID != first+int64(i) || !bytes.Equal(e.Payload, payload(e.ID)) {
				t.Fatalf("entry %d is %d, %q", first+int64(i), e.ID, e.Payload)
			}
		}
	}
	want(batch(2, 3, 1<<20), 2, 3)
	want(batch(2, 0, 1<<30), 2, 8)
	want(batch(2, 0, 0), 2, 1)
	if r := batch(10, 1, 1<<20); !errors.Is(r.Err, wire.NoEntry) || r.Buf != nil {
		t.Errorf("batch of nothing: %v", r.Err)
	}
	b.Corrupt(1, 5)
	want(batch(2, 0, 1<<20), 2, 3) // up to the bad one
	if r := batch(5, 0, 1<<20); !errors.Is(r.Err, wire.ErrCorrupt) || r.Buf != nil {
		t.Errorf("batch from the corrupt entry: %v", r.Err)
	}
}

// TestBatchOfMoreThanWasAskedFor: a bookie that sends more does not get it read.
func TestBatchOfMoreThanWasAskedFor(t *testing.T) {
	body := wire.AppendBatchID(nil, 7)
	for e := range int64(5) {
		frame := codec(1).AppendAdd(nil, 0, e, e-1, 100*(e+1), payload(e), nil)
		r, err := wire.ParseRequest(frame[wire.LengthBytes:])
		if err != nil {
			t.Fatal(err)
		}
		body = wire.AppendInBatch(body, r.Stored)
	}
	for most, want := range map[int]int{0: 5, 1: 1, 3: 3, 9: 5} {
		call := Call{codec: codec(1), most: most}
		if entries, err := call.parseBatch(body); len(entries) != want || err != nil {
			t.Errorf("%d entries where %d were asked for, error %v", len(entries), most, err)
		}
	}
}

// TestDuplicatesWaitForEachOther: there is no request id to tell their answers apart.
func TestDuplicatesWaitForEachOther(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{AddConnections: 1, ReadConnections: 1})
	b.HoldPool(bookietest.Normal)
	first := add(t, c, codec(1), 0, 0, 0)
	var rest []answers
	for range 5 {
		rest = append(rest, add(t, c, codec(1), 0, 0, 0))
	}
	other := add(t, c, codec(1), 1, 0, 0) // queued behind them, sent before
	isAdd := func(e int64) func(wire.Request) bool {
		return func(r wire.Request) bool { return r.Op == wire.OpAdd && r.Entry == e }
	}
	b.AwaitRequests(1, isAdd(1))
	if n := b.Requests(isAdd(0)); n != 1 {
		t.Errorf("%d adds of one entry are under way", n)
	}
	b.ReleasePool(bookietest.Normal)
	first.want(t, nil)
	other.want(t, nil)
	for _, h := range rest {
		h.want(t, nil)
	}
	if n := b.Requests(isAdd(0)); n != 6 {
		t.Errorf("%d adds arrived, want 6", n)
	}
}

// TestLateAnswerIsNotTakenForAnother: the answer to a read that was given up says
// nothing to a later one of the same entry.
func TestLateAnswerIsNotTakenForAnother(t *testing.T) {
	for _, giveUp := range []string{"cancel", "timeout"} {
		t.Run(giveUp, func(t *testing.T) {
			b := listen(t, bookietest.Config{})
			c := connect(t, b, Config{ReadConnections: 1})
			add(t, c, codec(1), 0, 0, 0).want(t, nil)
			isRead := func(r wire.Request) bool { return r.Op == wire.OpRead }
			hold := make(chan struct{})
			b.Inject(bookietest.Fault{Match: isRead, Times: 1, Until: hold})
			request := ReadRequest{Codec: codec(1), Entry: 1}
			first, firstReply := startRead(t, c, request)
			b.AwaitRequests(1, isRead)
			if giveUp == "cancel" {
				first.Cancel()
				(<-firstReply).want(t, ErrCanceled)
			} else {
				ch := first.ch
				_, _, outcomes := ch.expire(first.op.deadline, nil)
				c.report(outcomes, nil)
				(<-firstReply).want(t, ErrTimeout)
			}
			// It is as if the first answer, no such entry, were on its way.
			_, second := startRead(t, c, request)
			_, probe := startRead(t, c, ReadRequest{Codec: codec(1), Entry: 0})
			(<-probe).wantEntry(t, 0) // so the second was taken from the queue
			if n := b.Requests(isRead); n != 2 {
				t.Errorf("%d reads were sent, want the first and the probe", n)
			}
			close(hold)
			(<-second).want(t, wire.NoEntry)
			if n := b.Requests(isRead); n != 3 {
				t.Errorf("%d reads were sent, want 3", n)
			}
			first.Cancel() // once more changes nothing
		})
	}
}

func TestTimeout(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{})
	b.Inject(bookietest.Fault{DropReply: true})
	add(t, c, codec(1), 0, 0, time.Millisecond).want(t, ErrTimeout)
	_, reply := startRead(t, c, ReadRequest{Codec: codec(1), Entry: 0, Timeout: time.Millisecond})
	(<-reply).want(t, ErrTimeout)
}

// TestOwedAnswerEndsTheConnection: what waits behind a request that is never
// answered is sent over the next connection. The time is the test's.
func TestOwedAnswerEndsTheConnection(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{AddConnections: 1, ReadConnections: 1})
	add(t, c, codec(1), 0, 0, 0).want(t, nil)
	isNew := func(r wire.Request) bool { return r.Op == wire.OpAdd && r.Entry == 1 }
	b.Inject(bookietest.Fault{Match: isNew, Times: 1, DropReply: true})
	first := add(t, c, codec(1), 1, 0, time.Millisecond+long)
	b.AwaitRequests(1, isNew)
	expire := func(now time.Duration) {
		_, _, outcomes := c.adds[0].expire(now, nil)
		c.report(outcomes, nil)
	}
	now := c.now()
	expire(now + 3*long/2)
	first.want(t, ErrTimeout)
	second := add(t, c, codec(1), 1, 0, 10*long)
	add(t, c, codec(1), 2, 0, 10*long).want(t, nil) // over the same connection
	if n := b.Requests(isNew); n != 1 {
		t.Errorf("%d adds of the entry were sent before the first was answered", n)
	}
	expire(now + 3*long)
	second.want(t, nil)
}

// TestStalled: a bookie that is silent while it owes answers to adds is told of, as
// often as it takes; one that answers others is slow and not silent. The time is the
// test's.
func TestStalled(t *testing.T) {
	told := make(chan metadata.BookieID, 10)
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{AddConnections: 1, AddTimeout: 100 * long, StallAfter: long, Stalled: func(id metadata.BookieID) { told <- id }})
	ch := c.adds[0]
	look := func(now time.Duration) bool {
		t.Helper()
		_, stalled, outcomes := ch.expire(now, nil)
		if len(outcomes) > 0 {
			t.Fatalf("%d adds ended", len(outcomes))
		}
		return stalled
	}
	if look(1000 * long) {
		t.Error("an idle bookie is told of")
	}
	isFirst := func(r wire.Request) bool { return r.Op == wire.OpAdd && r.Entry == 0 }
	release := make(chan struct{})
	b.Inject(bookietest.Fault{Match: isFirst, Until: release})
	first := add(t, c, codec(1), 0, 0, 0)
	started := c.now()
	if look(started + long/2) {
		t.Error("a bookie is told of that has half of its time left")
	}
	if !look(started + long) {
		t.Error("a silent bookie is not told of")
	}
	add(t, c, codec(1), 1, 0, 0).want(t, nil)
	answered := ch.heardAt
	if look(answered + long - 1) {
		t.Error("a bookie is told of that has answered since")
	}
	for i := range time.Duration(3) {
		if !look(answered + long + i*long/stallLooks) {
			t.Error("a silent bookie is not told of again")
		}
	}
	close(release)
	first.want(t, nil)
	if look(1000 * long) {
		t.Error("a bookie that owes nothing is told of")
	}
	if len(told) > 0 {
		t.Error("told of by the wrong clock")
	}
}

// TestStalledIsTold: by the client's own clock.
func TestStalledIsTold(t *testing.T) {
	told := make(chan metadata.BookieID)
	over := make(chan struct{})
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{StallAfter: 10 * time.Millisecond, Stalled: func(id metadata.BookieID) {
		select {
		case told <- id:
		case <-over:
		}
	}})
	b.Pause()
	h := add(t, c, codec(1), 0, 0, 0)
	for range 3 {
		if id := <-told; id != c.ID() {
			t.Errorf("told of %s", id)
		}
	}
	b.Resume()
	h.want(t, nil)
	close(over)
}

func TestPausedBookie(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{AddConnections: 1})
	add(t, c, codec(1), 0, 0, 0).want(t, nil)
	b.Pause()
	for e := range int64(3) {
		add(t, c, codec(1), e+1, 0, 5*time.Millisecond).want(t, ErrTimeout)
	}
	b.Resume()
	add(t, c, codec(1), 1, 0, long).want(t, nil)
}

func TestCrash(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{ConnectGrace: -1})
	add(t, c, codec(1), 0, 0, 0).want(t, nil)
	b.HoldSync()
	isNew := func(r wire.Request) bool { return r.Op == wire.OpAdd && r.Entry == 1 }
	h := add(t, c, codec(1), 1, 0, 0)
	b.AwaitRequests(1, isNew)
	b.Crash()
	h.want(t, ErrBroken)
	for range 3 { // the first dials, the others are told of it
		add(t, c, codec(1), 2, 0, 0).want(t, ErrRefused)
	}
	if c.Reachable() {
		t.Error("a bookie that refuses is reachable")
	}
}

// disconnected returns when c knows that its connections are gone. Before that,
// it would send another request over one of them.
func disconnected(c *Client) {
	for c.Stats().Connections > 0 {
		runtime.Gosched()
	}
}

func TestRequestsWaitForARestart(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{})
	add(t, c, codec(1), 0, 0, 0).want(t, nil)
	b.Stop()
	disconnected(c)
	h := add(t, c, codec(1), 1, 0, 0)
	_, r := startRead(t, c, ReadRequest{Codec: codec(2), Entry: wire.LastEntry, Flags: wire.DoFencing | wire.HighPriority})
	if err := b.BindOnly(); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	h.want(t, nil)
	(<-r).want(t, wire.NoEntry)
	if !c.Reachable() {
		t.Error("a bookie that came back is not reachable")
	}
}

// TestMuteConnectionsAreRepeated: a bookie that accepts and resets, as one does
// that is about to serve, costs nobody a request.
func TestMuteConnectionsAreRepeated(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{})
	b.Inject(bookietest.Fault{Times: 3, Disconnect: true})
	// Both those that were sent and those that wait behind one.
	for _, h := range []answers{add(t, c, codec(1), 0, 0, 0), add(t, c, codec(1), 0, 0, 0), add(t, c, codec(1), 1, 0, 0)} {
		h.want(t, nil)
	}
	// Not for ever, though: the request may be what the bookie resets for.
	read := func(r wire.Request) bool { return r.Op == wire.OpRead }
	b.Inject(bookietest.Fault{Match: read, Disconnect: true})
	_, reply := startRead(t, c, ReadRequest{Codec: codec(1), Entry: 0})
	(<-reply).want(t, ErrBroken)
	if n := b.Requests(read); n != 1+maxTries {
		t.Errorf("the read was sent %d times", n)
	}
}

// TestBookieWithoutBatchRead: to try a batch read costs a connection, and nothing else.
func TestBookieWithoutBatchRead(t *testing.T) {
	b := listen(t, bookietest.Config{NoBatchRead: true})
	for _, warm := range []bool{false, true} {
		c := connect(t, b, Config{ConnectGrace: -1, ReadConnections: 1})
		add(t, c, codec(1), 0, 0, 0).want(t, nil)
		if warm {
			read(t, c, codec(1), 0, 0).wantEntry(t, 0)
		}
		replies := make(chan BatchReply, 1)
		if _, err := c.ReadBatch(BatchRequest{Codec: codec(1), First: 0}, func(r BatchReply) { replies <- r }); err != nil {
			t.Fatal(err)
		}
		_, beside := startRead(t, c, ReadRequest{Codec: codec(1), Entry: 0})
		if r := <-replies; !errors.Is(r.Err, ErrBroken) {
			t.Fatalf("batch read: %v", r.Err)
		}
		if r := <-beside; !errors.Is(r.Err, ErrBroken) { // it was on the same connection
			r.wantEntry(t, 0)
		}
		read(t, c, codec(1), 0, 0).wantEntry(t, 0)
	}
}

func TestCancelInQueue(t *testing.T) {
	b := listen(t, bookietest.Config{})
	b.Stop()
	c := connect(t, b, Config{ReadConnections: 1})
	call, reply := startRead(t, c, ReadRequest{Codec: codec(1), Entry: 0})
	_, other := startRead(t, c, ReadRequest{Codec: codec(1), Entry: 1})
	call.Cancel()
	call.Cancel()
	(<-reply).want(t, ErrCanceled)
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	(<-other).want(t, wire.NoLedger)
	if n := b.Requests(func(r wire.Request) bool { return r.Entry == 0 }); n != 0 {
		t.Errorf("a canceled read was sent %d times", n)
	}
}

func TestClose(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{})
	b.Pause()
	h := add(t, c, codec(1), 0, 0, 0)
	_, r := startRead(t, c, ReadRequest{Codec: codec(1), Entry: 0})
	_, fence := startRead(t, c, ReadRequest{Codec: codec(1), Entry: 0, Flags: wire.DoFencing})
	c.Close()
	h.want(t, ErrClosed)
	(<-r).want(t, ErrClosed)
	(<-fence).want(t, ErrClosed)
	p := packet(codec(1), 1, 0)
	defer p.Release()
	if err := c.Add(p, 0, h, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("add after Close: %v", err)
	}
	if _, err := c.Read(ReadRequest{Codec: codec(1)}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if s := c.Stats(); s != (Stats{}) {
		t.Errorf("stats after Close: %+v", s)
	}
	c.Close()
	b.Resume()
}

func TestBudget(t *testing.T) {
	b := listen(t, bookietest.Config{})
	pressure := make(chan bool, 10)
	size := int64(packet(codec(1), 0, 0).Bytes())
	c := connect(t, b, Config{
		MaxBytesInFlight: 8 * size,
		Pressure:         func(_ metadata.BookieID, high bool) { pressure <- high },
	})
	b.HoldSync()
	var hs []answers
	for e := range int64(8) {
		hs = append(hs, add(t, c, codec(1), e, 0, 0))
	}
	if !<-pressure {
		t.Error("no pressure at the limit")
	}
	p := packet(codec(1), 8, 0)
	if err := c.Add(p, 0, make(answers, 1), 8); !errors.Is(err, ErrOverloaded) {
		t.Errorf("beyond the limit: %v", err)
	}
	p.Release()
	b.ReleaseSync()
	for _, h := range hs {
		h.want(t, nil)
	}
	if <-pressure {
		t.Error("pressure is said twice")
	}
	// One that is larger than the limit goes when it is alone.
	large := make([]byte, 10*size)
	p = NewPacket(codec(1), 0, 9, 8, 1<<30, nil, large, nil)
	h := make(answers, 1)
	for c.Add(p, 0, h, 9) != nil { // until the last written one is given back
		read(t, c, codec(1), 0, 0).wantEntry(t, 0)
	}
	p.Release()
	h.want(t, nil)
}

// held counts the references to an entry's bytes.
type held struct{ atomic.Int32 }

func (h *held) Retain()  { h.Add(1) }
func (h *held) Release() { h.Add(-1) }

// TestPayloadIsHeldUntilWrittenAndAnswered drives a channel by hand: an add whose
// bytes are in a writev may time out, and is answered while other bytes of the
// same writev are still to go.
func TestPayloadIsHeldUntilWrittenAndAnswered(t *testing.T) {
	for _, answered := range []bool{false, true} {
		c := &Client{cfg: Config{MaxFrameBytes: 1 << 20}, budget: budget{limit: 1 << 20}}
		c.clock.init()
		ch := newChannel(c)
		var buf held
		p := NewPacket(codec(1), 0, 0, -1, 5, nil, []byte("hello"), &buf)
		h := make(answers, 1)
		if err := c.budget.take(int64(p.Bytes())); err != nil {
			t.Fatal(err)
		}
		ch.enqueueAdd(p, 0, time.Second, h, 0)
		p.Release()
		batch, _ := ch.take(nil, 0)
		if len(batch) != 1 || buf.Load() != 1 {
			t.Fatalf("%d in the batch, %d references", len(batch), buf.Load())
		}
		r := &reader{ch: ch, answers: []wire.Response{{Op: wire.OpAdd, Ledger: 1}}}
		if answered {
			if err := r.answerAdds(); err != nil {
				t.Fatal(err)
			}
			h.want(t, nil)
		} else {
			_, _, outcomes := ch.expire(time.Second, nil)
			c.report(outcomes, nil)
			h.want(t, ErrTimeout)
		}
		if buf.Load() != 1 || c.budget.used.Load() == 0 {
			t.Fatal("the bytes were given back while they were being written")
		}
		ch.written(batch)
		if buf.Load() != 0 || c.budget.used.Load() != 0 {
			t.Fatalf("%d references, %d bytes are left", buf.Load(), c.budget.used.Load())
		}
		if owes := ch.table.count == 1; owes == answered {
			t.Errorf("answered %v, and owes an answer %v", answered, owes)
		}
		if !answered {
			if err := r.answerAdds(); err != nil {
				t.Fatal(err)
			}
		}
		if ch.table.count != 0 || len(ch.free) != 1 {
			t.Errorf("%d in the table, %d free", ch.table.count, len(ch.free))
		}
		// Now it is reused: an answer too many finds nobody.
		r.answers = append(r.answers, wire.Response{Op: wire.OpAdd, Ledger: 1})
		if err := r.answerAdds(); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("an answer that was not asked for: %v", err)
		}
	}
}

// TestGathering drives a channel by hand: while answers are owed adds wait for more of
// them, for a while, and up to so many bytes.
func TestGathering(t *testing.T) {
	c := &Client{cfg: Config{MaxFrameBytes: 1 << 20}, budget: budget{limit: 1 << 30}}
	c.clock.init()
	ch := newChannel(c)
	h := make(answers, 100)
	entry := int64(0)
	enqueue := func(now time.Duration, bytes int) {
		t.Helper()
		p := NewPacket(codec(1), 0, entry, entry-1, 1<<30, nil, make([]byte, bytes), nil)
		entry++
		if err := c.budget.take(int64(p.Bytes())); err != nil {
			t.Fatal(err)
		}
		ch.enqueueAdd(p, now, long, h, 0)
		p.Release()
	}
	woken := func() bool {
		select {
		case <-ch.wake:
			return true
		default:
			return false
		}
	}
	take := func(now time.Duration, count int, wantWait bool) {
		t.Helper()
		batch, wait := ch.take(nil, now)
		if len(batch) != count || wait > 0 != wantWait {
			t.Fatalf("at %v: %d taken, %v to wait; want %d, to wait %v", now, len(batch), wait, count, wantWait)
		}
		ch.written(batch)
	}
	answer := func(entry int64) {
		t.Helper()
		r := &reader{ch: ch, answers: []wire.Response{{Op: wire.OpAdd, Ledger: 1, Entry: entry}}}
		if err := r.answerAdds(); err != nil {
			t.Fatal(err)
		}
	}
	take(0, 0, false)
	enqueue(0, 100)
	if !woken() {
		t.Fatal("the first add does not wake the writer")
	}
	take(0, 1, false)
	enqueue(1, 100)
	take(1, 0, true)
	enqueue(2, 100)
	if woken() {
		t.Error("an add that may wait wakes the writer")
	}
	answer(0)
	if !woken() {
		t.Error("an answer does not wake a writer that gathers")
	}
	take(3, 2, false)
	enqueue(4, 100)
	take(4, 0, true)
	take(4+gatherFor-1, 0, true)
	take(4+gatherFor, 1, false)
	enqueue(10, 100)
	take(10, 0, true)
	enqueue(10, gatherBytes)
	if !woken() {
		t.Error("many bytes do not wake the writer")
	}
	take(10, 2, false)
	enqueue(20, 100)
	take(20, 0, true)
	call := &Call{ch: ch}
	call.op = op{key: key{op: wire.OpRead, ledger: 1}, call: call, frame: []byte{1}}
	ch.enqueueRead(&call.op, 20, long)
	if !woken() {
		t.Error("a read waits for adds")
	}
	take(20, 2, false)
	for e := int64(1); e < entry; e++ {
		answer(e)
	}
	if ch.owed != 0 {
		t.Errorf("%d answers are owed to nobody", ch.owed)
	}
	enqueue(30, 100)
	take(30, 1, false)
}

// TestStorm has adds, reads, cancels, crashes and restarts at once: every request
// ends exactly once, no byte is left behind, and what is acknowledged and was
// synced can be read.
func TestStorm(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{AddTimeout: 20 * time.Millisecond, ReadTimeout: 20 * time.Millisecond, ConnectGrace: 10 * time.Millisecond})
	before := buffer.InUseBytes()
	var made, ended atomic.Int64
	var buf held
	h := endings{&ended}
	var wg sync.WaitGroup
	const ledgers, entries = 4, 400
	for l := range int64(ledgers) {
		wg.Go(func() {
			for e := range int64(entries) {
				p := NewPacket(codec(l), 0, e, e-1, 1<<30, nil, payload(e), &buf)
				for range 2 { // a duplicate too
					if c.Add(p, 0, h, 0) == nil {
						made.Add(1)
					}
				}
				p.Release()
			}
		})
		wg.Go(func() {
			for e := range int64(entries) {
				call, err := c.Read(ReadRequest{Codec: codec(l), Entry: e % 50}, func(r ReadReply) {
					ended.Add(1)
					if r.Err == nil {
						r.Buf.Release()
					}
				})
				if err != nil {
					t.Error(err)
					return
				}
				made.Add(1)
				if e%3 == 0 {
					call.Cancel()
				}
			}
		})
	}
	wg.Go(func() {
		for range 10 {
			b.Inject(bookietest.Fault{Times: 3, DropReply: true})
			b.Inject(bookietest.Fault{Times: 1, Disconnect: true})
			b.Crash()
			if err := b.Restart(); err != nil {
				t.Error(err)
				return
			}
			b.Pause()
			b.Resume()
		}
	})
	wg.Wait()
	c.Close()
	if made.Load() != ended.Load() {
		t.Errorf("%d requests, %d outcomes", made.Load(), ended.Load())
	}
	if n := buf.Load(); n != 0 {
		t.Errorf("%d references to payloads are left", n)
	}
	if n := c.budget.used.Load(); n != 0 {
		t.Errorf("%d bytes of the budget are left", n)
	}
	if n := buffer.InUseBytes() - before; n != 0 {
		t.Errorf("%d bytes of answers are left", n)
	}
	if s := c.Stats(); s != (Stats{}) {
		t.Errorf("stats: %+v", s)
	}
}

// endings counts outcomes.
type endings struct{ n *atomic.Int64 }

func (e endings) Added(_ metadata.BookieID, replies []AddReply) { e.n.Add(int64(len(replies))) }

func TestPacketIsCounted(t *testing.T) {
	var buf held
	p := NewPacket(codec(1), 0, 7, 6, 100, []byte("he"), []byte("llo"), &buf)
	if p.Ledger() != 1 || p.Entry() != 7 || p.Bytes() != codec(1).AddHeadBytes()+5 {
		t.Errorf("ledger %d, entry %d, %d bytes", p.Ledger(), p.Entry(), p.Bytes())
	}
	p.Retain()
	p.Release()
	if buf.Load() != 1 {
		t.Error("released too early")
	}
	p.Release()
	if buf.Load() != 0 {
		t.Error("not released")
	}
	defer func() {
		if recover() == nil {
			t.Error("a second release passed")
		}
	}()
	p.Release()
}

func TestObserve(t *testing.T) {
	b := listen(t, bookietest.Config{})
	type seen struct {
		op  wire.Op
		err error
	}
	heard := make(chan seen, 10)
	c := connect(t, b, Config{Observe: func(_ metadata.BookieID, op wire.Op, _ time.Duration, err error) { heard <- seen{op, err} }})
	add(t, c, codec(1), 0, 0, 0).want(t, nil)
	if s := <-heard; s.op != wire.OpAdd || s.err != nil {
		t.Errorf("observed %+v", s)
	}
	read(t, c, codec(1), 0, 0).wantEntry(t, 0)
	if s := <-heard; s.op != wire.OpRead || s.err != nil {
		t.Errorf("observed %+v", s)
	}
	read(t, c, codec(1), 1, 0).want(t, wire.NoEntry)
	if s := <-heard; s.op != wire.OpRead || !errors.Is(s.err, wire.NoEntry) {
		t.Errorf("observed %+v", s)
	}
}

// TestConnectionsAreKeptApart: adds, reads and what has high priority do not wait
// behind each other, and a ledger keeps to its connection.
func TestConnectionsAreKeptApart(t *testing.T) {
	b := listen(t, bookietest.Config{})
	c := connect(t, b, Config{})
	step := func(what string, connections int) {
		t.Helper()
		if n := c.Stats().Connections; n != connections {
			t.Errorf("%s: %d connections, want %d", what, n, connections)
		}
	}
	step("nothing", 0)
	add(t, c, codec(2), 0, 0, 0).want(t, nil)
	add(t, c, codec(4), 0, 0, 0).want(t, nil)
	step("two ledgers", 1)
	read(t, c, codec(2), 0, 0).wantEntry(t, 0)
	step("a read", 2)
	read(t, c, codec(2), 0, wire.DoFencing).wantEntry(t, 0)
	step("a fence", 3)
	read(t, c, codec(2), 0, wire.HighPriority).wantEntry(t, 0)
	add(t, c, codec(3), 1, wire.RecoveryAdd|wire.HighPriority, 0).want(t, nil)
	step("a recovery", 3)
	add(t, c, codec(3), 0, 0, 0).want(t, nil)
	step("a third ledger", 4)
	read(t, c, codec(3), 0, 0).wantEntry(t, 0)
	step("a read of another ledger", 5)
}
