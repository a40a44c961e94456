package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/storage/meta"
)

// SourceGroup is the ConfigSource of a config that was set for one group.
const SourceGroup ConfigSource = 8

// groupConfigRecord is the value of gc/{group}. The key is there as long as a
// config of the group is set, whether or not there is such a group (as in Kafka).
type groupConfigRecord struct {
	Version int               `json:"v"`
	Config  map[string]string `json:"c"`
}

const groupConfigRecordVersion = 1

// maxConfiguredGroups is how many groups may have configs of their own: every
// node keeps them all in memory.
const maxConfiguredGroups = 100_000

// groupConfigKey is a config that groups may have of their own: some milliseconds.
type groupConfigKey struct {
	name   string
	limits func(*GroupsConfig) (least, most time.Duration)
	of     func(*group.Config) *time.Duration
}

// groupConfigKeys are those of Kafka's (GroupConfig.java) that are heeded, by name.
var groupConfigKeys = []groupConfigKey{
	{
		name: "consumer.heartbeat.interval.ms",
		limits: func(c *GroupsConfig) (time.Duration, time.Duration) {
			return c.MinConsumerHeartbeatInterval, c.MaxConsumerHeartbeatInterval
		},
		of: func(c *group.Config) *time.Duration { return &c.ConsumerHeartbeatInterval },
	},
	{
		name: "consumer.session.timeout.ms",
		limits: func(c *GroupsConfig) (time.Duration, time.Duration) {
			return c.MinConsumerSessionTimeout, c.MaxConsumerSessionTimeout
		},
		of: func(c *group.Config) *time.Duration { return &c.ConsumerSessionTimeout },
	},
}

// GroupConfigs returns the names of the configs that groups may have of their
// own, ascending. The broker's setting for all groups has the same name behind "group.".
func GroupConfigs() []string {
	names := make([]string, len(groupConfigKeys))
	for i := range groupConfigKeys {
		names[i] = groupConfigKeys[i].name
	}
	return names
}

// groupConfigs is the copy of all groups' own configs in memory. It follows by
// watch, and at once what is changed here; the revision of each decides.
type groupConfigs struct {
	g *Groups

	mu     sync.RWMutex
	groups map[string]groupSettings
}

// groupSettings is what is known of one group's configs.
type groupSettings struct {
	// overrides are what is set. Nil if nothing is any more: that stays known
	// until the watch has brought it, so that it does not bring what was before.
	overrides map[string]string
	config    *group.Config // what the group goes by
	revision  meta.Revision
}

// followFrom keeps the copy up to date from a revision on. The shards run.
func (s *groupConfigs) followFrom(revision meta.Revision) {
	s.g.c.background.Add(1)
	go func() {
		defer s.g.c.background.Done()
		s.g.c.follow(followed{prefix: s.g.c.keys.groupConfigs(), after: revision, changed: applied(s.follow), list: s.list})
	}()
}

// list replaces the copy by what the metadata store holds.
func (s *groupConfigs) list(ctx context.Context) (meta.Revision, error) {
	found := make(map[string]groupSettings)
	revision, err := s.g.c.meta.List(ctx, s.g.c.keys.groupConfigs(), func(kv meta.KV) bool {
		if settings, ok := s.decode(kv); ok {
			found[s.g.c.keys.groupOfConfig(kv.Key)] = settings
		}
		return true
	})
	if err != nil {
		return 0, unavailable("configs of groups", err)
	}
	s.mu.Lock()
	for id, settings := range s.groups {
		if settings.revision > revision {
			found[id] = settings
		}
	}
	s.groups = found
	s.mu.Unlock()
	for _, shard := range s.g.shards {
		// None while the coordinator opens, when no group is loaded either.
		if shard != nil {
			shard.inbox.put(shard.configureAll)
		}
	}
	return revision, nil
}

// follow applies what the watch saw.
func (s *groupConfigs) follow(e meta.Events) {
	for _, event := range e.Events {
		settings := groupSettings{revision: event.Modified}
		if !event.Deleted {
			var ok bool
			if settings, ok = s.decode(event.KV); !ok {
				continue
			}
		}
		s.set(s.g.c.keys.groupOfConfig(event.Key), settings, true)
	}
}

// set takes note of a group's configs unless something newer is known, and lets
// the group go by them.
func (s *groupConfigs) set(id string, settings groupSettings, followed bool) {
	s.mu.Lock()
	old := s.groups[id].revision
	switch {
	case settings.revision < old:
		s.mu.Unlock()
		return
	case settings.overrides == nil && followed:
		delete(s.groups, id)
	default:
		s.groups[id] = settings
	}
	s.mu.Unlock()
	if settings.revision > old {
		shard := s.g.shardOf(SlotOf(id))
		shard.inbox.put(func() { shard.configure(id) })
	}
}

// decode reads a group's configs. A record that cannot be read is as good as none.
func (s *groupConfigs) decode(kv meta.KV) (settings groupSettings, ok bool) {
	r, err := decodeGroupConfigs(kv)
	if err != nil {
		s.g.c.logger.Error("the configs of a group stay as they were: set them again, or use a newer program", zap.String("key", kv.Key), zap.Error(err))
		return groupSettings{}, false
	}
	return s.settings(r.Config, kv.Modified), true
}

func decodeGroupConfigs(kv meta.KV) (r groupConfigRecord, err error) {
	err = json.Unmarshal(kv.Value, &r)
	if err == nil && r.Version > groupConfigRecordVersion {
		err = fmt.Errorf("it has version %d; this program knows versions up to %d", r.Version, groupConfigRecordVersion)
	}
	return r, err
}

// settings makes of overrides what a group goes by. Each was within the limits of
// the node that took it; those of this node may be others, or have changed since,
// and hold (GroupConfig.evaluate).
func (s *groupConfigs) settings(overrides map[string]string, revision meta.Revision) groupSettings {
	if len(overrides) == 0 {
		return groupSettings{revision: revision}
	}
	all := &s.g.config
	config := all.Group
	for i := range groupConfigKeys {
		k := &groupConfigKeys[i]
		value, set := overrides[k.name]
		if !set {
			continue
		}
		if d, err := parseMillis(value); err == nil {
			least, most := k.limits(all)
			*k.of(&config) = min(max(d, least), most)
		}
	}
	if config.ConsumerSessionTimeout <= config.ConsumerHeartbeatInterval {
		config.ConsumerSessionTimeout, config.ConsumerHeartbeatInterval = all.Group.ConsumerSessionTimeout, all.Group.ConsumerHeartbeatInterval
	}
	return groupSettings{overrides: overrides, config: &config, revision: revision}
}

func parseMillis(value string) (time.Duration, error) {
	ms, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32)
	return time.Duration(ms) * time.Millisecond, err
}

// check says whether a group may have these configs. The error is ErrInvalidConfig.
func (s *groupConfigs) check(id string, overrides map[string]string) error {
	all := &s.g.config
	config := all.Group
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		at := slices.IndexFunc(groupConfigKeys, func(k groupConfigKey) bool { return k.name == name })
		if at < 0 {
			return fmt.Errorf("group %q: %w: there is no group config %.100q; there are %s", id, ErrInvalidConfig, name, strings.Join(GroupConfigs(), ", "))
		}
		k := &groupConfigKeys[at]
		d, err := parseMillis(overrides[name])
		if err != nil {
			return fmt.Errorf("group %q: %w: %s=%.100q is not a number of milliseconds", id, ErrInvalidConfig, name, overrides[name])
		}
		if least, most := k.limits(all); d < least || d > most {
			rest := strings.TrimPrefix(name, "consumer.")
			return fmt.Errorf("group %q: %w: %s=%d; group.consumer.min.%s and group.consumer.max.%s allow %d to %d", id, ErrInvalidConfig,
				name, d.Milliseconds(), rest, rest, least.Milliseconds(), most.Milliseconds())
		}
		*k.of(&config) = d
	}
	if config.ConsumerSessionTimeout <= config.ConsumerHeartbeatInterval {
		return fmt.Errorf("group %q: %w: consumer.session.timeout.ms=%d is not more than consumer.heartbeat.interval.ms=%d", id, ErrInvalidConfig,
			config.ConsumerSessionTimeout.Milliseconds(), config.ConsumerHeartbeatInterval.Milliseconds())
	}
	return nil
}

// of returns what a group goes by.
func (s *groupConfigs) of(id string) *group.Config {
	s.mu.RLock()
	settings := s.groups[id]
	s.mu.RUnlock()
	if settings.config != nil {
		return settings.config
	}
	return &s.g.config.Group
}

// Config returns the configs that a group has of its own, as they were set; nil:
// none. The map is shared: do not change it. Any goroutine.
func (g *Groups) Config(id string) map[string]string {
	g.configs.mu.RLock()
	defer g.configs.mu.RUnlock()
	return g.configs.groups[id].overrides
}

// Configured returns the ids of the groups that have configs of their own,
// ascending. Any goroutine.
func (g *Groups) Configured() []string {
	g.configs.mu.RLock()
	defer g.configs.mu.RUnlock()
	var ids []string
	for id, settings := range g.configs.groups {
		if settings.overrides != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// AlterConfig replaces a group's own configs by what change makes of them; change
// owns the map that it gets, which is never nil, and may be called again if
// somebody else was faster. The group, which need not exist, goes by them at the
// members' next heartbeats, on whatever node. The error is ErrInvalidConfig,
// ErrPolicy, ErrUnavailable, group.ErrInvalidGroupID, or change's. It blocks.
func (g *Groups) AlterConfig(ctx context.Context, id string, validateOnly bool, change func(map[string]string) (map[string]string, error)) error {
	if id == "" || len(id) > g.config.MaxGroupIDBytes {
		return fmt.Errorf("group %.100q: %w", id, group.ErrInvalidGroupID)
	}
	key := g.c.keys.groupConfig(id)
	subject := fmt.Sprintf("configs of group %q", id)
	var sent []byte
	for unknown := false; ; {
		kv, err := g.c.meta.Get(ctx, key)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return unavailable(subject, err)
		}
		exists := err == nil
		if unknown && bytes.Equal(kv.Value, sent) {
			// The transaction whose outcome was not known, or one to the same effect.
			_, err := g.configs.list(ctx)
			return err
		}
		var before groupConfigRecord
		if exists {
			if before, err = decodeGroupConfigs(kv); err != nil {
				return fmt.Errorf("%w: metadata key %s: %w", ErrUnavailable, kv.Key, err)
			}
		}
		overrides := maps.Clone(before.Config)
		if overrides == nil {
			overrides = make(map[string]string)
		}
		if overrides, err = change(overrides); err != nil {
			return err
		}
		if err := g.configs.check(id, overrides); err != nil {
			return err
		}
		switch {
		case validateOnly || len(overrides) == 0 && !exists:
			return nil
		case !exists && g.configs.len() >= maxConfiguredGroups:
			return fmt.Errorf("%s: %w: %d groups have some already", subject, ErrPolicy, maxConfiguredGroups)
		}
		op := meta.Delete(key)
		sent = nil
		if len(overrides) > 0 {
			if sent, err = json.Marshal(groupConfigRecord{groupConfigRecordVersion, overrides}); err != nil {
				return err
			}
			op = meta.Put(key, sent)
		}
		revision, ok, err := g.c.meta.Txn(ctx, []meta.Cond{{Key: key, Modified: kv.Modified}}, []meta.Op{op})
		switch {
		case err == nil && ok:
			g.configs.set(id, g.configs.settings(overrides, revision), false)
			return nil
		case err != nil && !retriable(ctx, err):
			return unavailable(subject, err)
		}
		unknown = err != nil
	}
}

func (s *groupConfigs) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.groups)
}

// configure lets a group that is loaded go by its configs as they are now.
func (s *shard) configure(id string) {
	if slot := s.slots[SlotOf(id)]; slot != nil {
		if e := slot.groups[id]; e != nil && e.group != nil {
			e.group.Configure(s.g.configs.of(id))
		}
	}
}

// configureAll is configure of all groups.
func (s *shard) configureAll() {
	for slot := range s.owned {
		s.configureSlot(slot)
	}
}

func (s *shard) configureSlot(slot *ownedSlot) {
	for id, e := range slot.groups {
		if e.group != nil {
			e.group.Configure(s.g.configs.of(id))
		}
	}
}
