package group

import "time"

// Config bounds what groups may do. Several groups share one; it does not
// change while they use it, but a group may be given another one.
type Config struct {
	// MinSessionTimeout and MaxSessionTimeout bound what a classic member may
	// ask for (group.min.session.timeout.ms, group.max.session.timeout.ms).
	MinSessionTimeout, MaxSessionTimeout time.Duration
	// InitialRebalanceDelay is how long the first rebalance of an empty group
	// waits for more members, counted from the last that came and bounded by the
	// members' rebalance timeout; 0 is allowed (group.initial.rebalance.delay.ms).
	// Kafka waits whole delays, the second one too for a member that came at
	// the start of the first: up to twice as long for members that all come at once.
	InitialRebalanceDelay time.Duration
	// NewMemberJoinTimeout is how long a member that has never been in a
	// generation waits in JoinGroup, whatever its session timeout
	// (GroupCoordinator.NewMemberJoinTimeoutMs).
	NewMemberJoinTimeout time.Duration
	// MaxSize is the most members of a classic group, and the most member ids
	// given out and not yet used (group.max.size; Kafka leaves it unbounded).
	MaxSize int

	// ConsumerSessionTimeout and ConsumerHeartbeatInterval hold for members of
	// the consumer protocol (group.consumer.session.timeout.ms,
	// group.consumer.heartbeat.interval.ms).
	ConsumerSessionTimeout, ConsumerHeartbeatInterval time.Duration
	// ConsumerMaxSize is the most members of a consumer group (group.consumer.max.size).
	ConsumerMaxSize int
	// Assignors are those that members of the consumer protocol may name; the
	// first is that of a group whose members name none (group.consumer.assignors).
	Assignors []string
	// Upgrade lets a consumer-protocol member turn a live classic group into a
	// consumer group, Downgrade the leaving of the last such member turn it
	// back (group.consumer.migration.policy; both are on in Kafka 4).
	Upgrade, Downgrade bool

	// NewUUID returns 128 random bits as text; member ids end with it.
	NewUUID func() string
}

// WithDefaults returns c with Kafka 4's defaults in the place of zero values;
// InitialRebalanceDelay, Upgrade and Downgrade are taken as they are.
func (c Config) WithDefaults() Config {
	or := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	or(&c.MinSessionTimeout, 6*time.Second)
	or(&c.MaxSessionTimeout, 30*time.Minute)
	or(&c.NewMemberJoinTimeout, 5*time.Minute)
	or(&c.ConsumerSessionTimeout, 45*time.Second)
	or(&c.ConsumerHeartbeatInterval, 5*time.Second)
	if c.Assignors == nil {
		c.Assignors = []string{UniformAssignor, RangeAssignor}
	}
	if c.MaxSize == 0 {
		c.MaxSize = DefaultMaxSize
	}
	if c.ConsumerMaxSize == 0 {
		c.ConsumerMaxSize = DefaultMaxSize
	}
	return c
}

const (
	// DefaultInitialRebalanceDelay is Kafka's group.initial.rebalance.delay.ms.
	DefaultInitialRebalanceDelay = 3 * time.Second
	// DefaultMaxSize keeps one group's record within what a store takes.
	DefaultMaxSize = 10_000
)
