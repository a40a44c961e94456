package coordinator

import (
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// topicRecord is the value of t/{topic key}.
type topicRecord struct {
	Version           int               `json:"v"`
	Name              string            `json:"n"`
	ID                string            `json:"id"` // 22 characters of base64url
	Partitions        int32             `json:"p"`
	ReplicationFactor int16             `json:"rf"`
	Config            map[string]string `json:"c,omitempty"`
	CreatedMs         int64             `json:"t"` // Unix time
}

const topicRecordVersion = 1

// maxConfigBytes bounds the names and values of one topic's overrides, so that
// as many topics as fit into one transaction by their number fit by their size.
const maxConfigBytes = 16 << 10

func newTopicRecord(t *Topic, created time.Time) topicRecord {
	return topicRecord{
		Version: topicRecordVersion, Name: t.Name, ID: encodeID(t.ID), Partitions: t.Partitions,
		ReplicationFactor: t.ReplicationFactor, Config: t.Config, CreatedMs: created.UnixMilli(),
	}
}

func (r topicRecord) encode() []byte {
	value, err := json.Marshal(r)
	if err != nil {
		// Strings and numbers always have a JSON form.
		panic(err)
	}
	return value
}

func decodeTopicRecord(kv meta.KV) (topicRecord, error) {
	var r topicRecord
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return r, fmt.Errorf("metadata key %s: %w", kv.Key, err)
	}
	switch _, ok := decodeID(r.ID); {
	case r.Version > topicRecordVersion:
		return r, fmt.Errorf("metadata key %s has version %d; this program knows versions up to %d: use a newer one", kv.Key, r.Version, topicRecordVersion)
	case !ok:
		return r, fmt.Errorf("metadata key %s: %q is not a topic id", kv.Key, r.ID)
	case CheckTopicName(r.Name) != nil || r.Partitions < 1 || r.ReplicationFactor < 1:
		return r, fmt.Errorf("metadata key %s: topic %q with %d partitions and replication factor %d", kv.Key, r.Name, r.Partitions, r.ReplicationFactor)
	}
	return r, nil
}

// decodeTopic makes the topic of a record.
func (c *Coordinator) decodeTopic(kv meta.KV) (*Topic, error) {
	r, err := decodeTopicRecord(kv)
	if err != nil {
		return nil, err
	}
	return c.topicOf(r, kv.Modified), nil
}

// topicOf makes a topic at a revision. A stored config that is not valid, which
// only another version of this program can have written, is kept and told back;
// the log goes by the default.
func (c *Coordinator) topicOf(r topicRecord, revision meta.Revision) *Topic {
	id, _ := decodeID(r.ID)
	config, bad := c.configs.intern(r.ReplicationFactor, r.Config)
	if bad != nil {
		c.logger.Warn("a stored topic config is ignored", zap.String("topic", r.Name), zap.Error(bad))
	}
	return &Topic{
		Name: r.Name, ID: id, Partitions: r.Partitions, ReplicationFactor: r.ReplicationFactor,
		Config: config.overrides, LogConfig: config.log, Revision: revision,
	}
}
