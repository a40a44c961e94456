package etcd_test

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/etcd"
)

// failingKV answers every request with an error, after what is done first.
type failingKV struct {
	clientv3.KV
	first func()
	err   error
	sent  int
}

func (f *failingKV) fail() error {
	f.sent++
	if f.first != nil {
		f.first()
	}
	return f.err
}

func (f *failingKV) Get(context.Context, string, ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return nil, f.fail()
}

func (f *failingKV) Txn(context.Context) clientv3.Txn { return failingTxn{f} }

type failingTxn struct{ *failingKV }

func (f failingTxn) If(...clientv3.Cmp) clientv3.Txn        { return f }
func (f failingTxn) Then(...clientv3.Op) clientv3.Txn       { return f }
func (f failingTxn) Else(...clientv3.Op) clientv3.Txn       { return f }
func (f failingTxn) Commit() (*clientv3.TxnResponse, error) { return nil, f.fail() }

// wantClass checks that err is exactly the sentinels wanted.
func wantClass(t *testing.T, what string, err error, wanted ...error) {
	t.Helper()
	for _, e := range []error{
		metadata.ErrUnavailable, metadata.ErrUnknownOutcome, metadata.ErrClosed, metadata.ErrNotFound, metadata.ErrConflict, metadata.ErrExists,
		context.Canceled, context.DeadlineExceeded,
	} {
		want := false
		for _, w := range wanted {
			want = want || w == e
		}
		if errors.Is(err, e) != want {
			t.Errorf("%s: %v: is %v: %v, want %v", what, err, e, !want, want)
		}
	}
}

// What may have been done is said to be unknown, what was surely not done is not.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		write error
	}{
		{"time limit", context.DeadlineExceeded, metadata.ErrUnknownOutcome},
		{"connection broke", status.Error(codes.Unavailable, "error reading from server: EOF"), metadata.ErrUnknownOutcome},
		{"etcd timed out", rpctypes.ErrTimeout, metadata.ErrUnknownOutcome},
		{"leader failed", rpctypes.ErrTimeoutDueToLeaderFail, metadata.ErrUnknownOutcome},
		{"quota", rpctypes.ErrNoSpace, metadata.ErrUnknownOutcome}, // also of the write that passes it
		{"something else", errors.New("what"), metadata.ErrUnknownOutcome},
		{"no leader", rpctypes.ErrNoLeader, metadata.ErrUnavailable},
		{"too many requests", rpctypes.ErrTooManyRequests, metadata.ErrUnavailable},
		{"not permitted", rpctypes.ErrPermissionDenied, metadata.ErrUnavailable},
		{"too large", rpctypes.ErrRequestTooLarge, metadata.ErrUnavailable},
	} {
		client := clientv3.NewCtxClient(context.Background())
		kv := &failingKV{err: c.err}
		client.KV = kv
		s := etcd.New(etcd.Config{Client: client})
		l := ledger()
		l.ID, l.CToken = 7, 1
		_, _, err := s.Read(t.Context(), 7)
		wantClass(t, c.name+": Read", err, metadata.ErrUnavailable)
		_, err = s.Update(t.Context(), l, 1)
		wantClass(t, c.name+": Update", err, c.write)
		wantClass(t, c.name+": Delete", s.Delete(t.Context(), 7, 1), c.write)
		sent := kv.sent
		_, err = s.Create(t.Context(), l)
		wantClass(t, c.name+": Create", err, c.write)
		if again := kv.sent-sent > 1; again != (c.write == metadata.ErrUnknownOutcome) {
			t.Errorf("%s: Create sent %d times", c.name, kv.sent-sent)
		}
		l.ID = metadata.NoID
		_, err = s.Create(t.Context(), l)
		wantClass(t, c.name+": Create without an id", err, metadata.ErrUnavailable)
		if l.ID != metadata.NoID {
			t.Errorf("%s: Create left id %d", c.name, l.ID)
		}
		client.Close()
	}
}

// A context that ends while a change is on its way leaves its outcome unknown.
func TestContextEnds(t *testing.T) {
	client := clientv3.NewCtxClient(context.Background())
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	client.KV = &failingKV{err: context.Canceled, first: cancel}
	s := etcd.New(etcd.Config{Client: client})
	_, err := s.Update(ctx, func() *metadata.Ledger { l := ledger(); l.ID = 7; return l }(), 1)
	wantClass(t, "Update", err, metadata.ErrUnknownOutcome, context.Canceled)
	ctx, cancel = context.WithCancel(t.Context())
	client.KV = &failingKV{err: context.Canceled, first: cancel}
	_, _, err = s.Read(ctx, 7)
	wantClass(t, "Read", err, context.Canceled)
}

// A client that is closed while a request is on its way cuts it short.
func TestClientEnds(t *testing.T) {
	client := clientv3.NewCtxClient(context.Background())
	kv := &blockingKV{started: func() { client.Close() }}
	client.KV = kv
	s := etcd.New(etcd.Config{Client: client})
	_, _, err := s.Read(t.Context(), 7)
	wantClass(t, "Read", err, metadata.ErrClosed)
	_, _, err = s.Read(t.Context(), 7)
	wantClass(t, "Read of a closed client", err, metadata.ErrClosed)
}

// blockingKV answers when the request's context ends.
type blockingKV struct {
	clientv3.KV
	started func()
}

func (b *blockingKV) Get(ctx context.Context, _ string, _ ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	b.started()
	<-ctx.Done()
	return nil, ctx.Err()
}

// A creator whose first attempt may have succeeded does not say that nothing was
// done because its second was refused.
func TestCreateRefusedAfterLoss(t *testing.T) {
	client := clientv3.NewCtxClient(context.Background())
	defer client.Close()
	kv := &failingKV{err: context.DeadlineExceeded}
	kv.first = func() {
		if kv.sent > 1 {
			kv.err = rpctypes.ErrNoLeader
		}
	}
	client.KV = kv
	l := ledger()
	l.ID = 7
	_, err := etcd.New(etcd.Config{Client: client}).Create(t.Context(), l)
	wantClass(t, "Create", err, metadata.ErrUnknownOutcome)
	if kv.sent != 2 {
		t.Errorf("sent %d times", kv.sent)
	}
}
