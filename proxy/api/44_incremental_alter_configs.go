package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/proxy"
)

// IncrementalAlterConfigs: v0-1
//
//	v1: flexible
//
// Operations: set, delete (back to the default), and for lists append and
// subtract (KIP-339). Each resource is changed as a whole or not at all.

func (h *Handlers) incrementalAlterConfigs(r *proxy.Request, q *kmsg.IncrementalAlterConfigsRequest) {
	resp := q.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
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
			err := h.alterResource(ctx, r.Listener(), id, named[id], q.ValidateOnly, func(overrides map[string]string) (map[string]string, error) {
				return h.changedConfigs(overrides, in.Configs)
			})
			out := kmsg.NewIncrementalAlterConfigsResponseResource()
			out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
			out.ErrorCode, out.ErrorMessage = int16(adminErrors.code(err)), text(err)
			resp.Resources = append(resp.Resources, out)
		}
		h.respond(r, resp)
	})
}

// changedConfigs applies operations to overrides.
func (h *Handlers) changedConfigs(overrides map[string]string, ops []kmsg.IncrementalAlterConfigsRequestResourceConfig) (map[string]string, error) {
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		if seen[op.Name] {
			return nil, fmt.Errorf("config %q is changed twice: %w", op.Name, errRequest)
		}
		seen[op.Name] = true
		if op.Op == kmsg.IncrementalAlterConfigOpDelete {
			delete(overrides, op.Name) // Kafka does not look whether there is such a config.
			continue
		}
		if op.Value == nil {
			return nil, fmt.Errorf("config %q has no value: %w", op.Name, errRequest)
		}
		switch op.Op {
		case kmsg.IncrementalAlterConfigOpSet:
			overrides[op.Name] = *op.Value
		case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
			k := coordinator.TopicConfig(op.Name)
			if k == nil || k.Type != coordinator.ConfigList {
				return nil, fmt.Errorf("config %q is not a list, which append and subtract need: %w", op.Name, coordinator.ErrInvalidConfig)
			}
			value, ok := overrides[op.Name]
			if !ok {
				value = h.defaultConfig(op.Name)
			}
			overrides[op.Name] = changedList(value, *op.Value, op.Op == kmsg.IncrementalAlterConfigOpAppend)
		default:
			return nil, fmt.Errorf("operation %d on config %q is not known: %w", op.Op, op.Name, errRequest)
		}
	}
	return overrides, nil
}

// defaultConfig is the value of a topic config that is not overridden.
func (h *Handlers) defaultConfig(name string) string {
	for _, e := range h.c.Coordinator.DescribeTopicConfig(new(coordinator.Topic)) {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// changedList adds the elements of change that list lacks, or takes them out.
func changedList(list, change string, add bool) string {
	elements := listElements(list)
	for _, e := range listElements(change) {
		at := slices.Index(elements, e)
		if add && at < 0 {
			elements = append(elements, e)
		} else if !add && at >= 0 {
			elements = slices.Delete(elements, at, at+1)
		}
	}
	return strings.Join(elements, ",")
}

func listElements(list string) []string {
	var out []string
	for e := range strings.SplitSeq(list, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	return out
}
