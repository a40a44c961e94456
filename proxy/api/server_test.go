package api

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
)

const listenerName = "PLAINTEXT"

// server is a whole node in this process: sockets, handlers, coordinator and
// logs over metadata and ledgers in memory.
type server struct {
	t       testing.TB
	meta    *mem.Store
	tier    *memTier
	store   *storage.Store
	coord   *coordinator.Coordinator
	handler *Handlers
	proxy   *proxy.Server
	served  chan error // of proxy
	addr    string
	options options
}

// lateHandler lets the address be known before the handlers exist.
type lateHandler struct{ *Handlers }

type options struct {
	config Config
	store  storage.StoreConfig
	coord  coordinator.Config

	limits        proxy.Limits
	address       string            // to listen on, before it is known; empty: a free port
	otherListener bool              // the node is known by a listener that it does not have
	records       map[string]string // in the metadata before the node opens

	way func(*forward.Peers) forward.Sender // to the other nodes of a cluster; nil: Peers
}

func newServer(t testing.TB, change ...func(*options)) *server {
	t.Helper()
	o := options{}
	o.config.AutoCreateTopics = true
	// The delay of the first rebalance is 0 as long as a test sets none.
	o.coord.Groups.Group.ConsumerHeartbeatInterval = 100 * time.Millisecond
	o.coord.Groups.Group.Upgrade, o.coord.Groups.Group.Downgrade = true, true
	for _, f := range change {
		f(&o)
	}
	closed := watchBuffers(t)
	s := &server{t: t, meta: mem.New(nil), tier: newMemTier(), addr: cmp.Or(o.address, "127.0.0.1:0")}
	ctx := context.Background()
	o.store.Tier, o.store.Meta, o.store.Prefix = s.tier, s.meta, "quire/test/"
	var err error
	for key, value := range o.records {
		_, _, err = s.meta.Txn(ctx, nil, []meta.Op{meta.Put(key, []byte(value))})
		check(t, err)
	}
	s.store, err = storage.Open(ctx, o.store)
	check(t, err)
	s.options = o
	s.start()
	t.Cleanup(func() {
		s.tier.release()
		s.stop()
		check(t, s.coord.Close())
		check(t, s.store.Close(ctx))
		check(t, s.tier.Close())
		check(t, s.meta.Close())
		closed()
		if n := s.handler.fetched.Load(); n != 0 {
			t.Errorf("%d bytes count as fetched and not sent", n)
		}
		if n := s.handler.converted.Load(); n != 0 {
			t.Errorf("%d bytes count as converted and not stored", n)
		}
	})
	return s
}

// watched are the servers and clusters that are open, and the bytes of buffers that were
// held before the first of them. Tests run one after another.
var watched struct {
	open   int
	before int64
}

// watchBuffers fails a test that leaves buffers in use: closed is to be called when a server
// or cluster has closed. Others that are open still hold and release buffers as
// they like, so that the last of them counts.
func watchBuffers(t testing.TB) (closed func()) {
	if watched.open == 0 {
		watched.before = buffer.InUseBytes()
	}
	watched.open++
	return func() {
		t.Helper()
		watched.open--
		if n := buffer.InUseBytes() - watched.before; n != 0 && watched.open == 0 {
			t.Errorf("%d bytes of buffers are not released", n)
		}
	}
}

// restarts is for servers that start again: no other test listens where they do, so that
// their port is free then.
func restarts(o *options) { o.address = "127.0.0.5:0" }

// start opens everything that a process has of its own: sockets, coordinator, handlers.
func (s *server) start() {
	t, o := s.t, s.options
	t.Helper()
	late := new(lateHandler)
	var err error
	s.proxy, err = proxy.New(proxy.Config{
		Listeners: []proxy.Listener{{Name: listenerName, Address: s.addr}},
		Handler:   late,
		Loops:     1,
		Workers:   8,
		Limits:    o.limits,
	})
	check(t, err)
	s.addr = s.proxy.Addr(listenerName).String()
	host, port, err := net.SplitHostPort(s.addr)
	check(t, err)
	portNumber, err := strconv.Atoi(port)
	check(t, err)

	o.coord.Meta, o.coord.Prefix = s.meta, "quire/test/"
	name := listenerName
	if o.otherListener {
		name = "OTHER"
	}
	o.coord.Node = coordinator.Node{ID: 1, Rack: "r1", Listeners: map[string]coordinator.Endpoint{
		name: {Host: host, Port: int32(portNumber)},
	}}
	s.coord, err = coordinator.Open(context.Background(), o.coord)
	check(t, err)
	o.config.Coordinator, o.config.Store = s.coord, s.store
	s.handler = New(o.config)
	late.Handlers = s.handler
	served := make(chan error, 1)
	s.served = served
	server := s.proxy
	go func() { served <- server.Serve() }()
}

// stop closes the sockets and what answers on them, when what is in flight is answered.
func (s *server) stop() {
	s.t.Helper()
	check(s.t, s.proxy.Shutdown(context.Background()))
	s.stopped()
}

// kill does so at once.
func (s *server) kill() {
	s.t.Helper()
	check(s.t, s.proxy.Close())
	s.stopped()
}

func (s *server) stopped() {
	s.t.Helper()
	if err := <-s.served; !errors.Is(err, proxy.ErrServerClosed) {
		s.t.Errorf("Serve: %v", err)
	}
	s.handler.Close()
}

// createTopic makes a topic of so many partitions.
func (s *server) createTopic(name string, partitions int32, config ...string) *coordinator.Topic {
	s.t.Helper()
	n := coordinator.NewTopic{Name: name, Partitions: partitions, ReplicationFactor: 1}
	for i := 0; i < len(config); i += 2 {
		if n.Config == nil {
			n.Config = make(map[string]string)
		}
		n.Config[config[i]] = config[i+1]
	}
	made, errs := s.coord.CreateTopics(context.Background(), []coordinator.NewTopic{n}, false)
	check(s.t, errs[0])
	return made[0]
}

// client is one connection that speaks kmsg.
type client struct {
	t    testing.TB
	conn net.Conn
	corr int32
}

func (s *server) dial() *client {
	s.t.Helper()
	return s.dialFor(s.t)
}

func (s *server) dialFor(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	check(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return &client{t: t, conn: conn}
}

// send writes a request without waiting for its answer.
func (c *client) send(requests ...kmsg.Request) {
	c.t.Helper()
	var frames []byte
	for _, q := range requests {
		c.corr++
		frames = append(frames, kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, q, c.corr)...)
	}
	_, err := c.conn.Write(frames)
	check(c.t, err)
}

// frame reads one answer without its size.
func (c *client) frame() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c.conn, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(c.conn, b)
	return b, err
}

// receive reads the answer to q, which was sent.
func (c *client) receive(q kmsg.Request) (kmsg.Response, error) {
	b, err := c.frame()
	if err != nil {
		return nil, err
	}
	resp := q.ResponseKind()
	if len(b) < 4 {
		return nil, fmt.Errorf("an answer of %d bytes", len(b))
	}
	b = b[4:]
	if resp.IsFlexible() && q.Key() != 18 {
		if len(b) == 0 || b[0] != 0 {
			return nil, fmt.Errorf("no empty tags in the header of %s v%d", kmsg.NameForKey(q.Key()), q.GetVersion())
		}
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		return nil, fmt.Errorf("%s v%d: %w", kmsg.NameForKey(q.Key()), q.GetVersion(), err)
	}
	// What was read must be all that there was.
	if again := resp.AppendTo(nil); len(again) != len(b) {
		return nil, fmt.Errorf("%s v%d: an answer of %d bytes holds %d", kmsg.NameForKey(q.Key()), q.GetVersion(), len(b), len(again))
	}
	return resp, nil
}

// do sends a request and returns its answer.
func do[R kmsg.Response](c *client, q kmsg.Request) R {
	c.t.Helper()
	c.send(q)
	resp, err := c.receive(q)
	if err != nil {
		c.t.Fatalf("%s v%d: %v", kmsg.NameForKey(q.Key()), q.GetVersion(), err)
	}
	return resp.(R)
}

// dropped says that the server closes the connection instead of answering.
func (c *client) dropped() bool {
	_, err := c.frame()
	var timeout net.Error
	return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, what string, got int16, want protocol.Code) {
	t.Helper()
	if protocol.Code(got) != want {
		t.Errorf("%s: %s, want %s", what, protocol.Code(got).Name(), want.Name())
	}
}

// makeBatch is a batch of records with the given values, stamped with the time.
func makeBatch(t testing.TB, h batch.Header, values ...string) []byte {
	t.Helper()
	var b batch.Builder
	b.Reset(h)
	for _, v := range values {
		b.Add(time.Now().UnixMilli(), nil, []byte(v))
	}
	out, err := b.AppendTo(nil)
	check(t, err)
	return out
}

// produceOne is a Produce request of one batch to one partition.
func produceOne(version int16, topic *coordinator.Topic, partition int32, records []byte) *kmsg.ProduceRequest {
	q := kmsg.NewPtrProduceRequest()
	q.Version, q.Acks, q.TimeoutMillis = version, -1, 30000
	qt := kmsg.NewProduceRequestTopic()
	qt.Topic, qt.TopicID = topic.Name, topic.ID
	qp := kmsg.NewProduceRequestTopicPartition()
	qp.Partition, qp.Records = partition, records
	qt.Partitions = append(qt.Partitions, qp)
	q.Topics = append(q.Topics, qt)
	return q
}

// produce stores values in one batch and returns the base offset.
func (c *client) produce(topic *coordinator.Topic, partition int32, values ...string) int64 {
	c.t.Helper()
	resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, partition, makeBatch(c.t, batch.Plain, values...)))
	p := &resp.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		c.t.Fatalf("produce: %v", protocol.Code(p.ErrorCode))
	}
	return p.BaseOffset
}

// fetchOne is a Fetch request of one partition, sessionless.
func fetchOne(version int16, topic *coordinator.Topic, partition int32, offset int64) *kmsg.FetchRequest {
	q := kmsg.NewPtrFetchRequest()
	q.Version, q.ReplicaID, q.MaxWaitMillis, q.MinBytes, q.MaxBytes = version, -1, 0, 1, 50<<20
	q.SessionEpoch = -1
	q.Topics = append(q.Topics, fetchTopic(topic, partition, offset))
	return q
}

func fetchTopic(topic *coordinator.Topic, partition int32, offset int64) kmsg.FetchRequestTopic {
	qt := kmsg.NewFetchRequestTopic()
	qt.Topic, qt.TopicID = topic.Name, topic.ID
	qp := kmsg.NewFetchRequestTopicPartition()
	qp.Partition, qp.FetchOffset, qp.PartitionMaxBytes = partition, offset, 1<<20
	qp.CurrentLeaderEpoch, qp.LastFetchedEpoch = -1, -1
	qt.Partitions = append(qt.Partitions, qp)
	return qt
}

// values are the values of all records in fetched bytes, which must be whole batches.
func values(t testing.TB, records []byte) []string {
	t.Helper()
	var out []string
	for len(records) > 0 {
		b, rest, err := batch.Next(records)
		check(t, err)
		check(t, b.Verify())
		it := b.Iterate(b.Records())
		var r batch.Record
		for it.Next(&r) {
			out = append(out, string(r.Value))
		}
		check(t, it.Err())
		records = rest
	}
	return out
}

func logID(t *coordinator.Topic, partition int32) storage.LogID {
	return storage.LogID{Topic: t.ID, Partition: partition}
}
