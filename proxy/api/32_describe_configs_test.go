package api

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
)

func describe(c *client, version int16, kind kmsg.ConfigResourceType, name string, keys ...string) *kmsg.DescribeConfigsResponseResource {
	q := kmsg.NewPtrDescribeConfigsRequest()
	q.Version, q.IncludeSynonyms, q.IncludeDocumentation = version, true, true
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kind, name, keys
	q.Resources = append(q.Resources, r)
	out := &do[*kmsg.DescribeConfigsResponse](c, q).Resources[0]
	if out.ResourceType != kind || out.ResourceName != name || (out.ErrorMessage == nil) != (out.ErrorCode == 0) {
		c.t.Errorf("the answer is for %d %q with message %v", out.ResourceType, out.ResourceName, out.ErrorMessage)
	}
	return out
}

func findConfig(t *testing.T, r *kmsg.DescribeConfigsResponseResource, name string) *kmsg.DescribeConfigsResponseResourceConfig {
	t.Helper()
	for i := range r.Configs {
		if r.Configs[i].Name == name {
			return &r.Configs[i]
		}
	}
	t.Fatalf("config %q is not listed", name)
	return nil
}

func TestDescribeTopicConfigs(t *testing.T) {
	s := newServer(t, func(o *options) { o.coord.TopicDefaults = map[string]string{"segment.bytes": "1000000"} })
	s.createTopic("orders", 1, "retention.ms", "5000")
	c := s.dial()
	for v := int16(0); v <= 4; v++ {
		r := describe(c, v, kmsg.ConfigResourceTypeTopic, "orders")
		wantCode(t, "DescribeConfigs", r.ErrorCode, protocol.None)
		for _, k := range coordinator.TopicConfigs() {
			if !k.Unlisted {
				findConfig(t, r, k.Name)
			}
		}
		for _, tc := range []struct {
			name, value string
			source      kmsg.ConfigSource
			kind        kmsg.ConfigType
			synonyms    int
		}{
			{"retention.ms", "5000", kmsg.ConfigSourceDynamicTopicConfig, kmsg.ConfigTypeLong, 2},
			{"segment.bytes", "1000000", kmsg.ConfigSourceStaticBrokerConfig, kmsg.ConfigTypeInt, 2},
			{"cleanup.policy", "delete", kmsg.ConfigSourceDefaultConfig, kmsg.ConfigTypeList, 1},
			{"min.insync.replicas", "1", kmsg.ConfigSourceDefaultConfig, kmsg.ConfigTypeInt, 1},
		} {
			e := findConfig(t, r, tc.name)
			if *e.Value != tc.value || e.ReadOnly || e.IsSensitive {
				t.Errorf("v%d: %s is %+v", v, tc.name, e)
			}
			if v == 0 && e.IsDefault != (tc.source == kmsg.ConfigSourceDefaultConfig) {
				t.Errorf("v0: %s has is_default %v", tc.name, e.IsDefault)
			}
			if v >= 1 && (e.Source != tc.source || len(e.ConfigSynonyms) != tc.synonyms) {
				t.Errorf("v%d: %s has source %d and synonyms %+v", v, tc.name, e.Source, e.ConfigSynonyms)
			}
			if v >= 3 && (e.ConfigType != tc.kind || e.Documentation == nil || *e.Documentation == "") {
				t.Errorf("v%d: %s has type %d, documentation %v", v, tc.name, e.ConfigType, e.Documentation)
			}
		}
	}
	r := describe(c, 4, kmsg.ConfigResourceTypeTopic, "orders", "segment.bytes", "no.such.config")
	if len(r.Configs) != 1 || r.Configs[0].Name != "segment.bytes" || r.Configs[0].ConfigSynonyms[0].Name != "log.segment.bytes" {
		t.Errorf("one key: %+v", r.Configs)
	}
	q := kmsg.NewPtrDescribeConfigsRequest()
	q.Version = 4
	q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders"}}
	e := findConfig(t, &do[*kmsg.DescribeConfigsResponse](c, q).Resources[0], "retention.ms")
	if len(e.ConfigSynonyms) != 0 || e.Documentation != nil {
		t.Errorf("synonyms and documentation that were not asked for: %+v", e)
	}
}

func TestDescribeConfigsOfOthers(t *testing.T) {
	s := newServer(t, func(o *options) {
		o.config.Broker = []BrokerConfig{
			{Name: "num.partitions", Value: "3", Set: true, Type: kmsg.ConfigTypeInt, Doc: "Partitions of new topics."},
			{Name: "log.dirs", Value: "/data", Type: kmsg.ConfigTypeString},
			{Name: "ssl.key.password", Value: "hush", Set: true, Sensitive: true, Type: kmsg.ConfigTypePassword},
		}
	})
	c := s.dial()
	r := describe(c, 4, kmsg.ConfigResourceTypeBroker, "1")
	e := findConfig(t, r, "num.partitions")
	if *e.Value != "3" || !e.ReadOnly || e.Source != kmsg.ConfigSourceStaticBrokerConfig || e.ConfigType != kmsg.ConfigTypeInt || *e.Documentation == "" {
		t.Errorf("num.partitions is %+v", e)
	}
	if e := findConfig(t, r, "log.dirs"); e.Source != kmsg.ConfigSourceDefaultConfig {
		t.Errorf("log.dirs is %+v", e)
	}
	if e := findConfig(t, r, "ssl.key.password"); e.Value != nil || !e.IsSensitive || e.ConfigSynonyms[0].Value != nil {
		t.Errorf("a secret is told: %+v", e)
	}
	for _, tc := range []struct {
		what string
		kind kmsg.ConfigResourceType
		name string
		want protocol.Code
	}{
		{"default of all brokers", kmsg.ConfigResourceTypeBroker, "", protocol.None},
		{"another broker", kmsg.ConfigResourceTypeBroker, "2", protocol.InvalidRequest},
		{"no broker", kmsg.ConfigResourceTypeBroker, "one", protocol.InvalidRequest},
		{"unknown topic", kmsg.ConfigResourceTypeTopic, "nope", protocol.UnknownTopicOrPartition},
		{"bad topic", kmsg.ConfigResourceTypeTopic, "a b", protocol.InvalidTopicException},
		{"loggers", kmsg.ConfigResourceTypeBrokerLogger, "1", protocol.None},
		{"no type", kmsg.ConfigResourceTypeUnknown, "orders", protocol.InvalidRequest},
	} {
		r := describe(c, 4, tc.kind, tc.name)
		wantCode(t, tc.what, r.ErrorCode, tc.want)
		if len(r.Configs) != 0 {
			t.Errorf("%s: configs are told", tc.what)
		}
	}
}

func TestAlterConfigs(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1, "retention.ms", "5000", "segment.bytes", "2000")
	c := s.dial()
	c.produce(topic, 0, "a")
	str := kmsg.StringPtr
	type kv = kmsg.AlterConfigsRequestResourceConfig
	ask := func(v int16, validate bool, kind kmsg.ConfigResourceType, name string, configs ...kv) protocol.Code {
		q := kmsg.NewPtrAlterConfigsRequest()
		q.Version, q.ValidateOnly = v, validate
		q.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kind, ResourceName: name, Configs: configs}}
		return protocol.Code(do[*kmsg.AlterConfigsResponse](c, q).Resources[0].ErrorCode)
	}
	for _, tc := range []struct {
		what     string
		validate bool
		kind     kmsg.ConfigResourceType
		name     string
		configs  []kv
		want     protocol.Code
	}{
		{"validated", true, kmsg.ConfigResourceTypeTopic, "orders", []kv{{Name: "retention.ms", Value: str("1")}}, protocol.None},
		{"bad value", false, kmsg.ConfigResourceTypeTopic, "orders", []kv{{Name: "retention.ms", Value: str("soon")}}, protocol.InvalidConfig},
		{"unknown config", false, kmsg.ConfigResourceTypeTopic, "orders", []kv{{Name: "nope", Value: str("1")}}, protocol.InvalidConfig},
		{"no value", false, kmsg.ConfigResourceTypeTopic, "orders", []kv{{Name: "retention.ms"}}, protocol.InvalidRequest},
		{"twice", false, kmsg.ConfigResourceTypeTopic, "orders", []kv{{Name: "retention.ms", Value: str("1")}, {Name: "retention.ms", Value: str("1")}}, protocol.InvalidRequest},
		{"unknown topic", false, kmsg.ConfigResourceTypeTopic, "nope", nil, protocol.UnknownTopicOrPartition},
		{"all topics", false, kmsg.ConfigResourceTypeTopic, "", nil, protocol.InvalidRequest},
		{"broker", false, kmsg.ConfigResourceTypeBroker, "1", []kv{{Name: "log.retention.ms", Value: str("1")}}, protocol.InvalidRequest},
		{"all brokers", false, kmsg.ConfigResourceTypeBroker, "", []kv{{Name: "log.retention.ms", Value: str("1")}}, protocol.InvalidRequest},
		{"nothing of a broker", false, kmsg.ConfigResourceTypeBroker, "1", nil, protocol.None},
		{"nothing of another broker", false, kmsg.ConfigResourceTypeBroker, "2", nil, protocol.InvalidRequest},
		{"unknown type", false, 3, "orders", nil, protocol.InvalidRequest},
	} {
		if code := ask(2, tc.validate, tc.kind, tc.name, tc.configs...); code != tc.want {
			t.Errorf("%s: %s, want %s", tc.what, code.Name(), tc.want.Name())
		}
		if config := s.coord.Topic("orders").Config; config["retention.ms"] != "5000" || config["segment.bytes"] != "2000" {
			t.Errorf("%s: the configs are %v after it", tc.what, config)
		}
	}
	for v := int16(0); v <= 2; v++ {
		if code := ask(v, false, kmsg.ConfigResourceTypeTopic, "orders", kv{Name: "max.message.bytes", Value: str("100")}); code != protocol.None {
			t.Errorf("v%d: %s", v, code.Name())
		}
	}
	if config := s.coord.Topic("orders").Config; len(config) != 1 || config["max.message.bytes"] != "100" {
		t.Errorf("replaced by %v", config)
	}
	// The open log obeys.
	resp := do[*kmsg.ProduceResponse](c, produceOne(9, topic, 0, makeBatch(t, batch.Plain, string(make([]byte, 100)))))
	wantCode(t, "produce", resp.Topics[0].Partitions[0].ErrorCode, protocol.MessageTooLarge)

	q := kmsg.NewPtrAlterConfigsRequest()
	q.Version = 2
	one := kmsg.AlterConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders"}
	q.Resources = []kmsg.AlterConfigsRequestResource{one, one}
	for _, r := range do[*kmsg.AlterConfigsResponse](c, q).Resources {
		wantCode(t, "resource twice", r.ErrorCode, protocol.InvalidRequest)
	}
}

func TestIncrementalAlterConfigs(t *testing.T) {
	s := newServer(t)
	s.createTopic("orders", 1, "retention.ms", "5000")
	c := s.dial()
	str := kmsg.StringPtr
	type op = kmsg.IncrementalAlterConfigsRequestResourceConfig
	const set, del, add, sub = kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpDelete, kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract
	for i, tc := range []struct {
		what string
		ops  []op
		want protocol.Code
		key  string
		then string // value of key after it, "": not overridden
	}{
		{"set", []op{{Name: "segment.bytes", Op: set, Value: str("3000")}}, protocol.None, "segment.bytes", "3000"},
		{"the others stay", nil, protocol.None, "retention.ms", "5000"},
		{"append to a default", []op{{Name: "cleanup.policy", Op: add, Value: str("compact")}}, protocol.None, "cleanup.policy", "delete,compact"},
		{"append what is there", []op{{Name: "cleanup.policy", Op: add, Value: str("delete")}}, protocol.None, "cleanup.policy", "delete,compact"},
		{"subtract", []op{{Name: "cleanup.policy", Op: sub, Value: str("delete")}}, protocol.None, "cleanup.policy", "compact"},
		{"append to no list", []op{{Name: "retention.ms", Op: add, Value: str("1")}}, protocol.InvalidConfig, "retention.ms", "5000"},
		{"subtract from no list", []op{{Name: "retention.ms", Op: sub, Value: str("1")}}, protocol.InvalidConfig, "retention.ms", "5000"},
		{"set to nothing", []op{{Name: "retention.ms", Op: set}}, protocol.InvalidRequest, "retention.ms", "5000"},
		{"bad value", []op{{Name: "retention.ms", Op: set, Value: str("x")}}, protocol.InvalidConfig, "retention.ms", "5000"},
		{"unknown config", []op{{Name: "nope", Op: set, Value: str("x")}}, protocol.InvalidConfig, "nope", ""},
		{"unknown config deleted", []op{{Name: "nope", Op: del}}, protocol.None, "nope", ""},
		{"unknown operation", []op{{Name: "retention.ms", Op: 4, Value: str("1")}}, protocol.InvalidRequest, "retention.ms", "5000"},
		{"key twice", []op{{Name: "retention.ms", Op: set, Value: str("1")}, {Name: "retention.ms", Op: del}}, protocol.InvalidRequest, "retention.ms", "5000"},
		{"all or nothing", []op{{Name: "segment.bytes", Op: set, Value: str("9000")}, {Name: "retention.ms", Op: set, Value: str("x")}}, protocol.InvalidConfig, "segment.bytes", "3000"},
		{"delete", []op{{Name: "retention.ms", Op: del}}, protocol.None, "retention.ms", ""},
		{"delete again", []op{{Name: "retention.ms", Op: del}}, protocol.None, "retention.ms", ""},
	} {
		q := kmsg.NewPtrIncrementalAlterConfigsRequest()
		q.Version = int16(i % 2)
		q.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders", Configs: tc.ops}}
		wantCode(t, tc.what, do[*kmsg.IncrementalAlterConfigsResponse](c, q).Resources[0].ErrorCode, tc.want)
		if got := s.coord.Topic("orders").Config[tc.key]; got != tc.then {
			t.Errorf("%s: %s is %q after it, want %q", tc.what, tc.key, got, tc.then)
		}
	}
}

// TestConfigsThatNobodySets: what is not a topic has nothing to change, which
// tools may ask for all the same.
func TestConfigsThatNobodySets(t *testing.T) {
	s := newServer(t, func(o *options) {
		o.config.Broker = []BrokerConfig{{Name: "group.consumer.session.timeout.ms", Value: "45000", Set: true, Type: kmsg.ConfigTypeInt}}
	})
	c := s.dial()
	const none, bad = protocol.None, protocol.InvalidRequest
	for _, tc := range []struct {
		kind               kmsg.ConfigResourceType
		name               string
		describe, del, set protocol.Code
		configs            string // described
	}{
		{kmsg.ConfigResourceTypeBroker, "1", none, none, bad, "group.consumer.session.timeout.ms"},
		{kmsg.ConfigResourceTypeBroker, "", none, none, bad, ""},
		{kmsg.ConfigResourceTypeBroker, "2", bad, bad, bad, ""},
		{kmsg.ConfigResourceTypeBrokerLogger, "1", none, none, bad, ""},
		{kmsg.ConfigResourceTypeBrokerLogger, "", bad, bad, bad, ""},
		{kmsg.ConfigResourceTypeBrokerLogger, "x", bad, bad, bad, ""},
		{kmsg.ConfigResourceTypeClientMetrics, "m", none, none, bad, ""},
		{kmsg.ConfigResourceTypeClientMetrics, "", bad, bad, bad, ""},
		{kmsg.ConfigResourceTypeGroupConfig, "g", none, none, protocol.InvalidConfig, "consumer.session.timeout.ms"},
		{kmsg.ConfigResourceTypeGroupConfig, "", bad, bad, bad, ""},
		{kmsg.ConfigResourceTypeUnknown, "x", bad, bad, bad, ""},
		{3, "x", bad, bad, bad, ""},
	} {
		what := fmt.Sprintf("type %d %q", tc.kind, tc.name)
		d := kmsg.NewPtrDescribeConfigsRequest()
		d.Version = 4
		d.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: tc.kind, ResourceName: tc.name}}
		described := do[*kmsg.DescribeConfigsResponse](c, d).Resources[0]
		wantCode(t, what+" described", described.ErrorCode, tc.describe)
		names := ""
		for _, c := range described.Configs {
			names += c.Name
		}
		if names != tc.configs {
			t.Errorf("%s has the configs %q, want %q", what, names, tc.configs)
		}
		q := kmsg.NewPtrIncrementalAlterConfigsRequest()
		q.Version = 1
		op := kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: "leader.replication.throttled.rate", Op: kmsg.IncrementalAlterConfigOpDelete}
		q.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: tc.kind, ResourceName: tc.name}}
		q.Resources[0].Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{op}
		wantCode(t, what+" deleted", do[*kmsg.IncrementalAlterConfigsResponse](c, q).Resources[0].ErrorCode, tc.del)
		op.Op, op.Value = kmsg.IncrementalAlterConfigOpSet, kmsg.StringPtr("1")
		q.Resources[0].Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{op}
		wantCode(t, what+" set", do[*kmsg.IncrementalAlterConfigsResponse](c, q).Resources[0].ErrorCode, tc.set)
	}
}

// TestGroupConfigs: groups have configs that are told with where they come from.
func TestGroupConfigs(t *testing.T) {
	s := newGroupServer(t, func(o *options) {
		o.config.Broker = []BrokerConfig{
			{Name: "group.consumer.heartbeat.interval.ms", Value: "5000", Type: kmsg.ConfigTypeInt},
			{Name: "group.consumer.session.timeout.ms", Value: "45000", Set: true, Type: kmsg.ConfigTypeInt},
			{Name: "group.consumer.max.size", Value: "10", Type: kmsg.ConfigTypeInt},
		}
	})
	s.createTopic("orders", 1)
	c := s.dial()
	describe := func() (out string) {
		q := kmsg.NewPtrDescribeConfigsRequest()
		q.Version, q.IncludeSynonyms = 4, true
		q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: "g"}}
		described := do[*kmsg.DescribeConfigsResponse](c, q).Resources[0]
		wantCode(t, "described", described.ErrorCode, protocol.None)
		for _, c := range described.Configs {
			out += fmt.Sprintf("%s=%s %d:", strings.TrimPrefix(c.Name, "consumer."), *c.Value, c.Source)
			for _, s := range c.ConfigSynonyms {
				out += fmt.Sprintf(" %s=%s %d", s.Name, *s.Value, s.Source)
			}
			out += "\n"
			if c.ReadOnly || c.ConfigType != kmsg.ConfigTypeInt {
				t.Errorf("%s is %+v", c.Name, c)
			}
		}
		return out
	}
	want := func(when, text string) {
		t.Helper()
		if got := describe(); got != text {
			t.Errorf("%s:\n%swant\n%s", when, got, text)
		}
	}
	none := "heartbeat.interval.ms=5000 5: group.consumer.heartbeat.interval.ms=5000 5\nsession.timeout.ms=45000 4: group.consumer.session.timeout.ms=45000 4\n"
	want("at first", none)

	type op = kmsg.IncrementalAlterConfigsRequestResourceConfig
	str := kmsg.StringPtr
	const set, del, add = kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpDelete, kmsg.IncrementalAlterConfigOpAppend
	incremental := func(dry bool, ops ...op) int16 {
		q := kmsg.NewPtrIncrementalAlterConfigsRequest()
		q.Version, q.ValidateOnly = 1, dry
		q.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: "g", Configs: ops}}
		return do[*kmsg.IncrementalAlterConfigsResponse](c, q).Resources[0].ErrorCode
	}
	const session, interval = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
	wantCode(t, "dry", incremental(true, op{Name: session, Op: set, Value: str("50000")}), protocol.None)
	want("after a dry change", none)
	wantCode(t, "beyond the limits", incremental(false, op{Name: session, Op: set, Value: str("1000")}), protocol.InvalidConfig)
	wantCode(t, "of share groups", incremental(false, op{Name: "share.session.timeout.ms", Op: set, Value: str("50000")}), protocol.InvalidConfig)
	wantCode(t, "as a list", incremental(false, op{Name: session, Op: add, Value: str("50000")}), protocol.InvalidConfig)
	wantCode(t, "what is not there", incremental(false, op{Name: session, Op: del}), protocol.None)
	wantCode(t, "set", incremental(false, op{Name: session, Op: set, Value: str("50000")}, op{Name: interval, Op: set, Value: str("6000")}), protocol.None)
	want("then", "heartbeat.interval.ms=6000 8: consumer.heartbeat.interval.ms=6000 8 group.consumer.heartbeat.interval.ms=5000 5\n"+
		"session.timeout.ms=50000 8: consumer.session.timeout.ms=50000 8 group.consumer.session.timeout.ms=45000 4\n")
	if told := do[*kmsg.ConsumerGroupHeartbeatResponse](c, newConsumerHeartbeat(1, "g", "m", 0)).HeartbeatIntervalMillis; told != 6000 {
		t.Errorf("a member is told an interval of %d ms", told)
	}

	q := kmsg.NewPtrAlterConfigsRequest()
	q.Version = 2
	q.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: "g",
		Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: interval, Value: str("7000")}}}}
	wantCode(t, "replaced", do[*kmsg.AlterConfigsResponse](c, q).Resources[0].ErrorCode, protocol.None)
	want("replaced", "heartbeat.interval.ms=7000 8: consumer.heartbeat.interval.ms=7000 8 group.consumer.heartbeat.interval.ms=5000 5\n"+
		"session.timeout.ms=45000 4: group.consumer.session.timeout.ms=45000 4\n")
	wantCode(t, "taken away", incremental(false, op{Name: interval, Op: del}), protocol.None)
	want("in the end", none)
	q.Resources[0].ResourceName = strings.Repeat("g", 5000)
	wantCode(t, "an id that is too long", do[*kmsg.AlterConfigsResponse](c, q).Resources[0].ErrorCode, protocol.InvalidGroupID)
}

// TestOpenLogOfAStaleTopic: a log that is opened while its topic changes obeys
// the topic as it is, and one whose topic is gone leaves nothing behind.
func TestOpenLogOfAStaleTopic(t *testing.T) {
	s := newServer(t)
	stale := s.createTopic("orders", 2)
	now, err := s.coord.AlterTopicConfig(t.Context(), "orders", false, func(c map[string]string) (map[string]string, error) {
		c["max.message.bytes"] = "100"
		return c, nil
	})
	check(t, err)
	_, err = s.handler.openLog(t.Context(), stale, 0)
	check(t, err)
	resp := do[*kmsg.ProduceResponse](s.dial(), produceOne(9, now, 0, makeBatch(t, batch.Plain, string(make([]byte, 100)))))
	wantCode(t, "produce", resp.Topics[0].Partitions[0].ErrorCode, protocol.MessageTooLarge)

	check(t, s.handler.deleteTopic(t.Context(), now))
	if l, err := s.handler.openLog(t.Context(), stale, 1); !errors.Is(err, coordinator.ErrUnknownTopic) || l != nil {
		t.Errorf("the log of a deleted topic is opened: %v", err)
	}
	if s.store.Log(logID(stale, 1)) != nil {
		t.Error("the log of a deleted topic stays open")
	}
}
