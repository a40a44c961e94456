package transcripts

import (
	"reflect"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// nodeFields are those of requests and answers that hold ids of nodes.
var nodeFields = []string{"NodeID", "BrokerID", "ControllerID", "Leader", "LeaderID", "Replicas", "ISR", "CurrentVoters"}

// renumber gives the node another id wherever a request or an answer names it: several
// nodes that look like one have the id 0, the server of the files has 1. A 0 beside an
// error, or without the host of the node, is no id but the field's default.
func renumber(v reflect.Value, from, to int32) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			renumber(v.Elem(), from, to)
		}
	case reflect.Slice:
		if v.CanSet() {
			leaveOutSpare(v)
		}
		for i := range v.Len() {
			renumber(v.Index(i), from, to)
		}
	case reflect.Struct:
		if kind := v.FieldByName("ResourceType"); kind.IsValid() && slices.Contains([]any{kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger}, kind.Interface()) {
			if name := v.FieldByName("ResourceName"); name.String() == strconv.Itoa(int(from)) {
				name.SetString(strconv.Itoa(int(to)))
			}
		}
		host, failure := v.FieldByName("Host"), v.FieldByName("ErrorCode")
		names := !(host.IsValid() && host.String() == "") && !(failure.IsValid() && failure.Int() != 0)
		for i := range v.NumField() {
			if f := v.Field(i); names && slices.Contains(nodeFields, v.Type().Field(i).Name) {
				renumberField(f, from, to)
			} else {
				renumber(f, from, to)
			}
		}
	}
}

// spareNode is the node at the same address that clients of one address are told of, so
// that they know one while a connection is away. The script knows one node only.
const spareNode = 1_000_000_000

// leaveOutSpare removes what names the spare node from a list.
func leaveOutSpare(list reflect.Value) {
	kept := reflect.MakeSlice(list.Type(), 0, list.Len())
	for i := range list.Len() {
		e := list.Index(i)
		if e.Kind() == reflect.Struct {
			id, name := e.FieldByName("NodeID"), e.FieldByName("Name")
			if id.IsValid() && id.Kind() == reflect.Int32 && id.Int() == spareNode || name.IsValid() && name.Kind() == reflect.String && name.String() == strconv.Itoa(spareNode) {
				continue
			}
			if replica := e.FieldByName("ReplicaID"); replica.IsValid() && replica.Kind() == reflect.Int32 && replica.Int() == spareNode {
				continue
			}
		}
		kept = reflect.Append(kept, e)
	}
	if kept.Len() != list.Len() {
		list.Set(kept)
	}
}

func renumberField(f reflect.Value, from, to int32) {
	switch ids := f.Addr().Interface().(type) {
	case *int32:
		if *ids == from {
			*ids = to
		}
	case *[]int32:
		*ids = slices.Clone(*ids)
		for i, id := range *ids {
			if id == from {
				(*ids)[i] = to
			}
		}
	case *[]kmsg.DescribeQuorumResponseTopicPartitionReplicaState:
		leaveOutSpare(f)
		for i := range *ids {
			renumberField(reflect.ValueOf(&(*ids)[i].ReplicaID).Elem(), from, to)
		}
	default:
		renumber(f, from, to)
	}
}
