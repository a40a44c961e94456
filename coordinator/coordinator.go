// Package coordinator knows what exists and who leads it: the cluster's id, its
// nodes, topics and producer ids. The facts live in the metadata store; every
// node holds a copy in memory that follows by watch.
package coordinator

import (
	"context"
	"errors"

	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/meta"
)

// Errors of the catalog of topics, wrapped with the subject and, where a value
// is at fault, what is allowed. The comment names Kafka's code.
var (
	ErrTopicExists        = errors.New("topic exists")                 // TOPIC_ALREADY_EXISTS
	ErrUnknownTopic       = errors.New("unknown topic")                // UNKNOWN_TOPIC_OR_PARTITION
	ErrUnknownTopicID     = errors.New("unknown topic id")             // UNKNOWN_TOPIC_ID
	ErrInvalidTopicName   = errors.New("invalid topic name")           // INVALID_TOPIC_EXCEPTION
	ErrInvalidPartitions  = errors.New("invalid number of partitions") // INVALID_PARTITIONS
	ErrInvalidReplication = errors.New("invalid replication factor")   // INVALID_REPLICATION_FACTOR
	ErrInvalidAssignment  = errors.New("invalid replica assignment")   // INVALID_REPLICA_ASSIGNMENT
	ErrInvalidConfig      = errors.New("invalid config")               // INVALID_CONFIG
	ErrUnavailable        = errors.New("metadata is not available")    // REQUEST_TIMED_OUT / COORDINATOR_NOT_AVAILABLE by API
)

// Topic is one topic as of one revision. It is immutable: a change makes a new Topic.
type Topic struct {
	Name              string
	ID                [16]byte
	Partitions        int32
	ReplicationFactor int16             // as asked for; told back to clients as far as nodes exist
	Config            map[string]string // overrides only; nil if none
	LogConfig         *storage.LogConfig
	Revision          meta.Revision
}

// NewTopic asks for a topic. Partitions or ReplicationFactor -1: the default.
type NewTopic struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16
	Config            map[string]string
}

// Node is one running quire.
type Node struct {
	ID        int32
	Rack      string
	Listeners map[string]Endpoint // by listener name
}

// Endpoint is where clients reach a listener.
type Endpoint struct {
	Host string
	Port int32
}

// Config of the coordinator.
type Config struct {
	Meta   meta.Store
	Prefix string // "quire/{cluster}/"
	Node   Node   // this node; its ID is allocated if it is -1

	NumPartitions            int32 // default of new topics
	DefaultReplicationFactor int16
	TopicDefaults            map[string]string // by topic config name, from the broker's log.* settings
}

// Coordinator is safe for use from any goroutine. Lookups never block.
type Coordinator struct{}

// Open reads the facts and starts to follow them.
func Open(ctx context.Context, c Config) (*Coordinator, error) { panic("unwritten") }

// Close stops following and takes this node off the list.
func (c *Coordinator) Close() error { panic("unwritten") }

// ClusterID is the id that clients see, 22 characters of base64url as Kafka's.
func (c *Coordinator) ClusterID() string { panic("unwritten") }

// Self is this node; Nodes are all live ones, this one included, by id.
func (c *Coordinator) Self() Node    { panic("unwritten") }
func (c *Coordinator) Nodes() []Node { panic("unwritten") }

// Topic returns a topic by name or nil. TopicByID likewise.
func (c *Coordinator) Topic(name string) *Topic     { panic("unwritten") }
func (c *Coordinator) TopicByID(id [16]byte) *Topic { panic("unwritten") }

// Topics returns all topics by name. The slice is the caller's.
func (c *Coordinator) Topics() []*Topic { panic("unwritten") }

// CreateTopics makes topics, many per metadata transaction, and returns one
// topic or error for each, in order. With validateOnly nothing is made. It blocks.
func (c *Coordinator) CreateTopics(ctx context.Context, topics []NewTopic, validateOnly bool) ([]*Topic, []error) {
	panic("unwritten")
}

// DeleteTopic removes the topic if its id is still id. It blocks. The caller deletes its logs.
func (c *Coordinator) DeleteTopic(ctx context.Context, name string, id [16]byte) error {
	panic("unwritten")
}

// GrowTopic raises the number of partitions to count. It blocks.
func (c *Coordinator) GrowTopic(ctx context.Context, name string, count int32, validateOnly bool) error {
	panic("unwritten")
}

// AlterTopicConfig replaces the topic's overrides by what change makes of them;
// change may be called again if somebody else was faster. It blocks.
func (c *Coordinator) AlterTopicConfig(ctx context.Context, name string, validateOnly bool, change func(map[string]string) (map[string]string, error)) (*Topic, error) {
	panic("unwritten")
}

// NextProducerID returns a producer id never given out before. Ids come from
// blocks, so it blocks rarely, on metadata.
func (c *Coordinator) NextProducerID(ctx context.Context) (int64, error) { panic("unwritten") }
