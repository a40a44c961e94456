// Package coordinator knows what exists and who leads it: the cluster's id, its
// nodes, topics, producer ids and consumer groups. The facts live in the metadata store, under the
// keys of keys.go; every node holds a copy in memory that follows by watch.
package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// Errors of the catalog of topics, wrapped with the subject and, where a value
// is at fault, what is allowed. The comment names Kafka's code.
var (
	ErrTopicExists        = errors.New("topic exists")                   // TOPIC_ALREADY_EXISTS
	ErrUnknownTopic       = errors.New("unknown topic")                  // UNKNOWN_TOPIC_OR_PARTITION
	ErrUnknownTopicID     = errors.New("unknown topic id")               // UNKNOWN_TOPIC_ID
	ErrInvalidTopicName   = errors.New("invalid topic name")             // INVALID_TOPIC_EXCEPTION
	ErrInvalidPartitions  = errors.New("invalid number of partitions")   // INVALID_PARTITIONS
	ErrInvalidReplication = errors.New("invalid replication factor")     // INVALID_REPLICATION_FACTOR
	ErrInvalidAssignment  = errors.New("invalid replica assignment")     // INVALID_REPLICA_ASSIGNMENT
	ErrInvalidConfig      = errors.New("invalid config")                 // INVALID_CONFIG
	ErrPolicy             = errors.New("not allowed in this cluster")    // POLICY_VIOLATION
	ErrNotOwner           = errors.New("slot is served by another node") // NOT_LEADER_OR_FOLLOWER / NOT_COORDINATOR by API
	ErrUnavailable        = errors.New("metadata is not available")      // REQUEST_TIMED_OUT / COORDINATOR_NOT_AVAILABLE by API
)

// Config of the coordinator. Zero values mean the default named in the comment.
type Config struct {
	Meta   meta.Store
	Prefix string      // of all keys, "quire/{cluster}/"
	Logger *zap.Logger // silent
	Node   Node        // this node; its ID is allocated if it is -1

	// Advertise, if it is not nil, gives Node.Listeners once the node's id is
	// known. Open calls it once, before the node is on the list.
	Advertise func(id int32) (map[string]Endpoint, error)

	// NodeName makes an allocated id stable: a node that starts again under its
	// name gets its id again. Default "quire". Nodes of one cluster need different names.
	NodeName string

	// LeaseTTL is how long a node stays on the list that does not renew its
	// registration: 3 to 60 s, 10 s. Its slots are claimed by others then.
	LeaseTTL time.Duration
	// BalanceDelay is for how long the nodes must have stayed the same before
	// slots move to one that has joined: 2 s. BalanceSlotsPerSecond is how many an owner
	// moves then: 100.
	BalanceDelay          time.Duration
	BalanceSlotsPerSecond int
	// Failed is called if this node must end: since another process serves under its id
	// (ErrReplaced), and it serves nothing any more then; or since the cluster's
	// feature level was raised beyond what it knows (ErrFeatureLevel). It must not block.
	Failed func(error)
	// OnTopicChange is called after each change of a topic that this node's copy
	// has taken over, whoever made it, one at a time and in order; deleted topics come
	// as they were. It must not block, nor change topics.
	OnTopicChange func(t *Topic, deleted bool)
	Clock         Clock // of leases and delays: the system's

	NumPartitions            int32             // of new topics that leave it open: 1
	DefaultReplicationFactor int16             // likewise: 1
	TopicDefaults            map[string]string // by topic config name, from the broker's log.* settings (BrokerDefaults)
	MaxPartitionsPerTopic    int32             // 10,000
	MaxTopics                int               // 1,000,000

	Groups GroupsConfig
}

// Coordinator is safe for use from any goroutine. Lookups never wait for the
// metadata store.
type Coordinator struct {
	config  Config
	meta    meta.Store
	logger  *zap.Logger
	keys    keys
	configs *configs // topic configs parsed
	topics  catalog
	absent  absentTopics
	creator creator

	clusterID    string
	level        atomic.Int32 // the cluster's feature level
	self         Node         // as configured, with id and incarnation
	nodes        atomic.Pointer[nodeList]
	nodesMu      sync.Mutex // of who changes nodes
	slots        slots
	prover       prover
	registration *registration // nil until this node is on the list
	producerIDs  producerIDs
	groups       *Groups // nil until they are opened

	// ctx ends when Close begins.
	ctx    context.Context
	cancel context.CancelFunc
	// background are the goroutines that Close waits for.
	background sync.WaitGroup
	closing    sync.Once
	blind      sync.Once // a copy cannot be followed any more
}

// Open reads the facts, puts this node on the list and starts to follow. ctx
// bounds the opening only.
func Open(ctx context.Context, config Config) (*Coordinator, error) {
	if err := config.fill(); err != nil {
		return nil, err
	}
	configs, err := newConfigs(config.TopicDefaults)
	if err != nil {
		return nil, err
	}
	c := &Coordinator{config: config, meta: config.Meta, logger: config.Logger, keys: keys{config.Prefix}, configs: configs}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.topics.init(config.OnTopicChange)
	c.creator.c = c
	c.producerIDs.init(c)
	c.prover.c = c
	c.slots.init(c)
	if err := c.open(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Config) fill() error {
	if c.Meta == nil || c.Prefix == "" {
		return errors.New("coordinator: Meta and Prefix are required")
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	setDefault(&c.NodeName, "quire")
	setDefault(&c.Node.FeatureLevel, NewestFeatureLevel)
	setDefault(&c.NumPartitions, 1)
	setDefault(&c.DefaultReplicationFactor, 1)
	setDefault(&c.MaxPartitionsPerTopic, 10_000)
	setDefault(&c.MaxTopics, 1_000_000)
	setDefault(&c.LeaseTTL, defaultLeaseTTL)
	setDefault(&c.BalanceDelay, 2*time.Second)
	setDefault(&c.BalanceSlotsPerSecond, 100)
	if c.Clock == nil {
		c.Clock = systemClock
	}
	if c.LeaseTTL < minLeaseTTL || c.LeaseTTL > maxLeaseTTL {
		return fmt.Errorf("coordinator: a lease of %v, allowed are %v to %v", c.LeaseTTL, minLeaseTTL, maxLeaseTTL)
	}
	if c.BalanceDelay < 0 || c.BalanceSlotsPerSecond < 1 {
		return fmt.Errorf("coordinator: slots move after %v, %d a second", c.BalanceDelay, c.BalanceSlotsPerSecond)
	}
	if c.NumPartitions < 1 || c.NumPartitions > c.MaxPartitionsPerTopic {
		return fmt.Errorf("%w: default of %d, allowed are 1 to %d", ErrInvalidPartitions, c.NumPartitions, c.MaxPartitionsPerTopic)
	}
	if c.DefaultReplicationFactor < 1 {
		return fmt.Errorf("%w: default of %d, at least 1", ErrInvalidReplication, c.DefaultReplicationFactor)
	}
	return nil
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

func (c *Coordinator) open(ctx context.Context) error {
	if err := c.openCluster(ctx); err != nil {
		return err
	}
	for _, open := range []func(context.Context) error{c.openTopics, c.openNodes, c.openGroups, c.openSlots} {
		if err := open(ctx); err != nil {
			return err
		}
	}
	return nil
}

// leaveTimeout bounds how long Close waits for topics that are being made, and
// then how long it tries to take the node off the list; its lease does that anyway.
const leaveTimeout = 2 * time.Second

// Close stops following and takes this node off the list. Topics whose creation
// is under way are decided first, those that only wait for it fail; the same
// goes for what groups have committed.
func (c *Coordinator) Close() error {
	var err error
	c.closing.Do(func() {
		giveUp := time.AfterFunc(leaveTimeout, c.cancel)
		c.creator.close()
		giveUp.Stop()
		if c.groups != nil {
			c.groups.close()
		}
		c.prover.close()
		c.cancel()
		c.background.Wait()
		c.slots.metrics.unregister()
		err = c.leave()
	})
	return err
}

// unavailable wraps an error of the metadata store. A context's error stays visible.
func unavailable(subject string, err error) error {
	return fmt.Errorf("%s: %w: %w", subject, ErrUnavailable, err)
}
