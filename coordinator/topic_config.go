package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"weak"

	"github.com/quirelog/quire/storage"
)

// ConfigType is the type of a config as DescribeConfigs v3 codes it.
type ConfigType int8

// The types that topic configs have.
const (
	ConfigBoolean ConfigType = 1
	ConfigString  ConfigType = 2
	ConfigInt     ConfigType = 3
	ConfigLong    ConfigType = 5
	ConfigDouble  ConfigType = 6
	ConfigList    ConfigType = 7 // separated by commas; the only type for append and subtract
)

// ConfigSource says where a value comes from, as DescribeConfigs v1 codes it.
type ConfigSource int8

// The sources that values have here.
const (
	SourceTopic        ConfigSource = 1 // an override of the topic
	SourceStaticBroker ConfigSource = 4 // the broker's configuration
	SourceDefault      ConfigSource = 5 // built in
)

// ConfigEntry is one config of one topic, as DescribeConfigs tells it. No topic
// config is read-only or sensitive.
type ConfigEntry struct {
	Name          string
	Value         string
	Source        ConfigSource
	Type          ConfigType
	Documentation string
	Synonyms      []ConfigSynonym // where the value may come from, what is in force first
}

// ConfigSynonym is one place that sets a config.
type ConfigSynonym struct {
	Name   string
	Value  string
	Source ConfigSource
}

// ConfigKey describes a topic config. It is read-only.
type ConfigKey struct {
	Name          string
	Type          ConfigType
	Default       string
	Broker        []BrokerSynonym // the broker's settings for its default, what wins first
	Documentation string
	Unlisted      bool // gone since Kafka 4, or not of Kafka: accepted and told back, listed only where it is set

	allowed string // for messages
	check   func(string) error
	set     func(*storage.LogConfig, string) // nil: nothing here goes by it
}

// BrokerSynonym is a broker setting that means a topic config. Its values times
// Factor are the topic config's; 0 is for values that are the same.
type BrokerSynonym struct {
	Name   string
	Factor int64
}

// TopicConfigs returns all topic configs by name. The slice is shared: do not change it.
func TopicConfigs() []*ConfigKey { return configKeys }

// TopicConfig returns the topic config of that name, nil if there is none.
func TopicConfig(name string) *ConfigKey {
	at, ok := slices.BinarySearchFunc(configKeys, name, func(k *ConfigKey, name string) int { return strings.Compare(k.Name, name) })
	if !ok {
		return nil
	}
	return configKeys[at]
}

// Check says whether a value is valid. The error is ErrInvalidConfig with the
// key, the value and what is allowed.
func (k *ConfigKey) Check(value string) error {
	if err := k.check(value); err != nil {
		return fmt.Errorf("%w: %s=%.100q: %w; allowed is %s", ErrInvalidConfig, k.Name, value, err, k.allowed)
	}
	return nil
}

// CheckTopicConfig checks overrides as CreateTopics does, for a topic of any name.
func (c *Coordinator) CheckTopicConfig(overrides map[string]string) error {
	return c.configs.check("", 1, overrides)
}

// DescribeTopicConfig lists every config of a topic with its value and source,
// by name.
func (c *Coordinator) DescribeTopicConfig(t *Topic) []ConfigEntry {
	entries := make([]ConfigEntry, 0, len(configKeys))
	for _, k := range configKeys {
		override, overridden := t.Config[k.Name]
		if k.Unlisted && !overridden {
			continue
		}
		e := ConfigEntry{Name: k.Name, Type: k.Type, Documentation: k.Documentation}
		if overridden {
			e.Synonyms = append(e.Synonyms, ConfigSynonym{k.Name, override, SourceTopic})
		}
		if broker := k.brokerName(); broker != "" {
			if value, ok := c.configs.defaults[k.Name]; ok {
				e.Synonyms = append(e.Synonyms, ConfigSynonym{broker, value, SourceStaticBroker})
			}
			e.Synonyms = append(e.Synonyms, ConfigSynonym{broker, k.Default, SourceDefault})
		}
		e.Value, e.Source = k.Default, SourceDefault
		if len(e.Synonyms) > 0 {
			e.Value, e.Source = e.Synonyms[0].Value, e.Synonyms[0].Source
		}
		entries = append(entries, e)
	}
	return entries
}

// brokerName is the setting of the broker that has the same unit, "" if the broker sets
// nothing for it.
func (k *ConfigKey) brokerName() string {
	for _, s := range k.Broker {
		if s.Factor == 0 {
			return s.Name
		}
	}
	return ""
}

// BrokerDefaults translates broker settings, log.retention.hours for example,
// into the defaults of topic configs: Config.TopicDefaults. Settings that mean no
// topic config are left out. The error is ErrInvalidConfig.
func BrokerDefaults(broker map[string]string) (map[string]string, error) {
	defaults := make(map[string]string)
	for _, k := range configKeys {
		for _, s := range k.Broker {
			value, ok := broker[s.Name]
			if !ok {
				continue
			}
			value, err := s.convert(value)
			if err == nil {
				err = k.Check(value)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name, err)
			}
			defaults[k.Name] = value
			break
		}
	}
	return defaults, nil
}

// configs are the topic configs of one cluster: its defaults, and the sets of
// overrides in use, each parsed once however many topics share it.
type configs struct {
	defaults map[string]string
	base     *storage.LogConfig

	mu       sync.Mutex
	interned map[string]internedConfig // by canonical text
	sweepAt  int                       // size of interned that makes the next sweep due
}

// parsedConfig is a set of overrides and what it means together with the defaults.
type parsedConfig struct {
	overrides map[string]string // nil if empty
	log       *storage.LogConfig
}

// internedConfig does not keep alive what no topic uses any more.
type internedConfig struct {
	overrides map[string]string
	log       weak.Pointer[storage.LogConfig]
}

const firstSweep = 1024

func newConfigs(defaults map[string]string) (*configs, error) {
	c := &configs{defaults: maps.Clone(defaults), base: new(storage.LogConfig), interned: make(map[string]internedConfig), sweepAt: firstSweep}
	for name, value := range defaults {
		k := TopicConfig(name)
		if k == nil {
			return nil, errUnknownConfig(name)
		}
		if err := k.Check(value); err != nil {
			return nil, fmt.Errorf("default: %w", err)
		}
	}
	for _, k := range configKeys {
		if k.set != nil {
			k.set(c.base, c.effective(k.Name, nil))
		}
	}
	settleCompression(c.base, func(name string) string { return c.effective(name, nil) })
	if err := c.checkTogether(nil); err != nil {
		return nil, fmt.Errorf("default: %w", err)
	}
	return c, nil
}

func errUnknownConfig(name string) error {
	return fmt.Errorf("%w: there is no topic config %.100q", ErrInvalidConfig, name)
}

// effective is the value in force: override, else the broker's, else the built-in one.
func (c *configs) effective(name string, overrides map[string]string) string {
	if v, ok := overrides[name]; ok {
		return v
	}
	if v, ok := c.defaults[name]; ok {
		return v
	}
	return TopicConfig(name).Default
}

// check says whether a topic of so many replicas may have these overrides.
func (c *configs) check(topic string, replicas int16, overrides map[string]string) error {
	bytes := 0
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		value := overrides[name]
		bytes += len(name) + len(value)
		k := TopicConfig(name)
		err := errUnknownConfig(name)
		if k != nil {
			err = k.Check(value)
		}
		if err != nil {
			return ofTopic(topic, err)
		}
	}
	if bytes > maxConfigBytes {
		return ofTopic(topic, fmt.Errorf("%w: names and values have %d bytes, at most %d", ErrInvalidConfig, bytes, maxConfigBytes))
	}
	err := c.checkTogether(overrides)
	if err == nil {
		var l storage.LogConfig
		settleQuorums(&l, replicas, overrides)
		err = checkQuorums(&l)
	}
	if err != nil {
		return ofTopic(topic, err)
	}
	return nil
}

func ofTopic(topic string, err error) error {
	if topic == "" {
		return err
	}
	return fmt.Errorf("topic %q: %w", topic, err)
}

// checkTogether holds the rules that concern two configs (LogConfig.validateValues).
// Every value is valid by itself.
func (c *configs) checkTogether(overrides map[string]string) error {
	least, most := c.effective("min.compaction.lag.ms", overrides), c.effective("max.compaction.lag.ms", overrides)
	if parseInt(least) > parseInt(most) {
		return fmt.Errorf("%w: min.compaction.lag.ms=%s is more than max.compaction.lag.ms=%s", ErrInvalidConfig, least, most)
	}
	return nil
}

// intern parses overrides of a topic of so many replicas, or returns what it parsed
// before from equal ones. It takes the map over. With invalid overrides it says
// what is wrong and returns a config without them.
func (c *configs) intern(replicas int16, overrides map[string]string) (parsedConfig, error) {
	if len(overrides) == 0 && replicas < 2 {
		return parsedConfig{log: c.base}, nil
	}
	text := fmt.Sprint(max(replicas, 1), " ", canonical(overrides))
	c.mu.Lock()
	defer c.mu.Unlock()
	if in, ok := c.interned[text]; ok {
		if log := in.log.Value(); log != nil {
			return parsedConfig{overrides: in.overrides, log: log}, nil
		}
	}
	log, err := c.parse(overrides)
	settleQuorums(log, replicas, overrides)
	if err == nil {
		if len(c.interned) >= c.sweepAt {
			c.sweepLocked()
		}
		c.interned[text] = internedConfig{overrides: overrides, log: weak.Make(log)}
	}
	return parsedConfig{overrides: overrides, log: log}, err
}

// sweepLocked drops what no topic uses any more.
func (c *configs) sweepLocked() {
	maps.DeleteFunc(c.interned, func(_ string, in internedConfig) bool { return in.log.Value() == nil })
	c.sweepAt = max(firstSweep, 2*len(c.interned))
}

// canonical is the same text for the same overrides, and another for others.
func canonical(overrides map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		fmt.Fprintf(&b, "%q=%q ", name, overrides[name])
	}
	return b.String()
}

// parse makes the log's settings out of overrides. An invalid override is left
// at its default and is the error.
func (c *configs) parse(overrides map[string]string) (*storage.LogConfig, error) {
	log := *c.base
	var bad error
	valid := maps.Clone(overrides)
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		k := TopicConfig(name)
		err := errUnknownConfig(name)
		if k != nil {
			err = k.Check(overrides[name])
		}
		if err != nil {
			bad = err
			delete(valid, name)
			continue
		}
		if k.set != nil {
			k.set(&log, overrides[name])
		}
	}
	settleCompression(&log, func(name string) string { return c.effective(name, valid) })
	return &log, bad
}
