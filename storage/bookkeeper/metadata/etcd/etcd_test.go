package etcd_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/etcd"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/metadatatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// member is an etcd with its gRPC service on a unix socket, as bookies would
// reach it but for the socket.
type member struct {
	*embed.Etcd
	dir string
}

func startMember(t *testing.T, dir string) *member {
	t.Helper()
	c := embed.NewConfig()
	c.Dir, c.Name = filepath.Join(dir, "data"), "m"
	client := url.URL{Scheme: "unix", Path: filepath.Join(dir, "client.sock")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = "m=" + peer.String()
	c.LogLevel, c.LogOutputs = "fatal", []string{"/dev/null"}
	c.TickMs, c.ElectionMs = 50, 250
	c.UnsafeNoFsync = true
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	<-e.Server.ReadyNotify()
	return &member{e, dir}
}

func (m *member) connect(t *testing.T) *clientv3.Client {
	return m.connectBy(t, new(net.Dialer).DialContext)
}

func (m *member) connectBy(t *testing.T, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *clientv3.Client {
	t.Helper()
	socket := filepath.Join(m.dir, "client.sock")
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"unix://" + socket}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 100 * time.Millisecond},
		}), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, "unix", socket) })},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// cable is a network that can be cut.
type cable struct {
	mu    sync.Mutex
	isCut bool
	conns []net.Conn
}

func (c *cable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isCut {
		return nil, errors.New("the cable is cut")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	c.conns = append(c.conns, conn)
	return conn, err
}

func (c *cable) cut(is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isCut = is
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

func start(t *testing.T) (*member, *clientv3.Client) {
	t.Helper()
	m := startMember(t, t.TempDir())
	t.Cleanup(m.Close)
	return m, m.connect(t)
}

func put(t *testing.T, c *clientv3.Client, key, value string) int64 {
	t.Helper()
	resp, err := c.Put(t.Context(), key, value)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func remove(t *testing.T, c *clientv3.Client, key string, opts ...clientv3.OpOption) {
	t.Helper()
	if _, err := c.Delete(t.Context(), key, opts...); err != nil {
		t.Fatal(err)
	}
}

func register(t *testing.T, c *clientv3.Client, r metadata.Registration) {
	keys := []string{"/ledgers/available/" + string(r.ID), "/ledgers/available/readonly/" + string(r.ID)}
	if r.ReadOnly {
		keys[0], keys[1] = keys[1], keys[0]
	}
	put(t, c, keys[0], string(metadata.AppendServiceInfo(nil, r.Info)))
	remove(t, c, keys[1])
}

func TestStore(t *testing.T) {
	m := startMember(t, t.TempDir())
	defer m.Close()
	metadatatest.Run(t, func(t *testing.T) metadatatest.Harness {
		c := m.connect(t)
		remove(t, c, "/", clientv3.WithPrefix())
		// What initnewcluster and metaformat leave.
		for _, key := range []string{"/ledgers", "/ledgers/available", "/ledgers/available/readonly"} {
			put(t, c, key, "")
		}
		put(t, c, "/ledgers/LAYOUT", "2\norg.apache.pulsar.metadata.bookkeeper.PulsarLedgerManagerFactory:1")
		put(t, c, "/ledgers/underreplication/LAYOUT", "type: \"BASIC\"\nversion: 1\n")
		return metadatatest.Harness{
			Store: etcd.New(etcd.Config{Client: c}),
			Init: func(id string) {
				if id == "" {
					remove(t, c, "/ledgers/INSTANCEID")
				} else {
					put(t, c, "/ledgers/INSTANCEID", id)
				}
			},
			PutCookie:        func(id metadata.BookieID, data []byte) { put(t, c, "/ledgers/cookies/"+string(id), string(data)) },
			PutLedger:        func(id int64, data []byte) { put(t, c, "/ledgers/"+metadata.LedgerPath(id), string(data)) },
			Register:         func(r metadata.Registration) { register(t, c, r) },
			Unmark:           func(id int64) { remove(t, c, "/ledgers/"+metadata.MarkPath(id)) },
			KeepsCookieBytes: true,
			Unregister: func(id metadata.BookieID) {
				remove(t, c, "/ledgers/available/"+string(id))
				remove(t, c, "/ledgers/available/readonly/"+string(id))
			},
		}
	})
}

func ledger() *metadata.Ledger {
	return &metadata.Ledger{
		ID: metadata.NoID, Ensemble: 2, WriteQuorum: 2, AckQuorum: 2, State: metadata.Open, LastEntry: metadata.NoEntry, Digest: metadata.CRC32C,
		Segments: []metadata.Segment{{Bookies: []metadata.BookieID{"127.0.0.1:3181", "127.0.0.1:3182"}}},
	}
}

// Ids follow the counters as Java's generator does: the version that the key had.
func TestIDs(t *testing.T) {
	_, c := start(t)
	s := etcd.New(etcd.Config{Client: c})
	next := func() int64 {
		t.Helper()
		l := ledger()
		if _, err := s.Create(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	if id := next(); id != 1 {
		t.Errorf("the first id is %d, want Java's 1", id)
	}
	put(t, c, "/ledgers/idgen", "") // Java takes 2
	if id := next(); id != 3 {
		t.Errorf("after Java took 2: %d", id)
	}
	// A counter that was lost proposes what exists.
	remove(t, c, "/ledgers/idgen")
	if id := next(); id != 2 {
		t.Errorf("a counter that begins again gives %d, want 2, the first that is free", id)
	}

	// Ids of 63 bits, first of a folder without buckets.
	put(t, c, "/ledgers/idgen-long", "")
	if id := next(); id != 1<<32|1 {
		t.Errorf("the first id of 63 bits is %#x", id)
	}
	put(t, c, "/ledgers/idgen-long/HOB-0000000001", "")
	if id := next(); id != 1<<32|3 {
		t.Errorf("after Java took one: %#x", id)
	}
	put(t, c, "/ledgers/idgen-long/HOB-0000000007", "")
	put(t, c, "/ledgers/idgen-long/other", "")
	if id := next(); id != 7<<32|1 {
		t.Errorf("in the last bucket: %#x", id)
	}
}

// The bytes that the store leaves are those of a live cluster.
func TestLayout(t *testing.T) {
	_, c := start(t)
	s := etcd.New(etcd.Config{Client: c})
	for _, id := range []int64{metadata.NoID, 123456789, 1 << 32} {
		l := ledger()
		l.ID = id
		if _, err := s.Create(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.MarkUnderReplicated(t.Context(), 42, []metadata.BookieID{"127.0.0.1:31813"}); err != nil {
		t.Fatal(err)
	}
	resp, err := c.Get(t.Context(), "", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
		if k := string(kv.Key); k == "/ledgers/idgen" && (len(kv.Value) != 0 || kv.Version != 2) {
			t.Errorf("%s is %q at version %d, want nothing at last id + 1", k, kv.Value, kv.Version)
		}
	}
	want := []string{
		"/ledgers/00/0000/L0001", "/ledgers/000/0000/0042/9496/L7296", "/ledgers/01/2345/L6789", "/ledgers/idgen",
		"/ledgers/underreplication/ledgers/0000/0000/0000/002a/urL0000000042",
	}
	if len(keys) != len(want) {
		t.Fatalf("keys %q, want %q", keys, want)
	}
	for i := range want {
		if keys[i] != want[i] {
			t.Errorf("key %q, want %q", keys[i], want[i])
		}
	}
}

// countingKV counts reads.
type countingKV struct {
	clientv3.KV
	gets int
}

func (c *countingKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	c.gets++
	return c.KV.Get(ctx, key, opts...)
}

// A listing reads each ledger in one of its two rounds, not in both.
func TestListSkips(t *testing.T) {
	_, c := start(t)
	var ops []clientv3.Op
	for i := range int64(2000) {
		for _, id := range []int64{i, 1<<32 + i} {
			if ops = append(ops, clientv3.OpPut("/ledgers/"+metadata.LedgerPath(id), "")); len(ops) == 100 {
				if _, err := c.Txn(t.Context()).Then(ops...).Commit(); err != nil {
					t.Fatal(err)
				}
				ops = nil
			}
		}
	}
	counting := &countingKV{KV: c.KV}
	c.KV = counting
	n := 0
	if err := etcd.New(etcd.Config{Client: c}).List(t.Context(), 0, func(metadata.Listed) bool { n++; return true }); err != nil {
		t.Fatal(err)
	}
	// Eight pages of 500, and one at each seam.
	if n != 4000 || counting.gets > 11 {
		t.Errorf("%d ledgers in %d reads", n, counting.gets)
	}
}

// While etcd is away requests fail as such and the registry keeps what it knew;
// when it is back, the registry finds what changed meanwhile, compacted or not.
func TestAway(t *testing.T) {
	m, other := start(t)
	cable := new(cable)
	c := m.connectBy(t, cable.dial)
	// What is asked while etcd is there has the time that it needs.
	well, s := etcd.New(etcd.Config{Client: c}), etcd.New(etcd.Config{Client: c, RequestTimeout: 300 * time.Millisecond})
	for _, id := range []metadata.BookieID{"127.0.0.1:1", "127.0.0.1:2"} {
		register(t, c, metadata.Registration{ID: id})
	}
	l := ledger()
	v, err := well.Create(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	r, err := well.Bookies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	cable.cut(true)
	if _, err := s.Create(t.Context(), ledger()); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("Create that gets no id: %v, want ErrUnavailable", err)
	}
	if _, _, err := s.Read(t.Context(), l.ID); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("Read: %v, want ErrUnavailable", err)
	}
	_, updateErr := s.Update(t.Context(), l, v)
	if !errors.Is(updateErr, metadata.ErrUnavailable) && !errors.Is(updateErr, metadata.ErrUnknownOutcome) {
		t.Errorf("Update: %v, want ErrUnavailable or ErrUnknownOutcome", updateErr)
	}
	at := ledger()
	at.ID = 77
	_, createErr := s.Create(t.Context(), at)
	if !errors.Is(createErr, metadata.ErrUnavailable) && !errors.Is(createErr, metadata.ErrUnknownOutcome) {
		t.Errorf("Create at an id: %v, want ErrUnavailable or ErrUnknownOutcome", createErr)
	}
	if b := r.Get("127.0.0.1:1"); b.State != metadata.Writable {
		t.Errorf("without etcd the registry says %+v", b)
	}

	remove(t, other, "/ledgers/available/127.0.0.1:1")
	at3 := put(t, other, "/ledgers/available/127.0.0.1:3", "")
	if _, err := other.Compact(t.Context(), at3); err != nil {
		t.Fatal(err)
	}
	cable.cut(false)
	deadline := time.After(30 * time.Second)
	for {
		changed := r.Changed()
		if r.Get("127.0.0.1:1").State == metadata.Vanished && r.Get("127.0.0.1:3").State == metadata.Writable {
			break
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("after etcd came back the registry says %+v", r.All())
		}
	}
}

// deaf is a watcher that hears nothing, and of no end.
type deaf struct{ clientv3.Watcher }

func (deaf) Watch(ctx context.Context, _ string, _ ...clientv3.OpOption) clientv3.WatchChan {
	ch := make(chan clientv3.WatchResponse)
	context.AfterFunc(ctx, func() { close(ch) })
	return ch
}

// Who registers is heard of though the watch says nothing.
func TestDeafWatch(t *testing.T) {
	m, c := start(t)
	c.Watcher = deaf{c.Watcher}
	s := etcd.New(etcd.Config{Client: c, RelistInterval: 10 * time.Millisecond})
	r, err := s.Bookies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	register(t, m.connect(t), metadata.Registration{ID: "127.0.0.1:1"})
	deadline := time.After(30 * time.Second)
	for {
		changed := r.Changed()
		if r.Get("127.0.0.1:1").State == metadata.Writable {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the registry says %+v", r.All())
		}
	}
}

// After its client is closed the store says so, and the registry ends by itself.
func TestClosedClient(t *testing.T) {
	_, c := start(t)
	s := etcd.New(etcd.Config{Client: c})
	r, err := s.Bookies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, _, err := s.Read(t.Context(), 1); !errors.Is(err, metadata.ErrClosed) {
		t.Errorf("Read: %v, want ErrClosed", err)
	}
	r.Close()
}
