package api

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/forward"
	"github.com/quirelog/quire/storage"
)

// Config of the handlers. A zero value of the fields below the first two
// means the default named in the comment.
type Config struct {
	Coordinator *coordinator.Coordinator
	Store       *storage.Store
	Peers       forward.Sender // the way to other nodes; nil: this node is alone

	// ProxyListeners says of which listeners the clients know one node only, id 0 at
	// the advertised address, whatever node they have come to. Nil: of none.
	ProxyListeners func(listener string) bool

	AutoCreateTopics      bool          // auto.create.topics.enable
	TopicDeletionDisabled bool          // delete.topic.enable=false
	FetchMaxBytes         int           // fetch.max.bytes: 55 MiB
	MaxFetchedBytes       int64         // of records read for answers that are not sent yet, all together: 128 MiB
	MaxConvertedBytes     int64         // of batches made of message sets that are not stored yet, all together: 256 MiB
	ConversionCacheBytes  int64         // of batches kept in the formats of old consumers: 128 MiB; -1: none
	MaxFetchSessions      int           // max.incremental.fetch.session.cache.slots: 1000; -1: none
	MinFetchSessionAge    time.Duration // before a session may make room for another: 2 min
	LogDir                string        // the one directory of DescribeLogDirs: "/quire"
	// MaxOffsetMetadataBytes is offset.metadata.max.bytes: 4096; -1: none is allowed.
	MaxOffsetMetadataBytes int
	Broker                 []BrokerConfig
	Registerer             prometheus.Registerer // of the metrics; nil: none
	Logger                 *zap.Logger           // silence
	Now                    func() time.Time

	// Replaced by tests.
	maxInflatedBytes int
	router           router
	freshTime        time.Duration // freshTime, unless a test has another
}

// BrokerConfig is one setting of this node as DescribeConfigs tells it.
type BrokerConfig struct {
	Name      string
	Value     string
	Set       bool // by file, environment or flag; else it is the default
	Sensitive bool // its value is never told
	Type      kmsg.ConfigType
	Doc       string
}

// Handlers answers the requests of all connections. It implements proxy.Handler.
type Handlers struct {
	c        Config
	rows     map[int16]*row // of table
	sessions fetchSessions
	waiting  produceDeadlines
	produces sync.Pool    // of *produceRequest
	fetches  sync.Pool    // of *fetchRequest
	fetched  atomic.Int64 // bytes, as in MaxFetchedBytes

	self    int32  // this node
	router  router // the Coordinator
	parting parting
	waits   routeWaits
	lines   commitLines

	conversions conversions
	converted   atomic.Int64 // bytes, as in MaxConvertedBytes
	cache       *conversionCache
	metrics     []prometheus.Collector

	ctx     context.Context // ends with Close
	noTime  context.Context // for who must not block: it has ended
	cancel  context.CancelFunc
	running sync.WaitGroup
}

const (
	defaultTimeout = 30 * time.Second
	maxTimeout     = 60 * time.Second // that a request may hold a worker

	// maxPartitions bounds the topics, and the partitions, that one Produce or
	// Fetch request may name: each costs some hundred bytes while the request
	// is under way, and may take six in its frame.
	maxPartitions = 100_000
)

// New returns the handlers. Close ends what they run.
func New(c Config) *Handlers {
	if c.FetchMaxBytes == 0 {
		c.FetchMaxBytes = 55 << 20
	}
	if c.MaxFetchedBytes == 0 {
		c.MaxFetchedBytes = 128 << 20
	}
	if c.MaxConvertedBytes == 0 {
		c.MaxConvertedBytes = 256 << 20
	}
	if c.maxInflatedBytes == 0 {
		c.maxInflatedBytes = maxInflatedBytes
	}
	if c.ConversionCacheBytes == 0 {
		c.ConversionCacheBytes = 128 << 20
	}
	if c.MaxFetchSessions == 0 {
		c.MaxFetchSessions = 1000
	}
	if c.MinFetchSessionAge == 0 {
		c.MinFetchSessionAge = 2 * time.Minute
	}
	switch c.MaxOffsetMetadataBytes {
	case 0:
		c.MaxOffsetMetadataBytes = 4096
	case -1:
		c.MaxOffsetMetadataBytes = 0
	}
	if c.LogDir == "" {
		c.LogDir = "/quire"
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.freshTime == 0 {
		c.freshTime = freshTime
	}
	if c.router == nil {
		c.router = c.Coordinator
	}
	h := &Handlers{c: c, rows: index(table), router: c.router}
	if c.Coordinator != nil { // else it says only what it would answer
		h.self = c.Coordinator.Self().ID
	}
	h.conversions, h.cache = newConversions(c.maxInflatedBytes), newConversionCache(c.ConversionCacheBytes)
	h.registerMetrics()
	h.produces.New, h.fetches.New = h.newProduceRequest, h.newFetchRequest
	h.ctx, h.cancel = context.WithCancel(context.Background())
	noTime, end := context.WithCancel(context.Background())
	end()
	h.noTime = noTime
	h.sessions.init(c.MaxFetchSessions, c.MinFetchSessionAge)
	h.running.Go(func() { h.waiting.run(h.ctx, c.Now) })
	if c.Peers != nil {
		h.waits.init(h.router.RoutesChanged)
		h.running.Go(func() { h.waits.run(h.ctx) })
	}
	return h
}

// Close ends the handlers' own goroutines and the blocking calls under way. The
// server that uses them must have stopped before.
func (h *Handlers) Close() {
	h.cancel()
	h.running.Wait()
	h.cache.clear()
	h.unregisterMetrics()
}

// Accepts implements proxy.Handler.
func (h *Handlers) Accepts(key, version int16) bool {
	row := h.rows[key]
	return row != nil && version >= row.min && version <= row.max
}

// FlexibleRequest implements proxy.Handler.
func (h *Handlers) FlexibleRequest(key, version int16) bool {
	return protocol.FlexibleRequest(key, version)
}

// Handle implements proxy.Handler.
func (h *Handlers) Handle(r *proxy.Request) {
	row := h.rows[r.Key]
	if row == nil {
		r.Drop(fmt.Errorf("API key %d is not served", r.Key))
		return
	}
	if r.Origin != nil && !h.servesOrigin(r) {
		if r.Key == keyProduce {
			stateOf(r).refusals.add(r.Origin.Stream)
		}
		r.Refuse()
		return
	}
	row.handle(h, r)
}

// decode reads the body of r into q, or drops the connection and returns
// false. Nothing in q aliases the frame but byte slices.
func (h *Handlers) decode(r *proxy.Request, q kmsg.Request) bool {
	if err := h.parse(r, q); err != nil {
		r.Drop(err)
		return false
	}
	return true
}

// parse reads the body of r into q, as decode does.
func (h *Handlers) parse(r *proxy.Request, q kmsg.Request) error {
	q.SetVersion(r.Version)
	err := protocol.CheckRequest(r.Key, r.Version, r.Body)
	if err == nil {
		err = q.ReadFrom(r.Body)
	}
	if err != nil {
		return fmt.Errorf("%s v%d: malformed body: %w", kmsg.NameForKey(r.Key), r.Version, err)
	}
	return nil
}

// respond encodes and sends resp. Any goroutine.
func (h *Handlers) respond(r *proxy.Request, resp kmsg.Response) {
	flexible := protocol.FlexibleResponse(r.Key, resp.GetVersion())
	out := protocol.AppendResponseHeader(make([]byte, 0, 256), r.CorrelationID, flexible)
	out = resp.AppendTo(out)
	r.Respond(proxy.Response{Parts: [][]byte{out}})
}

// timeout gives a context for a blocking call: d, but at most maxTimeout, and
// not past Close.
func (h *Handlers) timeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.ctx, min(d, maxTimeout))
}

// timeoutMillis is timeout for the timeout_ms of a request.
func (h *Handlers) timeoutMillis(ms int32) (context.Context, context.CancelFunc) {
	if ms <= 0 {
		return h.timeout(defaultTimeout)
	}
	return h.timeout(time.Duration(ms) * time.Millisecond)
}

// openLog returns a partition's log, opening it if needed. It may block.
func (h *Handlers) openLog(ctx context.Context, t *coordinator.Topic, partition int32) (*storage.Log, error) {
	if t == nil {
		return nil, coordinator.ErrUnknownTopic
	}
	if partition < 0 || partition >= t.Partitions {
		return nil, fmt.Errorf("partition %d of topic %q: %w", partition, t.Name, errUnknownPartition)
	}
	id := storage.LogID{Topic: t.ID, Partition: partition}
	if l := h.c.Store.Log(id); l != nil {
		return l, nil
	}
	slot := coordinator.PartitionSlot(t.ID, partition)
	if !h.serves(slot) {
		return nil, fmt.Errorf("partition %d of topic %q: %w", partition, t.Name, storage.ErrLostOwnership)
	}
	l, err := h.c.Store.OpenLog(ctx, id, t.LogConfig)
	if err != nil {
		return nil, fmt.Errorf("open partition %d of topic %q: %w", partition, t.Name, err)
	}
	switch now := h.c.Coordinator.TopicByID(t.ID); {
	case !h.serves(slot):
		// Whoever ends the slot's service closes the log as well.
		return nil, fmt.Errorf("partition %d of topic %q: %w", partition, t.Name, storage.ErrLostOwnership)
	case now == nil:
		// A topic that was deleted meanwhile had its logs deleted before this one was opened.
		_ = h.c.Store.DeleteLogs(ctx, t.ID, t.Partitions)
		return nil, fmt.Errorf("topic %q: %w", t.Name, coordinator.ErrUnknownTopic)
	case now.LogConfig != t.LogConfig:
		// Nor was it open to be told of a change.
		l.SetConfig(now.LogConfig)
	}
	return l, nil
}

// openingLogs is how many logs a request opens at a time.
const openingLogs = 16

// forEach calls f for each i below n, several at a time, and returns when all have.
func forEach(n int, f func(i int)) {
	var next atomic.Int64
	var done sync.WaitGroup
	for range min(n, openingLogs) {
		done.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i))
			}
		})
	}
	done.Wait()
}
