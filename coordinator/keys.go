package coordinator

import (
	"encoding/base64"
	"strconv"
	"strings"
)

// keys names the facts. All lie under prefix, "quire/{cluster}/":
//
//	v                format of everything below, a decimal number; this program knows formatVersion
//	level            feature level that all nodes know, decimal; without it the first
//	cluster          cluster id, 22 characters of base64url
//	t/{topic key}    topic, JSON (topicRecord). The topic key is the name with '.' as '_',
//	                 so that names which collide in metrics, a.b and a_b, cannot both be made
//	tid/{topic id}   topic key of a topic id (22 characters of base64url); written with t/
//	node/{id}        running node, JSON (nodeRecord), on the node's lease
//	nodeid/{name}    id of the node of that name, decimal
//	nextnodeid       id for the next new name, decimal
//	nextproducerid   first producer id of the next block, decimal
//	own/{slot}       owner of a slot, JSON (ownerRecord); changed by compare-and-swap, on no lease
//	ovr/{slot}       node that is to own a slot, JSON (overrideRecord); set by hand
//	g/{slot}/{group} group, as package group encodes it (groupRecord)
//	o/{slot}/...     what a slot's groups have committed (package offsets)
//	gc/{group}       configs of one group, JSON (groupConfigRecord); all nodes follow them
//
// Beside them cmd/quire keeps there:
//
//	folder           data folder that has the records, or that none has (binding)
//	bookies          id of the BookKeeper cluster that the records of several nodes lie on
//	peersecret       what nodes prove to each other that they know, unless it is in a file
//	restore          what was noticed and decided of a restored etcd, JSON (restoreRecord)
//	seen/{folder}    a number that the node with that folder counts up
//
// and package storage log/ and what lies below it.
type keys struct{ prefix string }

const formatVersion = 1

func (k keys) version() string         { return k.prefix + "v" }
func (k keys) level() string           { return k.prefix + "level" }
func (k keys) cluster() string         { return k.prefix + "cluster" }
func (k keys) topics() string          { return k.prefix + "t/" }
func (k keys) topic(key string) string { return k.prefix + "t/" + key }
func (k keys) topicID(id [16]byte) string {
	return k.prefix + "tid/" + encodeID(id)
}
func (k keys) nodes() string             { return k.prefix + "node/" }
func (k keys) node(id int32) string      { return k.prefix + "node/" + strconv.Itoa(int(id)) }
func (k keys) nodeID(name string) string { return k.prefix + "nodeid/" + name }
func (k keys) nextNodeID() string        { return k.prefix + "nextnodeid" }
func (k keys) nextProducerID() string    { return k.prefix + "nextproducerid" }
func (k keys) owners() string            { return k.prefix + "own/" }
func (k keys) owner(slot int) string     { return k.prefix + "own/" + slotName(slot) }
func (k keys) overrides() string         { return k.prefix + "ovr/" }
func (k keys) override(slot int) string  { return k.prefix + "ovr/" + slotName(slot) }
func (k keys) groupConfigs() string      { return k.prefix + "gc/" }
func (k keys) groupConfig(id string) string {
	return k.prefix + "gc/" + id
}
func (k keys) groupOfConfig(path string) string {
	return strings.TrimPrefix(path, k.groupConfigs())
}
func (k keys) topicKey(path string) string { return strings.TrimPrefix(path, k.topics()) }

// TopicKey returns the key of the metadata store that exists as long as the topic
// with this id does. It is written once, with the topic.
func (c *Coordinator) TopicKey(id [16]byte) string { return c.keys.topicID(id) }

// encodeID is how Kafka prints its UUIDs.
func encodeID(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func decodeID(s string) (id [16]byte, ok bool) {
	if len(s) != 22 {
		return id, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(s))
	return id, err == nil && n == len(id)
}
