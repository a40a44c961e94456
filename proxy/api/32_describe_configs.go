package api

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// DescribeConfigs: v0-4
//
//	v0: is_default instead of a source
//	v1: source, synonyms
//	v3: type, documentation
//	v4: flexible
//
// Topics list every config of Kafka's, set or not. A broker tells its own
// settings only, as it knows no others': clients send the question to the broker
// that they ask about. There are no dynamic settings of brokers, so that the broker ""
// (the default of all) has none; nor are there loggers whose level could be changed, or
// subscriptions of client metrics. Groups list the configs that they may have of their own,
// be they there or not.

// describedInline is how many resources are described on the loop.
const describedInline = 16

func (h *Handlers) describeConfigs(r *proxy.Request, q *kmsg.DescribeConfigsRequest) {
	if len(q.Resources) <= describedInline {
		h.respond(r, h.describeResources(r.Listener(), q))
	} else {
		r.Go(func() { h.respond(r, h.describeResources(r.Listener(), q)) })
	}
}

// describeConfigsOfMany answers the questions about other brokers with what those say.
func (h *Handlers) describeConfigsOfMany(r *proxy.Request, q *kmsg.DescribeConfigsRequest) {
	byNode := make(map[int32][]int) // resources
	for i := range q.Resources {
		node := h.self
		if kind := q.Resources[i].ResourceType; kind == kmsg.ConfigResourceTypeBroker || kind == kmsg.ConfigResourceTypeBrokerLogger {
			node = h.brokerNamed(q.Resources[i].ResourceName)
		}
		byNode[node] = append(byNode[node], i)
	}
	if len(byNode) == 0 || len(byNode) == 1 && byNode[h.self] != nil {
		h.describeConfigs(r, q)
		return
	}
	whole := q.ResponseKind().(*kmsg.DescribeConfigsResponse)
	whole.Resources = make([]kmsg.DescribeConfigsResponseResource, len(q.Resources))
	take := func(items []int, resp kmsg.Response, err error) {
		var told []kmsg.DescribeConfigsResponseResource
		if err == nil {
			told = resp.(*kmsg.DescribeConfigsResponse).Resources
		}
		for k, i := range items {
			if len(told) == len(items) {
				whole.Resources[i] = told[k]
				continue
			}
			out := &whole.Resources[i]
			out.Default()
			out.ResourceType, out.ResourceName = q.Resources[i].ResourceType, q.Resources[i].ResourceName
			out.ErrorCode, out.ErrorMessage = int16(protocol.RequestTimedOut), text(err)
		}
	}
	nodes := slices.Sorted(maps.Keys(byNode))
	each(len(nodes), func() { h.respond(r, whole) }, func(n int, done func()) {
		items := byNode[nodes[n]]
		part := *q
		part.Resources = chosen(q.Resources, items)
		if nodes[n] == h.self {
			r.Go(func() {
				take(items, h.describeResources(r.Listener(), &part), nil)
				done()
			})
			return
		}
		h.askNode(r, nodes[n], &part, func(resp kmsg.Response, err error) {
			take(items, resp, err)
			done()
		})
	})
}

// brokerNamed is the live node that a resource of a broker is about, or this one
// for everything else that may stand there.
func (h *Handlers) brokerNamed(name string) int32 {
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return h.self
	}
	if _, live := h.c.Coordinator.Node(int32(id)); !live {
		return h.self
	}
	return int32(id)
}

func (h *Handlers) describeResources(listener string, q *kmsg.DescribeConfigsRequest) *kmsg.DescribeConfigsResponse {
	resp := q.ResponseKind().(*kmsg.DescribeConfigsResponse)
	for i := range q.Resources {
		in := &q.Resources[i]
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
		configs, err := h.describeResource(listener, in)
		if err != nil {
			out.ErrorCode, out.ErrorMessage = int16(adminErrors.code(err)), text(err)
		}
		for _, c := range configs {
			if len(in.ConfigNames) > 0 && !slices.Contains(in.ConfigNames, c.Name) {
				continue
			}
			if !q.IncludeSynonyms {
				c.ConfigSynonyms = nil
			}
			if !q.IncludeDocumentation {
				c.Documentation = nil
			}
			out.Configs = append(out.Configs, c)
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

func (h *Handlers) describeResource(listener string, in *kmsg.DescribeConfigsRequestResource) ([]kmsg.DescribeConfigsResponseResourceConfig, error) {
	switch in.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		t, err := h.namedTopic(in.ResourceName)
		if err != nil {
			return nil, err
		}
		return h.describeTopicConfigs(t), nil
	case kmsg.ConfigResourceTypeBroker:
		if in.ResourceName == "" {
			return nil, nil
		}
		if err := h.checkBroker(listener, in.ResourceName); err != nil {
			return nil, err
		}
		return h.describeBrokerConfigs(), nil
	case kmsg.ConfigResourceTypeBrokerLogger:
		return nil, h.checkBroker(listener, in.ResourceName)
	case kmsg.ConfigResourceTypeClientMetrics, kmsg.ConfigResourceTypeGroupConfig:
		if in.ResourceName == "" {
			return nil, fmt.Errorf("a resource of type %s needs a name: %w", in.ResourceType, errRequest)
		}
		if in.ResourceType == kmsg.ConfigResourceTypeGroupConfig {
			return h.describeGroupConfigs(in.ResourceName), nil
		}
		return nil, nil
	}
	return nil, fmt.Errorf("configs of resource type %d are not kept: %w", in.ResourceType, errRequest)
}

// namedTopic finds a topic, or says what is wrong with its name.
func (h *Handlers) namedTopic(name string) (*coordinator.Topic, error) {
	if t := h.c.Coordinator.Topic(name); t != nil {
		return t, nil
	}
	if err := coordinator.CheckTopicName(name); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("topic %q: %w", name, coordinator.ErrUnknownTopic)
}

// checkBroker says whether a broker resource is this node, as clients of a listener
// know it.
func (h *Handlers) checkBroker(listener, name string) error {
	self := h.idFor(listener)
	if id, err := strconv.ParseInt(name, 10, 32); err != nil || !h.knownAs(listener, int32(id)) && int32(id) != h.self {
		return fmt.Errorf("this is broker %d and knows no configs of broker %.100q: %w", self, name, errRequest)
	}
	return nil
}

func (h *Handlers) describeTopicConfigs(t *coordinator.Topic) []kmsg.DescribeConfigsResponseResourceConfig {
	entries := h.c.Coordinator.DescribeTopicConfig(t)
	out := make([]kmsg.DescribeConfigsResponseResourceConfig, len(entries))
	for i := range entries {
		e, c := &entries[i], &out[i]
		c.Default()
		c.Name, c.Value = e.Name, &e.Value
		c.Source, c.IsDefault = kmsg.ConfigSource(e.Source), e.Source == coordinator.SourceDefault
		c.ConfigType, c.Documentation = kmsg.ConfigType(e.Type), &e.Documentation
		for j := range e.Synonyms {
			s := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			s.Name, s.Value, s.Source = e.Synonyms[j].Name, &e.Synonyms[j].Value, kmsg.ConfigSource(e.Synonyms[j].Source)
			c.ConfigSynonyms = append(c.ConfigSynonyms, s)
		}
	}
	return out
}

func (h *Handlers) describeBrokerConfigs() []kmsg.DescribeConfigsResponseResourceConfig {
	out := make([]kmsg.DescribeConfigsResponseResourceConfig, len(h.c.Broker))
	for i := range h.c.Broker {
		b, c := &h.c.Broker[i], &out[i]
		c.Default()
		c.Name, c.ReadOnly, c.IsSensitive = b.Name, true, b.Sensitive
		if !b.Sensitive {
			c.Value = &b.Value
		}
		c.Source, c.IsDefault = kmsg.ConfigSourceDefaultConfig, !b.Set
		if b.Set {
			c.Source = kmsg.ConfigSourceStaticBrokerConfig
		}
		c.ConfigType, c.Documentation = b.Type, &b.Doc
		s := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
		s.Name, s.Value, s.Source = c.Name, c.Value, c.Source
		c.ConfigSynonyms = append(c.ConfigSynonyms, s)
	}
	return out
}

// describeGroupConfigs tells what is set for a group, else what the broker sets for
// all groups.
func (h *Handlers) describeGroupConfigs(group string) []kmsg.DescribeConfigsResponseResourceConfig {
	own := h.c.Coordinator.Groups().Config(group)
	var out []kmsg.DescribeConfigsResponseResourceConfig
	for _, c := range h.describeBrokerConfigs() {
		name, ok := strings.CutPrefix(c.Name, "group.")
		if !ok || !slices.Contains(coordinator.GroupConfigs(), name) {
			continue
		}
		c.Name, c.ReadOnly = name, false
		if value, set := own[name]; set {
			c.Value, c.Source, c.IsDefault = &value, kmsg.ConfigSource(coordinator.SourceGroup), false
			s := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			s.Name, s.Value, s.Source = c.Name, c.Value, c.Source
			c.ConfigSynonyms = slices.Insert(c.ConfigSynonyms, 0, s)
		}
		out = append(out, c)
	}
	return out
}
