package api

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
)

// AlterConfigs: v0-2
//
//	v2: flexible
//
// It replaces all overrides of a topic or group: what is not listed goes back to its
// default. Only these have configs that change. Of other resources nothing is set, so that to
// set nothing, or to delete what tools would have set (kafka-reassign-partitions
// clears its throttles), succeeds.

func (h *Handlers) alterConfigs(r *proxy.Request, q *kmsg.AlterConfigsRequest) {
	resp := q.ResponseKind().(*kmsg.AlterConfigsResponse)
	r.GoSlow(func() {
		ctx, cancel := h.timeout(defaultTimeout)
		defer cancel()
		named := make(map[configResource]int, len(q.Resources))
		for i := range q.Resources {
			named[configResource{q.Resources[i].ResourceType, q.Resources[i].ResourceName}]++
		}
		for i := range q.Resources {
			in := &q.Resources[i]
			id := configResource{in.ResourceType, in.ResourceName}
			err := h.alterResource(ctx, r.Listener(), id, named[id], q.ValidateOnly, func(map[string]string) (map[string]string, error) {
				return replacedConfigs(in.Configs)
			})
			out := kmsg.NewAlterConfigsResponseResource()
			out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
			out.ErrorCode, out.ErrorMessage = int16(adminErrors.code(err)), text(err)
			resp.Resources = append(resp.Resources, out)
		}
		h.respond(r, resp)
	})
}

func replacedConfigs(configs []kmsg.AlterConfigsRequestResourceConfig) (map[string]string, error) {
	out := make(map[string]string, len(configs))
	for _, c := range configs {
		if c.Value == nil {
			return nil, fmt.Errorf("config %q has no value: %w", c.Name, errRequest)
		}
		if _, twice := out[c.Name]; twice {
			return nil, fmt.Errorf("config %q is set twice: %w", c.Name, errRequest)
		}
		out[c.Name] = *c.Value
	}
	return out, nil
}

// configResource names what has configs.
type configResource struct {
	kind kmsg.ConfigResourceType
	name string
}

// alterResource changes the overrides of a resource that a request names so
// many times. It may block.
func (h *Handlers) alterResource(ctx context.Context, listener string, id configResource, named int, validateOnly bool, change func(map[string]string) (map[string]string, error)) error {
	if named > 1 {
		return fmt.Errorf("resource %q is named twice: %w", id.name, errRequest)
	}
	switch id.kind {
	case kmsg.ConfigResourceTypeTopic:
	case kmsg.ConfigResourceTypeGroupConfig:
		if id.name == "" {
			return fmt.Errorf("there are no configs of all groups: %w", errRequest)
		}
		return h.c.Coordinator.Groups().AlterConfig(ctx, id.name, validateOnly, change)
	default:
		return h.alterNothing(listener, id, change)
	}
	if id.name == "" {
		return fmt.Errorf("there are no configs of all topics: %w", errRequest)
	}
	if _, err := h.namedTopic(id.name); err != nil {
		return err
	}
	t, err := h.c.Coordinator.AlterTopicConfig(ctx, id.name, validateOnly, change)
	if err != nil || validateOnly {
		return err
	}
	h.applyConfig(t)
	return nil
}

// alterNothing lets pass what changes nothing of a resource that has no configs of its own.
func (h *Handlers) alterNothing(listener string, id configResource, change func(map[string]string) (map[string]string, error)) error {
	switch id.kind {
	case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger:
		if id.name != "" || id.kind == kmsg.ConfigResourceTypeBrokerLogger {
			if err := h.checkBroker(listener, id.name); err != nil {
				return err
			}
		}
	case kmsg.ConfigResourceTypeClientMetrics:
		if id.name == "" {
			return fmt.Errorf("a resource of type %s needs a name: %w", id.kind, errRequest)
		}
	default:
		return fmt.Errorf("configs of resource type %d are not kept: %w", int8(id.kind), errRequest)
	}
	set, err := change(make(map[string]string))
	switch {
	case err != nil:
		return err
	case len(set) == 0:
		return nil
	case id.kind == kmsg.ConfigResourceTypeBroker:
		return fmt.Errorf("settings of brokers are not dynamic: change the configuration of the node and start it again: %w", errRequest)
	}
	return fmt.Errorf("configs of a resource of type %s are not kept: %w", id.kind, errRequest)
}

// applyConfig tells the open logs of a topic its configs.
func (h *Handlers) applyConfig(t *coordinator.Topic) {
	for i := range t.Partitions {
		if l := h.c.Store.Log(storage.LogID{Topic: t.ID, Partition: i}); l != nil {
			l.SetConfig(t.LogConfig)
		}
	}
}
