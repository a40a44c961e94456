package etcd

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quirelog/quire/storage/meta"
)

// all are the sentinels that say different things about the same request.
var all = []error{
	meta.ErrNotFound, meta.ErrCompacted, meta.ErrUnavailable, meta.ErrUnknownOutcome, meta.ErrNoSpace,
	meta.ErrTooLarge, meta.ErrInvalid, meta.ErrLeaseNotFound, meta.ErrClosed, context.Canceled, context.DeadlineExceeded,
}

// wantErrors checks that err is exactly the sentinels wanted.
func wantErrors(t *testing.T, what string, err error, wanted ...error) {
	t.Helper()
	for _, sentinel := range all {
		want := false
		for _, w := range wanted {
			want = want || w == sentinel
		}
		if errors.Is(err, sentinel) != want {
			t.Errorf("%s: %v: is %v: %v, want %v", what, err, sentinel, !want, want)
		}
	}
}

// fakeKV answers every request with an error, after what is done first.
type fakeKV struct {
	clientv3.KV
	first func()
	err   error
}

func (f *fakeKV) Get(context.Context, string, ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	f.first()
	return nil, f.err
}

func (f *fakeKV) Txn(context.Context) clientv3.Txn { return fakeTxn{f} }

type fakeTxn struct{ *fakeKV }

func (f fakeTxn) If(...clientv3.Cmp) clientv3.Txn  { return f }
func (f fakeTxn) Then(...clientv3.Op) clientv3.Txn { return f }
func (f fakeTxn) Else(...clientv3.Op) clientv3.Txn { return f }
func (f fakeTxn) Commit() (*clientv3.TxnResponse, error) {
	f.first()
	return nil, f.err
}

func fakeStore(err error, first func()) *Store {
	s := newStore(nil, time.Minute)
	if first == nil {
		first = func() {}
	}
	s.kv = &clientv3.Client{KV: &fakeKV{first: first, err: err}}
	return s
}

func TestErrors(t *testing.T) {
	dialing := status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`)
	for _, c := range []struct {
		name string
		err  error
		get  []error
		txn  []error
	}{
		// Never sent, or refused at the door.
		{"nobody listens", dialing, []error{meta.ErrUnavailable}, []error{meta.ErrUnavailable}},
		{"no connection", status.Error(codes.DeadlineExceeded, "context deadline exceeded while waiting for connections to become ready"), []error{meta.ErrUnavailable}, []error{meta.ErrUnavailable}},
		{"too many requests", rpctypes.ErrTooManyRequests, []error{meta.ErrUnavailable}, []error{meta.ErrUnavailable}},
		{"no leader", rpctypes.ErrGRPCNoLeader, []error{meta.ErrUnavailable}, []error{meta.ErrUnavailable}},
		{"wrong password", rpctypes.ErrGRPCAuthFailed, []error{meta.ErrUnavailable}, []error{meta.ErrUnavailable}},
		{"not permitted", rpctypes.ErrGRPCPermissionDenied, []error{meta.ErrUnavailable}, []error{meta.ErrUnavailable}},
		{"corrupt", rpctypes.ErrGRPCCorrupt, []error{meta.ErrUnavailable}, []error{meta.ErrUnavailable}},

		// Sent, and no answer.
		{"connection broke", status.Error(codes.Unavailable, "error reading from server: EOF"), []error{meta.ErrUnavailable}, []error{meta.ErrUnknownOutcome}},
		{"server's timeout", rpctypes.ErrGRPCTimeout, []error{meta.ErrUnavailable}, []error{meta.ErrUnknownOutcome}},
		{"leader lost", rpctypes.ErrGRPCTimeoutDueToLeaderFail, []error{meta.ErrUnavailable}, []error{meta.ErrUnknownOutcome}},
		{"leader changed", rpctypes.ErrGRPCLeaderChanged, []error{meta.ErrUnavailable}, []error{meta.ErrUnknownOutcome}},
		{"server stopped", rpctypes.ErrGRPCStopped, []error{meta.ErrUnavailable}, []error{meta.ErrUnknownOutcome}},
		{"our timeout", context.DeadlineExceeded, []error{meta.ErrUnavailable}, []error{meta.ErrUnknownOutcome}},
		{"gRPC's timeout", status.Error(codes.DeadlineExceeded, "context deadline exceeded"), []error{meta.ErrUnavailable}, []error{meta.ErrUnknownOutcome}},
		{"anything else", status.Error(codes.Unknown, "raft: stopped"), []error{meta.ErrUnavailable}, []error{meta.ErrUnknownOutcome}},
		{"no status", errors.New("what is this"), []error{meta.ErrUnavailable}, []error{meta.ErrUnknownOutcome}},

		// The quota: the transaction that passes it is executed.
		{"no space", rpctypes.ErrGRPCNoSpace, []error{meta.ErrNoSpace}, []error{meta.ErrNoSpace, meta.ErrUnknownOutcome}},

		{"compacted", rpctypes.ErrGRPCCompacted, []error{meta.ErrCompacted}, []error{meta.ErrCompacted}},
		{"lease", rpctypes.ErrGRPCLeaseNotFound, []error{meta.ErrLeaseNotFound}, []error{meta.ErrLeaseNotFound}},
		{"too large", rpctypes.ErrGRPCRequestTooLarge, []error{meta.ErrTooLarge}, []error{meta.ErrTooLarge}},
		{"too many operations", rpctypes.ErrGRPCTooManyOps, []error{meta.ErrTooLarge}, []error{meta.ErrTooLarge}},
		{"too large for gRPC", status.Error(codes.ResourceExhausted, "trying to send message larger than max (2 vs. 1)"), []error{meta.ErrTooLarge}, []error{meta.ErrTooLarge}},
		{"duplicate key", rpctypes.ErrGRPCDuplicateKey, []error{meta.ErrInvalid}, []error{meta.ErrInvalid}},
	} {
		// The client gives typed errors for etcd's own and statuses for others;
		// both come as they are too.
		for _, err := range []error{c.err, rpctypes.Error(c.err)} {
			s := fakeStore(err, nil)
			_, get := s.Get(t.Context(), "k")
			wantErrors(t, c.name+": Get", get, c.get...)
			_, _, txn := s.Txn(t.Context(), nil, []meta.Op{meta.Put("k", nil)})
			wantErrors(t, c.name+": Txn", txn, c.txn...)
			s.cancel()
		}
	}
}

// A request cut short by its caller has the caller's error; a change may have
// happened nevertheless.
func TestErrorsOfEndedContext(t *testing.T) {
	for _, cut := range []error{context.Canceled, rpctypes.ErrGRPCTimeout, status.Error(codes.Canceled, "context canceled")} {
		ctx, cancel := context.WithCancel(t.Context())
		s := fakeStore(cut, cancel)
		_, err := s.Get(ctx, "k")
		wantErrors(t, "Get", err, context.Canceled)
		ctx, cancel = context.WithCancel(t.Context())
		s = fakeStore(cut, cancel)
		_, _, err = s.Txn(ctx, nil, []meta.Op{meta.Put("k", nil)})
		wantErrors(t, "Txn", err, context.Canceled, meta.ErrUnknownOutcome)
	}
	// What etcd decided before the context ended is not hidden by it.
	ctx, cancel := context.WithCancel(t.Context())
	s := fakeStore(rpctypes.ErrGRPCLeaseNotFound, cancel)
	_, _, err := s.Txn(ctx, nil, []meta.Op{meta.Put("k", nil)})
	wantErrors(t, "Txn", err, meta.ErrLeaseNotFound)
}

// A request cut short by Close says so.
func TestErrorsOfClosingStore(t *testing.T) {
	var s *Store
	s = fakeStore(context.Canceled, func() { s.cancel() })
	_, err := s.Get(t.Context(), "k")
	wantErrors(t, "Get", err, meta.ErrClosed)
	s = fakeStore(context.Canceled, func() { s.cancel() })
	_, _, err = s.Txn(t.Context(), nil, []meta.Op{meta.Put("k", nil)})
	wantErrors(t, "Txn", err, meta.ErrUnknownOutcome)
}

// Pages grow to their bytes, whatever the values' size, and no further.
func TestNextPageKeys(t *testing.T) {
	for _, c := range []struct {
		keys, bytes int
		want        int64
	}{
		{64, 64 * 128, 65536},
		{64, 64 * 1024, 8192},
		{64, 64 << 20, 8},
		{8, 0, maxPageKeys},
		{1, 1 << 30, 1},
		{maxPageKeys, maxPageKeys, maxPageKeys},
	} {
		if got := nextPageKeys(c.keys, c.bytes); got != c.want {
			t.Errorf("after %d keys of %d bytes: %d keys, want %d", c.keys, c.bytes, got, c.want)
		}
	}
}

// On a file system that is nearly full facts are refused and deletions are not.
func TestReserve(t *testing.T) {
	s, err := OpenEmbedded(t.Context(), EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	free := uint64(1 << 40)
	s.server.space.free = func(string) (uint64, error) { return free, nil }
	put := func() error {
		s.server.space.checked.Store(0)
		_, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("k", nil)})
		return err
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	free = reserveBytes - 1
	wantErrors(t, "put", put(), meta.ErrNoSpace)
	if _, err := s.Get(t.Context(), "k"); err != nil {
		t.Errorf("Get: %v", err)
	}
	if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Delete("k")}); err != nil {
		t.Errorf("deletion: %v", err)
	}
	free = reserveBytes
	if err := put(); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// Compaction keeps the last keepRevisions, and everything that is newer than the
// look before.
func TestCompactOnce(t *testing.T) {
	s, err := OpenEmbedded(t.Context(), EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	watch := func(after int64) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return (<-s.Watch(ctx, "k", meta.Revision(after))).Err
	}
	put := func() meta.Revision {
		rev, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("k", nil)})
		if err != nil {
			t.Error(err)
		}
		return rev
	}
	looked, done := s.compactOnce(0, 0)
	if done != 0 {
		t.Fatalf("an empty store was compacted to %d", done)
	}
	var writers sync.WaitGroup
	for range 100 {
		writers.Go(func() {
			for range keepRevisions/100 + 1 {
				put()
			}
		})
	}
	writers.Wait()
	// The look before was at the start: nothing is old enough but that.
	looked, done = s.compactOnce(looked, done)
	if done != 1 {
		t.Fatalf("compacted to %d, want the revision of the look before, 1", done)
	}
	last := int64(put())
	looked, done = s.compactOnce(looked, done)
	if looked != last || done != last-keepRevisions {
		t.Fatalf("looked at %d and compacted to %d, want %d and %d", looked, done, last, last-keepRevisions)
	}
	if err := watch(done - 2); !errors.Is(err, meta.ErrCompacted) {
		t.Errorf("watch after %d: %v, want ErrCompacted", done-2, err)
	}
	if err := watch(done - 1); err != nil {
		t.Errorf("watch after %d: %v", done-1, err)
	}
	// Another node may have compacted further.
	if err := s.Compact(t.Context(), meta.Revision(last)); err != nil {
		t.Fatal(err)
	}
	if _, again := s.compactOnce(last, done); again != last-keepRevisions {
		t.Errorf("after another's compaction: %d, want %d", again, last-keepRevisions)
	}
}
