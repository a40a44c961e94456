package etcd_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"google.golang.org/grpc"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
)

// recordingKV answers what a Store asks first, and keeps its transactions.
type recordingKV struct {
	pb.UnimplementedKVServer
	mu   sync.Mutex
	txns []*pb.TxnRequest
}

func (k *recordingKV) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return &pb.RangeResponse{Header: &pb.ResponseHeader{ClusterId: 1, Revision: 1}}, nil
}

func (k *recordingKV) Txn(_ context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.txns = append(k.txns, r)
	return &pb.TxnResponse{Header: &pb.ResponseHeader{ClusterId: 1, Revision: 1}, Succeeded: true}, nil
}

// agingKV answers with the revisions that it is given, and then with the last of them.
type agingKV struct {
	pb.UnimplementedKVServer
	mu        sync.Mutex
	revisions []int64
}

func (k *agingKV) answer(revisions ...int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revisions = revisions
}

func (k *agingKV) header() *pb.ResponseHeader {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := &pb.ResponseHeader{ClusterId: 1, Revision: 1}
	if len(k.revisions) > 0 {
		h.Revision = k.revisions[0]
	}
	if len(k.revisions) > 1 {
		k.revisions = k.revisions[1:]
	}
	return h
}

func (k *agingKV) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return &pb.RangeResponse{Header: k.header()}, nil
}

func (k *agingKV) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	return &pb.TxnResponse{Header: k.header(), Succeeded: true}, nil
}

// openFake opens a store on a server that is not an etcd.
func openFake(t *testing.T, kv pb.KVServer) *etcd.Store {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "kv.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, kv)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	s, err := etcd.Open(t.Context(), etcd.ClusterConfig{Endpoints: []string{"unix://" + socket}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

// No transaction may be answered by a member that is behind: those that only
// compare prove to their caller that it still owns something.
func TestComparesAreLinearizable(t *testing.T) {
	kv := new(recordingKV)
	s := openFake(t, kv)
	cond := meta.Cond{Key: "own/0001", Modified: 7}
	for _, ops := range [][]meta.Op{nil, {meta.Put("a", nil)}, {meta.Delete("a")}} {
		if _, ok, err := s.Txn(t.Context(), []meta.Cond{cond}, ops); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if len(kv.txns) != 3 {
		t.Fatalf("%d transactions were sent", len(kv.txns))
	}
	for _, sent := range kv.txns {
		if txn.IsTxnReadonly(sent) && txn.IsTxnSerializable(sent) {
			t.Errorf("a member that is behind may answer %v", sent)
		}
	}
}

// One answer from the past is not used, and is no reason to end: etcd is asked again first.
func TestOldAnswer(t *testing.T) {
	kv := new(agingKV)
	s := openFake(t, kv)
	kv.answer(9)
	if _, _, err := s.Txn(t.Context(), nil, []meta.Op{meta.Put("a", nil)}); err != nil {
		t.Fatal(err)
	}
	kv.answer(8, 9)
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, meta.ErrUnavailable) || errors.Is(err, etcd.ErrWentBack) {
		t.Errorf("an old answer: %v, want ErrUnavailable alone", err)
	}
	kv.answer(9)
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("the next answer: %v", err)
	}
	kv.answer(8, 8, 8, 8)
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, etcd.ErrWentBack) {
		t.Errorf("only old answers: %v, want ErrWentBack", err)
	}
}
