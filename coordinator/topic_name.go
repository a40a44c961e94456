package coordinator

import (
	"fmt"
	"strings"
)

const maxTopicName = 249

// clusterMetadataTopic is Kafka's own log of metadata. Clients may not make it.
const clusterMetadataTopic = "__cluster_metadata"

// CheckTopicName holds Kafka's rules for a legal name (Topic.validate). The error is
// ErrInvalidTopicName with what is wrong.
func CheckTopicName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrInvalidTopicName)
	case name == "." || name == "..":
		return fmt.Errorf("%w: %q is reserved", ErrInvalidTopicName, name)
	case len(name) > maxTopicName:
		return fmt.Errorf("%w: %.20q… has %d characters, at most %d", ErrInvalidTopicName, name, len(name), maxTopicName)
	}
	for i := range len(name) {
		if b := name[i]; !('a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '.' || b == '_' || b == '-') {
			return fmt.Errorf("%w: %q, allowed are the characters a-z, A-Z, 0-9, '.', '_' and '-'", ErrInvalidTopicName, name)
		}
	}
	return nil
}

// topicKey is the same for names that Kafka says collide: in the names of
// metrics '.' becomes '_'.
func topicKey(name string) string { return strings.ReplaceAll(name, ".", "_") }

// errTaken is why a topic cannot be made beside another that has its topic key.
func errTaken(name, by string) error {
	if name == by {
		return fmt.Errorf("%w: %q", ErrTopicExists, name)
	}
	return fmt.Errorf("%w: %q collides with the topic %q: '.' and '_' are the same in the names of metrics", ErrInvalidTopicName, name, by)
}
