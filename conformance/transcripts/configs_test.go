package transcripts

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	ofTopic         = kmsg.ConfigResourceTypeTopic
	ofBroker        = kmsg.ConfigResourceTypeBroker
	ofLogger        = kmsg.ConfigResourceTypeBrokerLogger
	ofClientMetrics = kmsg.ConfigResourceTypeClientMetrics
	ofGroup         = kmsg.ConfigResourceTypeGroupConfig
)

func describeConfigs(kind kmsg.ConfigResourceType, name string, configs ...string) *kmsg.DescribeConfigsRequest {
	r := kmsg.NewPtrDescribeConfigsRequest()
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName, resource.ConfigNames = kind, name, configs
	r.Resources = append(r.Resources, resource)
	return r
}

// told are settings that tools read; of most others the two Kafkas have lists
// of their own.
var told = []string{"cleanup.policy", "retention.ms", "min.insync.replicas", "max.message.bytes", "unclean.leader.election.enable", "leader.replication.throttled.replicas"}

func (s *script) configs() {
	var specs []topicSpec
	for v := range 3 {
		specs = append(specs, topicSpec{fmt.Sprint("set-", v), 1, []string{"retention.ms", "5000", "cleanup.policy", "compact"}})
	}
	s.create(specs...)
	describe := func(situation string, r *kmsg.DescribeConfigsRequest, versions ...int16) {
		s.t.Helper()
		s.all(situation, same(r), versions...)
	}
	describe("settings of a topic", describeConfigs(ofTopic, "set-0", told...))
	synonyms := describeConfigs(ofTopic, "set-0", told...)
	synonyms.IncludeSynonyms = true
	describe("settings of a topic with synonyms", synonyms, 1, 99)
	documented := describeConfigs(ofTopic, "set-0", "retention.ms")
	documented.IncludeDocumentation = true
	describe("settings of a topic with documentation", documented, 3, 99)
	s.ask("all settings of a topic", describeConfigs(ofTopic, "set-0"), 4)
	none := describeConfigs(ofTopic, "set-0")
	none.Resources[0].ConfigNames = []string{}
	describe("an empty list of settings", none, 1, 1)
	describe("settings that are not there", describeConfigs(ofTopic, "set-0", "confused", "retention.ms"))
	describe("settings of an unknown topic", describeConfigs(ofTopic, "nothing", "retention.ms"))
	describe("settings of a topic without name", describeConfigs(ofTopic, "", "retention.ms"))
	describe("settings of an impossible topic", describeConfigs(ofTopic, "a/b", "retention.ms"))
	describe("settings of a topic twice", changed(describeConfigs(ofTopic, "set-0", "retention.ms"), func(r *kmsg.DescribeConfigsRequest) {
		r.Resources = append(r.Resources, r.Resources[0])
	}))
	describe("settings of nothing", kmsg.NewPtrDescribeConfigsRequest())
	brokers := []string{"num.partitions", "auto.create.topics.enable", "delete.topic.enable", "default.replication.factor", "message.max.bytes", "offsets.topic.replication.factor", "log.retention.hours", "broker.id"}
	describe("settings of a broker", describeConfigs(ofBroker, "1", brokers...))
	describe("settings of all brokers", describeConfigs(ofBroker, "", brokers...))
	describe("settings of another broker", describeConfigs(ofBroker, "9", brokers...))
	describe("settings of a broker that is no number", describeConfigs(ofBroker, "one", brokers...))
	describe("settings of a logger", describeConfigs(ofLogger, "1", "nothing"))
	describe("settings of another logger", describeConfigs(ofLogger, "9"))
	describe("settings of client metrics", describeConfigs(ofClientMetrics, "nothing"))
	describe("settings of client metrics without name", describeConfigs(ofClientMetrics, ""))
	describe("settings of a group", describeConfigs(ofGroup, "nothing"))
	describe("settings of a group without name", describeConfigs(ofGroup, ""))
	describe("settings of an unknown kind", describeConfigs(9, "nothing"))
	describe("settings of kind 0", describeConfigs(0, "nothing"))

	alter := func(situation string, kind kmsg.ConfigResourceType, name func(v int16) string, dry bool, configs ...string) {
		s.t.Helper()
		s.all(situation, func(v int16) kmsg.Request {
			r := kmsg.NewPtrAlterConfigsRequest()
			r.ValidateOnly = dry
			resource := kmsg.NewAlterConfigsRequestResource()
			resource.ResourceType, resource.ResourceName = kind, name(v)
			for i := 0; i < len(configs); i += 2 {
				c := kmsg.NewAlterConfigsRequestResourceConfig()
				c.Name = configs[i]
				if configs[i+1] != "null" {
					c.Value = &configs[i+1]
				}
				resource.Configs = append(resource.Configs, c)
			}
			r.Resources = append(r.Resources, resource)
			return r
		})
	}
	set := func(v int16) string { return fmt.Sprint("set-", v) }
	is := func(name string) func(int16) string { return func(int16) string { return name } }
	alter("alter", ofTopic, set, false, "retention.ms", "7000")
	for v := range 3 {
		s.until("setting is known", func() bool { return s.setting(fmt.Sprint("set-", v), "retention.ms") == "7000" })
	}
	s.ask("altered", describeConfigs(ofTopic, "set-0", told...), 4)
	alter("alter dry", ofTopic, set, true, "retention.ms", "8000")
	alter("alter, bad value", ofTopic, set, true, "retention.ms", "soon")
	alter("alter, null value", ofTopic, set, true, "retention.ms", "null")
	alter("alter, unknown setting", ofTopic, set, true, "confused", "1")
	alter("alter, setting twice", ofTopic, set, true, "retention.ms", "1", "retention.ms", "2")
	alter("alter to nothing", ofTopic, set, true)
	alter("alter an unknown topic", ofTopic, is("nothing"), true, "retention.ms", "1")
	alter("alter a topic without name", ofTopic, is(""), true, "retention.ms", "1")
	alter("alter an impossible topic", ofTopic, is("a/b"), true, "retention.ms", "1")
	alter("alter another broker", ofBroker, is("9"), true, "log.cleaner.threads", "2")
	alter("alter a broker that is no number", ofBroker, is("one"), true, "log.cleaner.threads", "2")
	alter("alter a logger", ofLogger, is("1"), true, "x", "INFO")
	alter("alter an unknown kind", 9, is("x"), true, "x", "y")
	alter("alter kind 0", 0, is("x"), true, "x", "y")
	s.all("alter no resources", same(kmsg.NewPtrAlterConfigsRequest()))

	type op struct {
		name  string
		op    kmsg.IncrementalAlterConfigOp
		value string // "null" is null
	}
	resource := func(kind kmsg.ConfigResourceType, name string, ops ...op) kmsg.IncrementalAlterConfigsRequestResource {
		res := kmsg.NewIncrementalAlterConfigsRequestResource()
		res.ResourceType, res.ResourceName = kind, name
		for _, o := range ops {
			c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			c.Name, c.Op = o.name, o.op
			if o.value != "null" {
				c.Value = &o.value
			}
			res.Configs = append(res.Configs, c)
		}
		return res
	}
	change := func(situation string, dry bool, kind kmsg.ConfigResourceType, name func(int16) string, ops ...op) {
		s.t.Helper()
		s.all(situation, func(v int16) kmsg.Request {
			r := kmsg.NewPtrIncrementalAlterConfigsRequest()
			r.ValidateOnly = dry
			r.Resources = append(r.Resources, resource(kind, name(v), ops...))
			return r
		})
	}
	const put, remove, add, subtract = kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpDelete, kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract
	change("change", false, ofTopic, set, op{"retention.ms", put, "9000"}, op{"max.message.bytes", put, "2000"})
	for v := range 2 {
		s.until("setting is known", func() bool { return s.setting(fmt.Sprint("set-", v), "retention.ms") == "9000" })
	}
	s.ask("changed", describeConfigs(ofTopic, "set-0", told...), 4)
	change("change by removing", false, ofTopic, set, op{"retention.ms", remove, "null"}, op{"cleanup.policy", put, "delete"})
	for v := range 2 {
		s.until("setting is known", func() bool { return s.setting(fmt.Sprint("set-", v), "retention.ms") == "604800000" })
	}
	change("change by adding", false, ofTopic, set, op{"cleanup.policy", add, "compact"})
	for v := range 2 {
		s.until("setting is known", func() bool { return s.setting(fmt.Sprint("set-", v), "cleanup.policy") != "delete" })
	}
	s.ask("changed by adding", describeConfigs(ofTopic, "set-0", told...), 4)
	change("change by taking away", true, ofTopic, set, op{"cleanup.policy", subtract, "delete"})
	change("change by adding what is there", true, ofTopic, set, op{"cleanup.policy", add, "compact"})
	change("change by adding to a number", true, ofTopic, set, op{"retention.ms", add, "1"})
	change("change by taking away from a number", true, ofTopic, set, op{"retention.ms", subtract, "1"})
	change("change by adding nothing", true, ofTopic, set, op{"cleanup.policy", add, "null"})
	change("change by removing what is not there", true, ofTopic, set, op{"segment.ms", remove, "null"})
	change("change by removing the unknown", true, ofTopic, set, op{"confused", remove, "null"})
	change("change by an unknown way", true, ofTopic, set, op{"retention.ms", 9, "1"})
	change("change to null", true, ofTopic, set, op{"retention.ms", put, "null"})
	change("change to a bad value", true, ofTopic, set, op{"retention.ms", put, "soon"})
	change("change the unknown", true, ofTopic, set, op{"confused", put, "1"})
	change("change twice", true, ofTopic, set, op{"retention.ms", put, "1"}, op{"retention.ms", put, "2"})
	change("change nothing", true, ofTopic, set)
	change("change, good and bad", true, ofTopic, set, op{"retention.ms", put, "1"}, op{"segment.ms", put, "soon"})
	change("change an unknown topic", true, ofTopic, is("nothing"), op{"retention.ms", put, "1"})
	change("change a topic without name", true, ofTopic, is(""), op{"retention.ms", put, "1"})
	change("change an impossible topic", true, ofTopic, is("a/b"), op{"retention.ms", put, "1"})
	change("change another broker", true, ofBroker, is("9"), op{"log.cleaner.threads", put, "2"})
	change("change a broker that is no number", true, ofBroker, is("one"), op{"log.cleaner.threads", put, "2"})
	change("change a broker by what cannot change", true, ofBroker, is("1"), op{"log.dirs", put, "/x"})
	change("change an unknown kind", true, 9, is("x"), op{"x", put, "y"})
	change("change kind 0", true, 0, is("x"), op{"x", put, "y"})
	change("change a group", true, ofGroup, is("g"), op{"consumer.session.timeout.ms", put, "50000"})
	change("change a group by the unknown", true, ofGroup, is("g"), op{"confused", put, "50000"})
	change("change a group without name", true, ofGroup, is(""), op{"consumer.session.timeout.ms", put, "50000"})
	change("change client metrics", true, ofClientMetrics, is("m"), op{"interval.ms", put, "5000"})
	change("change client metrics by the unknown", true, ofClientMetrics, is("m"), op{"confused", put, "5000"})
	s.all("change one resource twice", func(v int16) kmsg.Request {
		r := kmsg.NewPtrIncrementalAlterConfigsRequest()
		r.ValidateOnly = true
		res := resource(ofTopic, set(v), op{"retention.ms", put, "1"})
		r.Resources = append(r.Resources, res, res)
		return r
	})
	s.all("change no resources", same(kmsg.NewPtrIncrementalAlterConfigsRequest()))

	resources := kmsg.NewPtrListConfigResourcesRequest()
	s.all("resources with settings", func(v int16) kmsg.Request { return resources }, 0, 0)
	for _, kinds := range [][]int8{{16}, {32}, {9}} {
		s.all(fmt.Sprint("resources of kinds ", kinds), same(changed(kmsg.NewPtrListConfigResourcesRequest(), func(r *kmsg.ListConfigResourcesRequest) { r.ResourceTypes = kinds })), 1, 1)
	}
}

// setting returns a setting of a topic as it is known now.
func (s *script) setting(topic, name string) string {
	resp := s.must(describeConfigs(ofTopic, topic, name), 4).(*kmsg.DescribeConfigsResponse)
	for _, c := range resp.Resources[0].Configs {
		if c.Value != nil {
			return *c.Value
		}
	}
	return ""
}
