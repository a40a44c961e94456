package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapgrpc"
	"google.golang.org/grpc/grpclog"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/proxy/api"
	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/bookkeeper"
	"github.com/quirelog/quire/storage/embedded"
	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/etcd"
	"github.com/quirelog/quire/storage/vfs"
)

// clusterPrefix begins every key of ours. It never begins with "/": bookies watch that range.
func clusterPrefix(c *config) string { return "quire/" + c.str("cluster.name") + "/" }

type serveVerb struct {
	configFlags
}

func (v *serveVerb) Run(p *process) error {
	c, err := v.load(p)
	if err != nil {
		return err
	}
	log := newLogger(c, os.Stderr)
	defer func() { _ = log.Sync() }()
	// gRPC has one logger for the process and would print lines of its own about
	// the connections to an etcd cluster.
	grpclog.SetLoggerV2(zapgrpc.NewLogger(log.Named("grpc").WithOptions(zap.IncreaseLevel(zap.ErrorLevel))))
	// GOMEMLIMIT wins; without it the limit of the container counts. Outside of
	// one there is nothing to respect.
	if limit, err := memlimit.Set(); err == nil {
		log.Debug("memory limit", zap.Int64("bytes", limit))
	}
	// GOGC wins.
	if os.Getenv("GOGC") == "" {
		var collecting sync.WaitGroup
		ctx, stop := context.WithCancel(context.Background())
		defer collecting.Wait()
		defer stop()
		collecting.Go(func() { new(collector).run(ctx) })
	}
	addProcessors()
	n, err := startNode(p.ctx, c, log)
	if err != nil {
		if p.ctx.Err() != nil {
			return nil // a signal came first
		}
		return err
	}
	n.announce(p.stdout)
	select {
	case <-p.ctx.Done():
		log.Info("stopping")
		n.orderly = true
		return n.stop()
	case err := <-n.failed:
		// What ails the closing of the rest is the failure once more, and the
		// last line is for the failure itself.
		if err := n.stop(); err != nil {
			log.Warn("closing after a failure", zap.Error(err))
		}
		return err
	}
}

// node is a running quire: its parts in the order in which they were opened.
type node struct {
	config *config
	log    *zap.Logger

	prefix   string // of all keys in the metadata store
	name     string // of this node
	folderID string // "" if the metadata lies in the folder
	shared   bool   // other nodes may serve the cluster too
	keepsID  bool   // the folder is the one that the cluster was made with

	folder      *folder
	meta        *etcd.Store
	embedded    *embedded.Tier   // nil: not used
	bookies     *bookkeeper.Tier // likewise
	store       *storage.Store
	logs        atomic.Pointer[storage.Store] // store, for those who may come before it is open
	restore     *restoreWatch                 // nil: the metadata lies in the folder
	coordinator *coordinator.Coordinator
	links       *peerLinks // nil: no peer.listen
	server      *proxy.Server
	handlers    *api.Handlers
	bound       []listener
	plain       map[string]bool // names of listeners without TLS and PROXY protocol
	adminAt     string
	agent       *agentServer // nil: none

	failed   chan error // why the first part that did so ended by itself
	draining atomic.Bool
	serving  atomic.Bool // clients are accepted
	orderly  bool        // it was asked to stop, and has not failed
	closers  []closer
}

// closer ends one part. The last opened is the first to be closed.
type closer struct {
	name  string
	close func(ctx context.Context) error
}

// fail ends the process with err, once it serves: a part that cannot go on has
// ended for good, and whoever started the process learns of it and can start it
// again, which heals what can be healed. It does not block.
func (n *node) fail(err error) {
	select {
	case n.failed <- err:
	default: // the first failure is the cause
	}
}

func (n *node) onClose(name string, f func(ctx context.Context) error) {
	n.closers = append(n.closers, closer{name, f})
}

// startNode opens everything and begins to serve. The sockets are bound first,
// so that a port in use is found before any data is touched, but nobody is
// accepted before the rest stands.
func startNode(ctx context.Context, c *config, log *zap.Logger) (*node, error) {
	n := &node{config: c, log: log, prefix: clusterPrefix(c), failed: make(chan error, 1)}
	if err := n.start(ctx); err != nil {
		if stopErr := n.stop(); stopErr != nil {
			log.Debug("closing after a failed start", zap.Error(stopErr))
		}
		select {
		case cause := <-n.failed:
			return nil, cause // what failed the start is only its effect
		default:
			return nil, err
		}
	}
	return n, nil
}

func (n *node) start(ctx context.Context) error {
	c := n.config
	registry := newRegistry()

	adminListener, err := n.listenAdmin()
	if err != nil {
		return err
	}
	if err := n.listenAgent(); err != nil {
		return err
	}
	handlers := new(lateHandlers)
	if err := n.listen(registry, handlers); err != nil {
		return err
	}

	n.folder, err = openFolder(vfs.OS, c.str("data.dir"))
	if err != nil {
		return err
	}
	n.onClose("data folder", func(context.Context) error { return n.folder.Close() })

	if err := n.openMetadata(ctx); err != nil {
		return err
	}

	tier, err := n.openTiers(ctx, registry)
	if err != nil {
		return err
	}

	if err := n.openCoordinator(ctx, registry); errors.Is(err, meta.ErrNoSpace) {
		return explainFolder(n.folder.path(etcdDir), err)
	} else if err != nil {
		return err
	}
	if n.folderID != "" {
		if err := n.confirmFolder(ctx); err != nil {
			return err
		}
	}

	n.store, err = storage.Open(ctx, storage.StoreConfig{
		Tier:               tier,
		Meta:               n.meta,
		Prefix:             n.prefix,
		ClusterID:          n.coordinator.ClusterID(),
		TailCacheBytes:     c.number("tail.cache.bytes"),
		ColdReadBytes:      c.number("cold.read.bytes"),
		IdleCloseAfter:     c.millis("ledger.idle.close.ms"),
		SnapshotEveryBytes: c.number("producer.snapshot.interval.bytes"),
		RetentionInterval:  c.millis("log.retention.check.interval.ms"),
		ProducerExpiry:     c.millis("producer.id.expiration.ms"),
		MaxProducersPerLog: int(c.number("producer.max.per.partition")),
		TopicKey:           n.coordinator.TopicKey,
		FirstEpoch:         n.firstEpoch(),
		Serves:             n.serves(),
		Slot:               logSlot,
		Housekeeper:        n.housekeeper,
		TopicName: func(id [16]byte) string {
			if t := n.coordinator.TopicByID(id); t != nil {
				return t.Name
			}
			return ""
		},
		Registerer: registry,
		Logger:     n.log.Named("storage"),
	})
	if err != nil {
		return err
	}
	n.onClose("logs", n.store.Close)
	n.logs.Store(n.store)
	n.coordinator.Hold(n.store)
	n.startSweep()

	fetchSessions := int(c.number("max.incremental.fetch.session.cache.slots"))
	if fetchSessions == 0 {
		fetchSessions = -1 // none
	}
	peers, err := n.openPeers(registry)
	if err != nil {
		return err
	}
	handlers.Handlers = api.New(api.Config{
		Coordinator:            n.coordinator,
		Store:                  n.store,
		Peers:                  peers,
		AutoCreateTopics:       c.boolean("auto.create.topics.enable"),
		TopicDeletionDisabled:  !c.boolean("delete.topic.enable"),
		ProxyListeners:         proxyListeners(c),
		FetchMaxBytes:          int(c.number("fetch.max.bytes")),
		MaxFetchSessions:       fetchSessions,
		MaxConvertedBytes:      c.number("queued.max.request.bytes"),
		ConversionCacheBytes:   conversionCache(c),
		MaxOffsetMetadataBytes: maxOffsetMetadata(c),
		LogDir:                 n.folder.path(ledgersDir),
		Logger:                 n.log.Named("api"),
		Broker:                 brokerConfigs(c, n.coordinator.Self().ID, n.folder.path(ledgersDir)),
		Registerer:             registry,
	})
	n.handlers = handlers.Handlers
	n.onClose("handlers", func(context.Context) error { handlers.Close(); return nil })

	if c.boolean("metrics.group.lag") {
		lag := handlers.GroupLag(int(c.number("metrics.group.lag.max.series")))
		if err := registry.Register(lag); err != nil {
			return err
		}
	}
	n.startAdmin(adminListener, registry)
	n.awaitGroups(ctx)
	n.serve()
	n.serving.Store(true)
	return nil
}

// conversionCache is conversion.cache.bytes with -1 for none.
func conversionCache(c *config) int64 {
	if n := c.number("conversion.cache.bytes"); n > 0 {
		return n
	}
	return -1
}

// groupsLoadTimeout bounds how long clients find nobody listening because the
// metadata store is slow: produce and fetch need no groups.
const groupsLoadTimeout = 2 * time.Second

// awaitGroups waits until the groups are loaded, which takes some tenths of a
// second. Clients that are told that they load wait longer, and librdkafka
// receives nothing while it commits.
func (n *node) awaitGroups(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, groupsLoadTimeout)
	defer cancel()
	if err := n.coordinator.Groups().AwaitLoaded(ctx); err != nil {
		n.log.Warn("groups are still loading; their requests are refused until they are", zap.Error(err))
	}
}

// listen binds the sockets that clients connect to.
func (n *node) listen(registry *prometheus.Registry, handlers proxy.Handler) error {
	c := n.config
	wanted, err := parseListeners(c.str("listeners"))
	if err != nil {
		return err // checked when the configuration was loaded
	}
	idle := c.millis("connections.max.idle.ms")
	cfg := proxy.Config{
		Handler:    handlers,
		Log:        n.log.Named("proxy"),
		Registerer: registry,
		Loops:      c.loops(),
		Workers:    int(c.number("num.io.threads")),
		Limits: proxy.Limits{
			MaxFrameBytes:           int(c.number("socket.request.max.bytes")),
			MaxSlotsPerConn:         int(c.number("connection.max.requests")),
			MaxInflightBytesPerConn: int(c.number("connection.max.request.bytes")),
			MaxUnsentBytesPerConn:   int(c.number("connection.max.unsent.bytes")),
			MaxInflightBytes:        c.number("queued.max.request.bytes"),
			MaxConnections:          n.descriptors().connections,
			MaxConnectionsPerIP:     int(c.number("max.connections.per.ip")),
			IdleTimeout:             idle,
			FrameTimeout:            c.millis("connection.frame.timeout.ms"),
			PeerTimeout:             c.millis("connection.peer.timeout.ms"),
			DrainTimeout:            min(c.millis("shutdown.timeout.ms")/4, 10*time.Second),
		},
	}
	protocols, err := parseProtocolMap(c.str("listener.security.protocol.map"))
	if err != nil {
		return err
	}
	var certs *certificates
	n.plain = map[string]bool{}
	for _, l := range wanted {
		pl := proxy.Listener{Name: l.Name, Network: l.Network(), Address: l.Address()}
		if pl.ProxyProtocol, err = proxyProtocol(c, l.Name); err != nil {
			return err
		}
		if protocols[l.Name] == "SSL" {
			if certs == nil {
				if certs, err = openCertificates(c, registry, n.log.Named("tls")); err != nil {
					return err
				}
			}
			pl.TLS = certs.base
		}
		n.plain[l.Name] = pl.TLS == nil && pl.ProxyProtocol == nil
		cfg.Listeners = append(cfg.Listeners, pl)
	}
	if cfg.Listeners, err = n.listenPeers(cfg.Listeners); err != nil {
		return err
	}
	n.server, err = proxy.New(cfg)
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "listener "+peerListener+":"):
		return explainListen("peer listener "+c.str("peer.listen"), "peer.listen", err)
	case err != nil:
		return explainListen(listenerOf(wanted, err), "listeners", err)
	}
	n.onClose("listeners", func(context.Context) error { return n.server.Close() })
	for _, l := range wanted {
		if a, ok := n.server.Addr(l.Name).(*net.TCPAddr); ok {
			l.Port = a.Port
		}
		n.bound = append(n.bound, l)
	}
	return nil
}

// listenerOf names the listener that could not be bound, which the error of
// proxy.New begins with.
func listenerOf(wanted []listener, err error) string {
	for _, l := range wanted {
		if strings.HasPrefix(err.Error(), "listener "+l.Name+":") {
			return "listener " + l.String()
		}
	}
	return "listeners"
}

// serve begins to accept clients.
func (n *node) serve() {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := n.server.Serve(); !errors.Is(err, proxy.ErrServerClosed) {
			n.fail(err)
		}
	}()
	n.onClose("connections", func(ctx context.Context) error {
		// Half of the time is for clients, the rest for sealing ledgers.
		ctx, cancel := share(ctx, 2)
		defer cancel()
		err := n.server.Shutdown(ctx)
		<-ended
		return err
	})
}

// lateHandlers lets the sockets be bound before what answers on them exists.
// The server accepts nobody before it is filled.
type lateHandlers struct{ *api.Handlers }

// openCoordinator opens the catalog of topics and puts this node on the list of nodes.
func (n *node) openCoordinator(ctx context.Context, registry *prometheus.Registry) error {
	c := n.config
	defaults, err := c.topicDefaults()
	if err != nil {
		return err
	}
	var peer coordinator.Endpoint
	if n.links != nil {
		if n.links.secret, err = n.peerSecret(ctx); err != nil {
			return err
		}
		if peer, err = peerEndpoint(c, n.server.Addr(peerListener)); err != nil {
			return err
		}
	}
	n.coordinator, err = coordinator.Open(ctx, coordinator.Config{
		Meta:   n.meta,
		Prefix: n.prefix,
		Logger: n.log.Named("coordinator"),
		Node: coordinator.Node{
			ID: int32(c.number("node.id")), Folder: strings.TrimSpace(n.folderID + " " + n.folder.describe()), Rack: c.str("broker.rack"),
			Peer: peer, Weight: int32(c.number("node.weight")), Version: version(), FeatureLevel: newestFeatureLevel,
		},
		NodeName:                 n.name,
		Advertise:                n.advertise,
		LeaseTTL:                 c.millis("node.lease.ttl.ms"),
		BalanceSlotsPerSecond:    int(c.number("node.balance.slots.per.second")),
		Failed:                   n.fail,
		OnTopicChange:            n.topicChanged,
		NumPartitions:            int32(c.number("num.partitions")),
		DefaultReplicationFactor: int16(c.number("default.replication.factor")),
		TopicDefaults:            defaults,
		Groups:                   groupsConfig(c, registry),
	})
	if err != nil {
		return err
	}
	n.onClose("coordinator", func(context.Context) error {
		// All is done that is done here. That this node has gone the others learn at the
		// end of its lease, if etcd does not hear it.
		if err := n.coordinator.Close(); err != nil {
			n.log.Warn("this node is still on the list of nodes", zap.Error(err))
		}
		return nil
	})
	return nil
}

// advertise is what clients are told of this node, by listener name.
func (n *node) advertise(id int32) (map[string]coordinator.Endpoint, error) {
	told, err := advertised(n.config, n.bound, id, n.name)
	if err != nil {
		return nil, err
	}
	endpoints := make(map[string]coordinator.Endpoint, len(told))
	for name, l := range told {
		endpoints[name] = coordinator.Endpoint{Host: l.Host, Port: int32(l.Port)}
	}
	return endpoints, nil
}

// groupsConfig is what the configuration says of consumer groups.
func groupsConfig(c *config, registry *prometheus.Registry) coordinator.GroupsConfig {
	g := coordinator.GroupsConfig{
		ClassicOnly:      !slices.Contains(splitList(c.str("group.coordinator.rebalance.protocols")), "consumer"),
		OffsetsRetention: time.Duration(c.number("offsets.retention.minutes")) * time.Minute,
		ExpiryInterval:   c.millis("offsets.retention.check.interval.ms"),
		CommitTimeout:    c.millis("offsets.commit.timeout.ms"),
		Registerer:       registry,
	}
	g.Group.MinSessionTimeout = c.millis("group.min.session.timeout.ms")
	g.Group.MaxSessionTimeout = c.millis("group.max.session.timeout.ms")
	g.Group.InitialRebalanceDelay = c.millis("group.initial.rebalance.delay.ms")
	g.Group.MaxSize = int(c.number("group.max.size"))
	g.Group.ConsumerSessionTimeout = c.millis("group.consumer.session.timeout.ms")
	g.Group.ConsumerHeartbeatInterval = c.millis("group.consumer.heartbeat.interval.ms")
	g.MinConsumerSessionTimeout = c.millis("group.consumer.min.session.timeout.ms")
	g.MaxConsumerSessionTimeout = c.millis("group.consumer.max.session.timeout.ms")
	g.MinConsumerHeartbeatInterval = c.millis("group.consumer.min.heartbeat.interval.ms")
	g.MaxConsumerHeartbeatInterval = c.millis("group.consumer.max.heartbeat.interval.ms")
	g.Group.Assignors = splitList(c.str("group.consumer.assignors"))
	g.Group.ConsumerMaxSize = int(c.number("group.consumer.max.size"))
	policy := c.str("group.consumer.migration.policy")
	g.Group.Upgrade = policy == "bidirectional" || policy == "upgrade"
	g.Group.Downgrade = policy == "bidirectional" || policy == "downgrade"
	return g
}

// maxOffsetMetadata is offset.metadata.max.bytes as the handlers take it.
func maxOffsetMetadata(c *config) int {
	if n := int(c.number("offset.metadata.max.bytes")); n > 0 {
		return n
	}
	return -1 // none
}

// brokerConfigs is what DescribeConfigs tells of this node: the catalog's rows
// that Kafka has too, and where the records lie under the names that tools look for.
func brokerConfigs(c *config, id int32, logDir string) []api.BrokerConfig {
	out := []api.BrokerConfig{
		{Name: "broker.id", Value: strconv.Itoa(int(id)), Set: c.isSet("node.id"), Type: kmsg.ConfigTypeInt, Doc: catalogByName["node.id"].Doc},
		{Name: "log.dir", Value: logDir, Set: c.isSet("data.dir"), Type: kmsg.ConfigTypeString, Doc: catalogByName["data.dir"].Doc},
		{Name: "log.dirs", Value: logDir, Set: c.isSet("data.dir"), Type: kmsg.ConfigTypeString, Doc: catalogByName["data.dir"].Doc},
	}
	for i := range catalog {
		k := &catalog[i]
		if k.Ours {
			continue
		}
		value := c.effective(k.Name)
		if k.Name == "node.id" {
			value = strconv.Itoa(int(id))
		}
		if value == "" {
			continue
		}
		out = append(out, api.BrokerConfig{Name: k.Name, Value: value, Set: c.isSet(k.Name), Type: kmsg.ConfigType(k.Kind), Doc: k.Doc})
	}
	return out
}

func (n *node) listenAdmin() (net.Listener, error) {
	address := n.config.str("admin.listen")
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, explainListen("admin listener "+address, "admin-listen", err)
	}
	n.adminAt = l.Addr().String()
	n.onClose("admin listener", func(context.Context) error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return l, nil
}

// listenAgent answers agent checks until all else is closed, so that load
// balancers know until the end that no new clients are wanted.
func (n *node) listenAgent() error {
	address := n.config.str("agent.listen")
	if address == "" {
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return explainListen("agent listener "+address, "agent-listen", err)
	}
	n.agent = startAgent(l, n.log.Named("agent"))
	n.onClose("agent listener", func(context.Context) error { return n.agent.Close() })
	return nil
}

// leaving says whether new clients should go to other nodes. A node that was told
// to drain and has nobody to take over serves on, and takes whoever comes.
func (n *node) leaving() bool {
	if n.draining.Load() {
		return true
	}
	self := n.coordinator.Self()
	return self.Draining && slices.ContainsFunc(n.coordinator.Nodes(), func(other coordinator.Node) bool {
		return other.ID != self.ID && !other.Draining
	})
}

// startAdmin begins to answer operators. It closes with the listener, which was
// bound first: they can watch how the rest ends.
func (n *node) startAdmin(l net.Listener, registry *prometheus.Registry) {
	live := []healthCheck{
		{name: "event loops", check: n.server.NewPing()},
	}
	ready := []healthCheck{
		{name: "serving", check: n.checkServing},
		{name: "metadata", check: n.checkMetadata},
	}
	if n.embedded != nil {
		// A full disk is no reason to send readers away: it is said, and the
		// producers' requests are answered with a retriable error.
		ready = append(ready, healthCheck{name: "disk", check: func(context.Context) error { return n.embedded.Err() }, remark: func() string {
			if err := n.embedded.Refusing(); err != nil {
				return "produce is refused: " + err.Error()
			}
			return ""
		}})
	}
	if n.agent != nil {
		n.agent.watch(n.leaving, append(live[:len(live):len(live)], ready...))
	}
	if l == nil {
		return
	}
	a := startAdmin(l, registry, live, ready, func(mux *http.ServeMux) {
		mux.HandleFunc("POST /topics/{topic}/migrate", n.migrateTopic)
		n.handleNodes(mux)
	}, n.log)
	n.closers[0].close = func(context.Context) error { return a.Close() }
}

// checkServing says why clients should go elsewhere.
func (n *node) checkServing(context.Context) error {
	switch {
	case n.draining.Load():
		return errors.New("stopping")
	case !n.serving.Load():
		return errors.New("starting")
	case n.leaving():
		return errors.New("draining")
	}
	return nil
}

// metadataPatience is how long the metadata store may be away before a node stops
// being ready: produce and fetch go on without it, and every other node misses it too,
// so that a load balancer would end all connections. It is well above the minute that
// an election on slow disks or a restart of all of etcd may take.
const metadataPatience = 2 * time.Minute

func (n *node) checkMetadata(ctx context.Context) error {
	_, err := n.meta.Get(ctx, n.prefix+"v")
	if err == nil || errors.Is(err, meta.ErrNotFound) || time.Since(n.meta.Answered()) < metadataPatience && !errors.Is(err, etcd.ErrWentBack) {
		return nil
	}
	return err
}

// announce says where everything is, and one line to try.
func (n *node) announce(w io.Writer) {
	text := "quire " + version() + " serves Kafka clients at"
	try := ""
	for _, l := range n.bound {
		text += " " + l.String()
		if try == "" && l.Path == "" && n.plain[l.Name] {
			host, err := reachableHost(l.Host)
			if err != nil || l.Host == "" || net.ParseIP(l.Host).IsUnspecified() {
				host = "127.0.0.1"
			}
			try = net.JoinHostPort(host, strconv.Itoa(l.Port))
		}
	}
	text += "\n" + n.whereDataLies() + "\n"
	if n.adminAt != "" {
		text += "metrics, health and profiles are at http://" + n.adminAt + "/\n"
	}
	if try != "" {
		text += "try: echo hello | kcat -b " + try + " -t greetings -P && kcat -b " + try + " -t greetings -C -e\n"
	}
	_, _ = io.WriteString(w, text)
}

// whereDataLies says where new records and the metadata go.
func (n *node) whereDataLies() string {
	dir, toBookies := n.folder.dir, n.config.str("storage.tier") == tierBookKeeper
	switch {
	case toBookies && n.folderID != "":
		return "records lie on bookies and metadata in etcd; the data folder is " + dir
	case toBookies:
		return "records lie on bookies and metadata in " + dir
	case n.folderID != "":
		return "records lie in " + dir + " and metadata in etcd"
	}
	return "data lies in " + dir
}

// closeGrace is what stop may take beyond shutdown.timeout.ms for what has no
// deadline of its own.
const closeGrace = 750 * time.Millisecond

// stop gives what this node serves to the others, if there are any, while it goes on
// serving and forwarding, and then closes the parts, the last opened first, within the
// configured time: what is in flight is finished and the ledgers are sealed as far as
// that allows.
func (n *node) stop() error {
	n.draining.Store(true)
	timeout := n.config.millis("shutdown.timeout.ms")
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	// A disk that answers no more must not keep the process. Nothing that was
	// acknowledged depends on what is left undone.
	var closing atomic.Pointer[string]
	watchdog := time.AfterFunc(timeout+closeGrace, func() {
		n.log.Error("not closed in time, leaving: acknowledged records are safe", zap.Stringp("closing", closing.Load()))
		_ = n.log.Sync()
		os.Exit(1)
	})
	defer watchdog.Stop()
	var errs []error
	n.drain(ctx)
	for i := len(n.closers) - 1; i >= 0; i-- {
		c := n.closers[i]
		closing.Store(&c.name)
		started := time.Now()
		if err := c.close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("closing %s: %w", c.name, err))
		}
		n.log.Debug("closed", zap.String("part", c.name), zap.Duration("took", time.Since(started)))
	}
	return joinLine(errs)
}

// explainListen words why an address cannot be listened on. flag is where to
// choose another.
func explainListen(what, flag string, err error) error {
	advice := "choose another address with --" + flag
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: the address is in use: stop the process that has it or %s", what, advice)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: permission denied: ports below 1024 and foreign folders need rights, or %s", what, advice)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine has no such address: %s", what, advice)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("%s: %w: %s", what, err, advice)
}
